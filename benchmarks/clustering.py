"""One core, the same events: a chunk task against the loops that others write, in Python and in C++.

The task reads, clusters and writes; the C++ loops have their momenta in memory and write nothing. The study's loop
does what the reference study's script does an event (github shotwn/the-silicon-scout, experiment 1), in our own
words. The plain Python loop, a per-event loop at its best, is there for scale. All is CPU time, since a machine that
others use too doubles any other. Against C++ each level of the CPU's vectors is a process of its own:
`python -m benchmarks.clustering FILE LEVEL` prints its rows as JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import awkward as ak
import fastjet
import numpy as np
import pyarrow as pa
import vector
from numpy.typing import NDArray

from benchmarks import kernels, reference
from benchmarks.events import N_EVENTS, cache_directory, generated_events, thin_events
from benchmarks.rows import Row, row, say
from lhcq.config import ClusterConfig
from lhcq.events.blocks import read_blocks
from lhcq.events.layout import EventBlock, EventFile, open_event_file, read_rows
from lhcq.jets.clustering import cluster_events, compile_kernels
from lhcq.jets.parts import fingerprint, write_part
from lhcq.jets.vectors import FourVectors
from lhcq.records.chunks import Chunk

JETS = ClusterConfig(features="jets")
FULL = ClusterConfig(features="full")
PT_MIN = 1200.0  # GeV, the study's; its code has R=1.0 and keeps all jets above
STUDY = ClusterConfig(pt_min=PT_MIN, max_jets=None)
DEFINITION = fastjet.JetDefinition(fastjet.antikt_algorithm, 1.0)
STUDY_STEP = 27  # 896 of the events: the study's loop would need ten minutes for all
PROGRAMS_STEP = 3  # more rounds of fewer events: the clock moves between two rounds, less between two tasks
STUDY_ROUNDS, PLAIN_ROUNDS, SUBSTRUCTURE_ROUNDS, AXES_ROUNDS = 3, 15, 7, 7
MOST_FOR_AXES = {"wta-kt": 1.2, "onepass-kt": 1.6}
# Rates of a task, of jets alone over C++ FastJet and in full over fjcontrib, by the level of the CPU's vectors.
LEAST = {"AVX-512": (3.1, 13), "AVX2": (2.6, 11)}
TINY = 1e-3  # what differences are relative to where the value itself is less, in its own unit

Values = NDArray[np.float64]
Jet = dict[str, float | list[float]]


def measure() -> list[Row]:
    """The rows of the result."""
    vector.register_awkward()
    source = generated_events()
    compile_kernels()
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        return [
            *against_study(source, Path(scratch)),
            *(
                one
                for level, environment in kernels.levels().items()
                for one in against_programs(source, Path(scratch), level, environment)
            ),
            *of_axes(source, Path(scratch)),
        ]


def against_programs(source: Path, scratch: Path, level: str, environment: dict[str, str]) -> list[Row]:
    """Against C++ with vectors of one level."""
    words = [sys.executable, "-m", "benchmarks.clustering", str(source), level]
    variables = {**os.environ, **environment, "NUMBA_CACHE_DIR": str(scratch / level)}
    done = subprocess.run(words, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    rows: list[Row] = json.loads(done.stdout)
    return rows


def main() -> None:
    source, level = Path(sys.argv[1]), sys.argv[2]
    compile_kernels()
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        few = Path(scratch) / "few.h5"
        n_events = thin_events(source, few, PROGRAMS_STEP)
        rows = [
            *against_fastjet(few, n_events, Path(scratch), level),
            *against_fjcontrib(few, n_events, Path(scratch), level),
        ]
    print(json.dumps(rows))


def against_study(source: Path, scratch: Path) -> list[Row]:
    """Jets alone, against loops in Python."""
    few = scratch / "few.h5"
    n_events = thin_events(source, few, STUDY_STEP)
    rounds = []
    for number in range(STUDY_ROUNDS):
        say(f"clustering: the study's loop, round {number + 1} of {STUDY_ROUNDS}")
        task = seconds(chunk_task, few, scratch / f"study-{number}.arrows", STUDY)
        study = seconds(loop, few, scratch / "study.jsonl", jets_by_builder)
        plain = seconds(loop, few, scratch / "plain.jsonl", jets_by_objects)
        rounds.append((task, study, plain))
    note = f"{n_events} of the {N_EVENTS:,} events, spread over the file; pt > 1200 GeV as the study has it"
    return [
        row("the study's loop", [1e6 * study / n_events for _, study, _ in rounds], "us/event", note=note),
        row(
            "a plain loop in Python", [1e6 * plain / n_events for *_, plain in rounds], "us/event", note=note
        ),
        row(
            "chunk task, jets: rate over the study's loop",
            [study / task for task, study, _ in rounds],
            "times",
            at_least=30,
            note=note,
        ),
    ]


def against_fastjet(source: Path, n_events: int, scratch: Path, level: str) -> list[Row]:
    """Jets alone, against C++ with FastJet."""
    program, vectors = reference.build("plain"), momenta_of(source)
    task, plain = [], []
    for number in range(PLAIN_ROUNDS):
        say(f"clustering: {level}, C++ FastJet, round {number + 1} of {PLAIN_ROUNDS}")
        out = scratch / f"plain-{number}.arrows"
        task.append(seconds(chunk_task, source, out, JETS))
        took, values = reference.run(program, vectors)
        plain.append(took)
    return [
        row(f"{level}, chunk task, jets", [1e6 * one / n_events for one in task], "us/event"),
        row(f"{level}, plain C++ FastJet loop", [1e6 * one / n_events for one in plain], "us/event"),
        row(
            f"{level}, chunk task, jets: rate over plain C++ FastJet",
            [theirs / ours for ours, theirs in zip(task, plain, strict=True)],
            "times",
            at_least=LEAST[level][0],
            note=f"{n_events:,} events; the loop constructs, clusters and sorts, the task reads and writes too",
        ),
        row(
            f"{level}, four-momenta of the two leading jets: largest difference",
            np.abs(values_of(out, reference.MOMENTUM) - values)[~np.isnan(values)].max(),
            "GeV",
            at_most=0.0,
        ),
    ]


def against_fjcontrib(source: Path, n_events: int, scratch: Path, level: str) -> list[Row]:
    """Everything, against C++ with fjcontrib."""
    program, vectors = reference.build("substructure"), momenta_of(source)
    task, theirs = [], []
    for number in range(SUBSTRUCTURE_ROUNDS):
        say(f"clustering: {level}, C++ fjcontrib, round {number + 1} of {SUBSTRUCTURE_ROUNDS}")
        out = scratch / f"full-{number}.arrows"
        task.append(seconds(chunk_task, source, out, FULL))
        took, values = reference.run(program, vectors)
        theirs.append(took)
    names = reference.COLUMNS["substructure"]
    difference = np.abs(values_of(out, names) - values) / np.maximum(np.abs(values), TINY)
    largest = np.nanmax(difference, axis=(0, 1))
    return [
        row(f"{level}, chunk task, full", [1e6 * one / n_events for one in task], "us/event"),
        row(f"{level}, plain C++ fjcontrib loop", [1e6 * one / n_events for one in theirs], "us/event"),
        row(
            f"{level}, chunk task, full: rate over plain C++ fjcontrib",
            [other / ours for ours, other in zip(task, theirs, strict=True)],
            "times",
            at_least=LEAST[level][1],
            note=f"{n_events:,} events; tau1 to tau4, soft drop, width, subjets, C2 and D2 of two jets",
        ),
        row(
            f"{level}, full features: largest relative difference from fjcontrib",
            largest.max(),
            "",
            at_most=1e-9,
            note=f"{int((~np.isnan(values)).sum()):,} values; relative to at least {TINY:g}",
            by_column=dict(zip(names, largest.tolist(), strict=True)),
        ),
    ]


def of_axes(source: Path, scratch: Path) -> list[Row]:
    """What tau_N about other axes costs a chunk task, over the kt axes that the C++ program has."""
    rounds: dict[str, list[float]] = {axes: [] for axes in MOST_FOR_AXES}
    for number in range(AXES_ROUNDS):
        say(f"clustering: axes, round {number + 1} of {AXES_ROUNDS}")
        usual = seconds(chunk_task, source, scratch / f"kt-{number}.arrows", FULL)
        for axes, ratios in rounds.items():
            config = FULL.model_copy(update={"axes": axes})
            ratios.append(seconds(chunk_task, source, scratch / f"{axes}-{number}.arrows", config) / usual)
    return [
        row(f"chunk task, full: {axes} axes over kt axes", ratios, "times", at_most=MOST_FOR_AXES[axes])
        for axes, ratios in rounds.items()
    ]


def chunk_task(source: Path, out: Path, config: ClusterConfig) -> None:
    """What one clustering task does, for the whole file as one chunk."""
    file = open_event_file(source)
    write_part(out, tables_of(file, config), fingerprint())


def tables_of(file: EventFile, config: ClusterConfig) -> Iterator[pa.Table]:
    """The records of all events of a file, block by block."""
    for block in read_blocks(file, 0, file.n_events, skip_wrong=False):
        assert isinstance(block, EventBlock)  # nothing is damaged here
        yield cluster_events(
            block.particles, config, rows=block.rows, labels=block.labels, n_particles=block.n_particles
        )


def momenta_of(source: Path) -> FourVectors:
    """All events of a file."""
    file = open_event_file(source)
    return FourVectors.massless(read_rows(file, 0, file.n_events).particles)


def values_of(part: Path, names: tuple[str, ...]) -> Values:
    """The columns of the two leading jets that a part holds, (n_events, 2, n_columns); NaN where there is none."""
    jets = pa.Table.from_batches(Chunk(part).batches())["jets"].combine_chunks()
    counts, offsets = np.diff(jets.offsets), np.asarray(jets.offsets)[:-1]
    found = np.full((len(jets), 2, len(names)), np.nan)
    for column, name in enumerate(names):
        values = jets.values.field(name).to_numpy(zero_copy_only=False)
        for rank in (0, 1):
            has = counts > rank
            found[has, rank, column] = values[offsets[has] + rank]
    return found


def loop(source: Path, out: Path, jets_of: Callable[[Values], list[Jet]]) -> None:
    """Read, cluster event by event, write JSON lines."""
    file = open_event_file(source)
    block = read_rows(file, 0, file.n_events)
    assert block.labels is not None
    with out.open("w") as stream:
        for event, label, n_particles in zip(block.particles, block.labels, block.n_particles, strict=True):
            record = {
                "type": ["background", "signal"][label],
                "jets": jets_of(event[:n_particles]),
                "num_particles": int(n_particles),
            }
            stream.write(json.dumps(record) + "\n")


def jets_by_builder(event: Values) -> list[Jet]:
    """The study's operations: a builder filled particle by particle, constituents, each jet's figures by name."""
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


def jets_by_objects(event: Values) -> list[Jet]:
    """FastJet's own objects, four-momenta alone."""
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


def seconds(work: Callable[..., None], *arguments: object) -> float:
    """CPU time of `work`."""
    began = time.process_time()
    work(*arguments)
    return time.process_time() - began


if __name__ == "__main__":
    main()
