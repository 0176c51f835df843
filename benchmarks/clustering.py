"""One core: a chunk task (read, cluster, write) against the loop of the study's kind, on the same events.

The study's loop does what the reference study's script does an event (github shotwn/the-silicon-scout, experiment 1),
in our own words. The plain loop, a per-event loop at its best, is there for scale.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import awkward as ak
import fastjet
import numpy as np
import vector

from lhcq.config import ClusterConfig, GenerateConfig
from lhcq.events.layout import open_event_file, read_rows
from lhcq.events.pythia import assemble, generate_part, plan_parts, write_part
from lhcq.jets.clustering import cluster_events
from lhcq.jets.parts import fingerprint
from lhcq.jets.parts import write_part as write_jets

N_EVENTS = 800
ROUNDS = 3
BOUND = 30.0
CONFIG = ClusterConfig(pt_min=1200.0, max_jets=None)  # R=1.0, what the study's code asks for
DEFINITION = fastjet.JetDefinition(fastjet.antikt_algorithm, 1.0)

PT_MIN = 1200.0  # GeV, the study's

Particles = np.ndarray


def measure() -> list[dict[str, object]]:
    """The rows of the result."""
    vector.register_awkward()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        source = generate(place)
        chunk_task(source, place / "warm.parquet")
        loops = (study_loop, plain_loop)
        rounds = [
            [seconds(chunk_task, source, place / f"{number}.parquet")]
            + [seconds(work, source, place / "loop.jsonl") for work in loops]
            for number in range(ROUNDS)
        ]
    task, study, plain = (1e6 * statistics.median(column) / N_EVENTS for column in zip(*rounds, strict=True))
    study_ratio, plain_ratio = (
        statistics.median(times[column] / times[0] for times in rounds) for column in (1, 2)
    )
    return [
        row("chunk task", task, "us/event"),
        row("study's loop", study, "us/event"),
        row("plain loop", plain, "us/event"),
        row("study's loop / task", study_ratio, "times", BOUND),
        row("plain loop / task", plain_ratio, "times"),
    ]


def row(figure: str, value: float, unit: str, bound: float | None = None) -> dict[str, object]:
    """One line of a result."""
    return {
        "figure": figure,
        "value": value,
        "unit": unit,
        "bound": bound,
        "holds": bound is None or value >= bound,
    }


def generate(place: Path) -> Path:
    """Events of the R&D process, half and half."""
    config = GenerateConfig(background=N_EVENTS // 2, signal=N_EVENTS // 2, seed=3)
    paths = []
    for part in plan_parts(config):
        paths.append(place / f"{part.index}.npy")
        write_part(paths[-1], *generate_part(part))
    assemble(config, paths, place / "events.h5")
    return place / "events.h5"


def chunk_task(source: Path, out: Path) -> None:
    """What one clustering task does."""
    block = read_rows(open_event_file(source), 0, N_EVENTS)
    table = cluster_events(block.particles, CONFIG, rows=block.rows, labels=block.labels)
    write_jets(out, table, fingerprint())


def study_loop(source: Path, out: Path) -> None:
    """The study's operations: a builder filled particle by particle, constituents, each jet's figures by name."""
    loop(source, out, jets_by_builder)


def plain_loop(source: Path, out: Path) -> None:
    """FastJet's own objects, four-momenta alone."""
    loop(source, out, jets_by_objects)


def loop(source: Path, out: Path, jets_of: Callable[[Particles], list[dict[str, float]]]) -> None:
    """Read, cluster event by event, write JSON lines."""
    block = read_rows(open_event_file(source), 0, N_EVENTS)
    assert block.labels is not None
    with out.open("w") as stream:
        for event, label, n_particles in zip(block.particles, block.labels, block.n_particles, strict=True):
            record = {
                "type": ["background", "signal"][label],
                "jets": jets_of(event[:n_particles]),
                "num_particles": int(n_particles),
            }
            stream.write(json.dumps(record) + "\n")


def jets_by_builder(event: Particles) -> list[dict[str, float]]:
    builder = ak.ArrayBuilder()
    for pt, eta, phi in event:
        with builder.record():
            for name, value in (("pt", pt), ("eta", eta), ("phi", phi), ("M", 0.0)):
                builder.field(name).append(value)
    sequence = fastjet.ClusterSequence(ak.Array(builder.snapshot(), with_name="Momentum4D"), DEFINITION)
    jets, constituents = sequence.inclusive_jets(min_pt=PT_MIN), sequence.constituents(min_pt=PT_MIN)
    leading = ak.argmax(constituents.pt, axis=1)
    return [
        {
            **{name: float(getattr(jet, name)) for name in ("pt", "eta", "phi", "E", "m")},
            "n_constituents": len(constituents[place]),
            "pt_lead": float(constituents[place][leading[place]].pt),
            "delta_r": [float(jet.deltaR(other)) for k, other in enumerate(jets) if k != place],
        }
        for place, jet in enumerate(jets)
    ]


def jets_by_objects(event: Particles) -> list[dict[str, float]]:
    inputs = [
        fastjet.PseudoJet(
            float(pt * np.cos(phi)),
            float(pt * np.sin(phi)),
            float(pt * np.sinh(eta)),
            float(pt * np.cosh(eta)),
        )
        for pt, eta, phi in event
    ]
    jets = fastjet.ClusterSequence(inputs, DEFINITION).inclusive_jets(PT_MIN)
    return [{"px": jet.px(), "py": jet.py(), "pz": jet.pz(), "E": jet.E()} for jet in jets]


def seconds(work: Callable[[Path, Path], None], source: Path, out: Path) -> float:
    """Wall time of `work`."""
    began = time.perf_counter()
    work(source, out)
    return time.perf_counter() - began
