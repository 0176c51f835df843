"""The edges: distances that are equal, jets at the threshold and of one pt, momenta that vanish or go along the
beam.
"""

import math

import fastjet
import numpy as np
import pytest

from lhcq.config import ClusterConfig
from lhcq.events.faults import ETA_MAX, find_faults
from lhcq.jets.clustering import cluster_events, cluster_four_vectors
from lhcq.jets.vectors import FourVectors

CODES = {
    "antikt": fastjet.antikt_algorithm,
    "kt": fastjet.kt_algorithm,
    "cambridge": fastjet.cambridge_algorithm,
}
ALGORITHMS = sorted(CODES)
TIE = [(25.0, 0.5, -0.25), (50.0, -0.5, -0.25), (50.0, 0.0, -0.25)]


def cluster(event, **asked):
    """The jets of one event of (pt, eta, phi), and its particles as momenta (n, 4)."""
    vectors = FourVectors.massless(np.array(event, float)[None])
    config = ClusterConfig(**{"pt_min": 0.0, "features": "jets", **asked})
    momenta = np.stack([vectors.px, vectors.py, vectors.pz, vectors.e], axis=1)
    return cluster_four_vectors(vectors, config), momenta


def rows_of(vectors: FourVectors) -> list[tuple[float, ...]]:
    return list(
        zip(*(column.tolist() for column in (vectors.px, vectors.py, vectors.pz, vectors.e)), strict=True)
    )


def by_fastjet(momenta, algorithm, radius, pt_min, strategy=fastjet.N2Plain):
    """The jets of FastJet's own interface, sorted by itself."""
    # Without the last argument, fastjet 3.5.2.0 takes the strategy for the recombination scheme.
    definition = fastjet.JetDefinition(CODES[algorithm], radius, fastjet.E_scheme, strategy, 1)
    particles = [fastjet.PseudoJet(*momentum) for momentum in momenta.tolist()]
    sequence = fastjet.ClusterSequence(particles, definition)
    jets = fastjet.sorted_by_pt(sequence.inclusive_jets(pt_min))
    return [(jet.px(), jet.py(), jet.pz(), jet.E()) for jet in jets]


def on_a_grid(rng, n, step, *, equal_pt=False):
    """Particles in the middle of a calorimeter's towers."""
    pt = np.round(rng.exponential(20, n)) + 1 if equal_pt else rng.exponential(20, n) + 0.1
    eta, phi = np.round(rng.normal(0, 1, n) / step) * step, np.round(rng.uniform(-3, 3, n) / step) * step
    return np.stack([pt, eta, phi], axis=1)


def test_of_two_particles_that_are_as_near_fastjets_choice_is_taken():
    jets, momenta = cluster(TIE, algorithm="antikt", radius=0.6)
    np.testing.assert_allclose(jets.vectors.pt, [75, 50], rtol=1e-12)
    assert rows_of(jets.vectors) == by_fastjet(momenta, "antikt", 0.6, 0.0)
    assert jets.ties.tolist() == [1]


@pytest.mark.parametrize("step", [0.1, 0.5])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_events_on_a_grid_have_the_jets_of_n2plain_in_its_order(algorithm, step):
    rng, n_tied = np.random.default_rng(3), 0
    for trial in range(60):
        n = int(rng.choice([2, 3, 4, 5, 8, 12, 17, 20, 28, 40, 100]))
        radius, pt_min = float(rng.choice([0.4, 0.6, 1.0])), float(rng.choice([0.0, 20.0]))
        jets, momenta = cluster(
            on_a_grid(rng, n, step, equal_pt=trial % 2 == 1),
            algorithm=algorithm,
            radius=radius,
            pt_min=pt_min,
        )
        assert rows_of(jets.vectors) == by_fastjet(momenta, algorithm, radius, pt_min), (n, radius, pt_min)
        if n <= 30:  # where it is the strategy that FastJet takes by itself
            assert rows_of(jets.vectors) == by_fastjet(momenta, algorithm, radius, pt_min, fastjet.Best)
        n_tied += int(jets.ties[0])
    assert n_tied


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_event_whose_distances_tie_changes_nothing_in_those_beside_it(algorithm):
    rng = np.random.default_rng(4)
    events = np.zeros((9, 40, 3))
    for place in range(9):
        events[place, : 20 + place] = on_a_grid(rng, 20 + place, 0.5 if place % 2 else 1e-9)
    config = ClusterConfig(algorithm=algorithm, radius=0.8, pt_min=0.0, features="full")
    together = cluster_events(events, config, rows=np.arange(9), labels=None).drop(["row"])
    alone = [
        cluster_events(one[None], config, rows=np.zeros(1, int), labels=None).drop(["row"]) for one in events
    ]
    assert together.to_pylist() == [table.to_pylist()[0] for table in alone]


def groomed_mass(momenta) -> float:
    """Soft drop with beta 0 and z_cut 0.1, by FastJet's tree of the strategy N2Plain."""
    definition = fastjet.JetDefinition(
        fastjet.cambridge_algorithm, 1000.0, fastjet.E_scheme, fastjet.N2Plain, 1
    )
    sequence = fastjet.ClusterSequence([fastjet.PseudoJet(*one) for one in momenta], definition)
    (jet,) = sequence.exclusive_jets(1)
    while True:
        one, other = fastjet.PseudoJet(), fastjet.PseudoJet()
        if not jet.has_parents(one, other):
            return jet.m()
        if min(one.pt(), other.pt()) > 0.1 * (one.pt() + other.pt()):
            return jet.m()
        jet = one if one.pt2() >= other.pt2() else other


def test_a_jet_on_a_grid_is_groomed_along_fastjets_tree():
    rng = np.random.default_rng(5)
    for _ in range(60):
        event = on_a_grid(rng, int(rng.integers(5, 31)), 0.1)
        event[:, 1:] = np.round(rng.normal(0, 0.25, (len(event), 2)) / 0.1) * 0.1
        jets, momenta = cluster(event, radius=1.0, features="full")
        members = jets.members[: jets.starts[1]]
        assert jets.substructure[0, 4] == pytest.approx(
            groomed_mass(momenta[members].tolist()), rel=1e-6, abs=1e-3
        )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_jet_at_pt_min_is_one_where_fastjet_says_so(algorithm):
    rng, n_kept = np.random.default_rng(6), 0
    for phi in [0.2, *rng.uniform(-3, 3, 60)]:
        jets, momenta = cluster(
            [(400.0, 0.0, phi), (20.0, 0.0, phi + 2.0)], algorithm=algorithm, radius=0.7, pt_min=20.0
        )
        assert rows_of(jets.vectors) == by_fastjet(momenta, algorithm, 0.7, 20.0)
        n_kept += len(jets.pt_lead) - 1
    assert 0 < n_kept < 61


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_jets_of_momenta_down_to_1e_150_are_fastjets(algorithm):
    """Where squares are doubles still; docs/dataset.md says where that ends."""
    rng = np.random.default_rng(23)
    for n in (2, 3, 7, 20, 29):
        pt = 10.0 ** rng.uniform(-150, 3, n)
        event = np.stack([pt, rng.normal(0, 1.5, n), rng.uniform(-3, 3, n)], axis=1)
        jets, momenta = cluster(event, algorithm=algorithm, radius=0.9, max_jets=None)
        assert rows_of(jets.vectors) == by_fastjet(momenta, algorithm, 0.9, 0.0)


VANISHING = [
    [(1e-200, 0.0, 0.0)],
    [(5e-324, 1.0, 0.0), (1.0, 0.0, 3.0)],
    [(1e-160, 0.1, 0.0), (1e-160, 0.0, 0.1)],
    [(1e-170, 0.1, 0.0), (1e-170, 0.0, 0.1), (1e-170, 0.0, 3.0)],
    [(1e-300, 5.0, 0.0), (1.0, 4.0, 0.0)],
]


@pytest.mark.parametrize("event", VANISHING)
def test_every_number_of_momenta_that_vanish_is_finite(event):
    config = ClusterConfig(pt_min=0.0, features="full", max_jets=None)
    with np.errstate(all="raise", under="ignore"):
        table = cluster_events(np.array(event)[None], config, rows=np.zeros(1, int), labels=None)
    (record,) = table.to_pylist()
    numbers = [*record.values(), *(value for jet in record["jets"] for value in jet.values())]
    assert np.isfinite([value for value in numbers if isinstance(value, float)]).all()


def test_eta_of_a_momentum_whose_square_underflows_is_its_own():
    jets, _ = cluster([(1e-170, 2.0, 0.5)])
    assert jets.vectors.eta == pytest.approx([2.0], rel=1e-12)


def test_eta_along_the_beam_is_fastjets_largest():
    columns = {"px": 0.0, "py": 0.0, "pz": [3.0, -3.0, 0.0], "e": [3.0, 3.0, 0.0]}
    columns = {name: np.broadcast_to(np.asarray(value, float), 3) for name, value in columns.items()}
    assert FourVectors(counts=np.array([3]), **columns).eta.tolist() == [1e5, -1e5, 0.0]


@pytest.mark.parametrize("eta", [0.0, 5.0, 10.0, ETA_MAX - 0.1])
def test_mjj_is_right_as_far_forward_as_particles_are_read(eta):
    event = np.array([[(1500.0, eta, 0.0), (1400.0, eta + 0.1, 2.5)]])
    table = cluster_events(event, ClusterConfig(), rows=np.zeros(1, int), labels=None)
    expected = math.sqrt(2 * 1500 * 1400 * (math.cosh(0.1) - math.cos(2.5)))
    assert table["mjj"].to_pylist() == pytest.approx([expected], rel=1e-3)


def test_a_particle_farther_forward_than_masses_reach_is_refused():
    values = np.zeros((1, 2100))
    values[0, :3] = 100.0, 99.0, 0.0
    (fault,) = find_faults(values, first_row=0)
    assert fault.describe() == "row 0, eta of particle 0: |eta| above 15 (99)."


@pytest.mark.parametrize("n", [2, 16, 17, 40, 150])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_jets_of_one_pt_come_in_fastjets_order(algorithm, n):
    rng = np.random.default_rng(n)
    # px and py alone decide about pt^2: equal ones are equal to the bit
    quarter = rng.integers(0, 4, n) * math.pi / 2
    pt = np.where(rng.random(n) < 0.7, 500.0, 250.0)
    momenta = np.zeros((n, 4))
    momenta[:, 0], momenta[:, 1] = np.round(np.cos(quarter)) * pt, np.round(np.sin(quarter)) * pt
    momenta[:, 2] = pt * np.sinh(rng.uniform(-4, 4, n))
    momenta[:, 3] = np.sqrt((momenta[:, :3] ** 2).sum(axis=1))
    px, py, pz, e = momenta.T.copy()
    vectors = FourVectors(counts=np.array([n]), px=px, py=py, pz=pz, e=e)
    config = ClusterConfig(algorithm=algorithm, radius=0.05, pt_min=20.0, features="jets")
    assert rows_of(cluster_four_vectors(vectors, config).vectors) == by_fastjet(
        momenta, algorithm, 0.05, 20.0
    )
