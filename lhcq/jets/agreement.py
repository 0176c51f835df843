"""The compiled loops against FastJet itself, on the machine that is about to use them.

Tests hold the loops to FastJet bit for bit, but on the tests' machines. Another compiler or CPU may round otherwise,
so a worker asks once, before its first task.
"""

import numpy as np

from lhcq.config import ClusterConfig
from lhcq.errors import PermanentError
from lhcq.jets.clustering import cluster_four_vectors
from lhcq.jets.vectors import Floats, FourVectors

_N_EVENTS, _N_PARTICLES = 12, 80


class Disagreement(PermanentError):
    """The loops compiled here find other jets than FastJet."""


def check_agreement() -> None:
    """Cluster a few made-up events by every algorithm; `Disagreement` unless each bit is FastJet's."""
    particles = FourVectors.massless(_make_events())
    for algorithm in ("antikt", "kt", "cambridge"):
        config = ClusterConfig(algorithm=algorithm, radius=0.8, pt_min=1.0, features="jets")
        jets = cluster_four_vectors(particles, config).vectors
        ours = np.stack([jets.px, jets.py, jets.pz, jets.e], axis=1)
        theirs = _cluster_by_fastjet(particles, config)
        if not np.array_equal(ours, theirs):
            raise Disagreement(
                f"the {algorithm} jets that are found on this machine are not FastJet's to the bit. "
                "Remove the __pycache__ of lhcq/jets, install the versions of constraints.txt, and report it."
            )


def _make_events() -> Floats:
    """Particles (n_events, n_particles, 3) around two directions, always the same."""
    rng = np.random.default_rng(1)
    shape = (_N_EVENTS, _N_PARTICLES)
    side = rng.integers(0, 2, shape)
    eta, phi = rng.normal(0.0, 0.6, shape), side * np.pi + rng.normal(0.0, 0.6, shape)
    return np.stack([rng.exponential(20.0, shape) + 0.1, eta, phi], axis=2)


def _cluster_by_fastjet(particles: FourVectors, config: ClusterConfig) -> Floats:
    """Momenta (n_jets, 4) of all jets, in each event by falling pt."""
    import fastjet

    codes = {
        "antikt": fastjet.antikt_algorithm,
        "kt": fastjet.kt_algorithm,
        "cambridge": fastjet.cambridge_algorithm,
    }
    definition = fastjet.JetDefinition(codes[config.algorithm], config.radius)
    momenta = np.stack([particles.px, particles.py, particles.pz, particles.e], axis=1)
    found = []
    for event in np.split(momenta, particles.offsets[1:-1]):
        inputs = [fastjet.PseudoJet(*particle) for particle in event.tolist()]
        sequence = fastjet.ClusterSequence(inputs, definition)
        for jet in fastjet.sorted_by_pt(sequence.inclusive_jets(config.pt_min)):
            found.append((jet.px(), jet.py(), jet.pz(), jet.E()))
    return np.array(found)
