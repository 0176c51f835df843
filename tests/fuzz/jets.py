"""Jets of strange small events against the loops before and against FastJet, and functions against libm.

`python -m tests.fuzz.jets --events 1000000 --functions 100000000 --seed 1 --store FILE` prints what it compared and
what differs; one batch in ten is compared with FastJet too. CI runs a sample. An event may differ from FastJet where
two distances tie, and only there: FastJet takes the one, the loops the other. From the loops before, none may.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import awkward as ak
import fastjet
import numpy as np

from benchmarks.kernels import BEFORE, POWERS, jets_before, loops_before
from benchmarks.rows import say
from lhcq.config import ClusterConfig
from lhcq.jets.clustering import cluster_four_vectors
from lhcq.jets.libm import count_differences, count_wave_differences
from lhcq.jets.vectors import FourVectors

CODES = {
    "antikt": fastjet.antikt_algorithm,
    "kt": fastjet.kt_algorithm,
    "cambridge": fastjet.cambridge_algorithm,
}
KINDS = (
    *("spread", "around zero", "around pi", "narrow", "forward", "equal pt", "tiny pt", "huge pt", "any pt"),
    *("collinear", "two jets", "massive"),
)
RADII = (0.2, 0.4, 0.7, 1.0, 1.5)
MOST = (1, 3, 8, 12, 20, 40, 100, 300, 700)
CHANCES = (0.05, 0.1, 0.15, 0.2, 0.2, 0.2, 0.06, 0.03, 0.01)
SIZES = (1, 3, 8, 13, 256)


def make_events(rng: np.random.Generator, kind: str, n_events: int, most: int) -> FourVectors:
    """Events of 0 to `most` particles of one of `KINDS`."""
    counts = rng.integers(0, most + 1, n_events)
    n = int(counts.sum())
    pt, eta, phi = rng.exponential(20, n) + 1e-3, rng.normal(0, 2, n), rng.uniform(-np.pi, np.pi, n)
    mass = np.zeros(n)
    match kind:
        case "around zero":
            phi = rng.normal(0, 0.1, n)
        case "around pi":
            phi = np.pi + rng.normal(0, 0.1, n)
        case "narrow":
            phi, eta = rng.normal(rng.uniform(-3, 3), 0.05, n), rng.normal(0, 0.05, n)
        case "forward":
            eta = rng.choice([-1, 1], n) * rng.uniform(3, 12, n)
        case "equal pt":
            pt = np.full(n, 20.0)
        case "tiny pt":
            pt = np.exp(rng.uniform(-60, 0, n))
        case "huge pt":
            pt = np.exp(rng.uniform(0, 20, n))
        case "any pt":
            pt = np.exp(rng.uniform(-30, 20, n))
        case "collinear":
            phi = rng.choice(rng.uniform(-3, 3, 8), n) + rng.choice([1e-9, 1e-6], n) * rng.normal(0, 1, n)
            eta = rng.choice(rng.normal(0, 1, 8), n) + rng.choice([1e-9, 1e-6], n) * rng.normal(0, 1, n)
        case "two jets":
            phi = rng.choice([0.0, np.pi], n) + rng.normal(0, 0.2, n)
        case "massive":
            mass = rng.exponential(1, n)
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    e = np.hypot(pt * np.cosh(eta), mass) if mass.any() else pt * np.cosh(eta)
    return FourVectors(counts=counts, px=px, py=py, pz=pz, e=e)


def count_wrong_events(vectors: FourVectors, config: ClusterConfig) -> int:
    """How many events have jets that are not FastJet's, bit for bit."""
    columns = [ak.contents.NumpyArray(column) for column in (vectors.px, vectors.py, vectors.pz, vectors.e)]
    momenta = ak.contents.RecordArray(columns, ["px", "py", "pz", "E"])
    events = ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(vectors.offsets), momenta))
    sequence = fastjet.ClusterSequence(events, fastjet.JetDefinition(CODES[config.algorithm], config.radius))
    theirs = sequence.inclusive_jets(min_pt=config.pt_min)
    found = cluster_four_vectors(vectors, config).vectors
    expected = [ak.to_numpy(ak.flatten(theirs[name])) for name in ("px", "py", "pz", "E")]
    counts = ak.to_numpy(ak.num(theirs))
    ours = np.stack([found.px, found.py, found.pz, found.e], axis=1)
    wrong, at, there = 0, 0, 0
    for n, m in zip(found.counts.tolist(), counts.tolist(), strict=True):
        one = sorted(map(tuple, ours[at : at + n].tolist()))
        other = sorted(zip(*(column[there : there + m].tolist() for column in expected), strict=True))
        wrong += one != other
        at, there = at + n, there + m
    return wrong


def count_changed_events(vectors: FourVectors, config: ClusterConfig, before: Any) -> int:
    """How many events have jets, members or an order that the loops before did not give, bit for bit."""
    found = cluster_four_vectors(vectors, config)
    counts, momenta, starts, members, pt_lead = jets_before(
        before, vectors, POWERS[config.algorithm], radius=config.radius, pt_min=config.pt_min
    )
    n, ours = int(counts.sum()), found.vectors
    same = (
        np.array_equal(counts, ours.counts)
        and np.array_equal(momenta[:, :n], np.stack([ours.px, ours.py, ours.pz, ours.e]))
        and np.array_equal(starts[: n + 1], found.starts)
        and np.array_equal(members[: starts[n]], found.members)
        and np.array_equal(pt_lead[:n], found.pt_lead)
    )
    if same:
        return 0
    if len(counts) == 1:
        return 1
    return sum(count_changed_events(one, config, before) for one in _one_by_one(vectors))


def _one_by_one(vectors: FourVectors) -> list[FourVectors]:
    ends = vectors.offsets[1:-1]
    columns = (np.split(column, ends) for column in (vectors.px, vectors.py, vectors.pz, vectors.e))
    return [
        FourVectors(counts=np.array([len(px)]), px=px, py=py, pz=pz, e=e)
        for px, py, pz, e in zip(*columns, strict=True)
    ]


def compare_jets(n_events: int, seed: int, *, before: Any = None) -> dict[str, Counter[str]]:
    """Events by kind: compared with the loops before and with FastJet, and how many differ from either.

    Without the loops `before` all are compared with FastJet, and otherwise one batch in ten.
    """
    rng = np.random.default_rng(seed)
    seen: dict[str, Counter[str]] = {
        name: Counter() for name in ("events", "changed", "by FastJet", "not FastJet's")
    }
    batch = 0
    while seen["events"].total() < n_events:
        kind, most, size = str(rng.choice(KINDS)), int(rng.choice(MOST, p=CHANCES)), int(rng.choice(SIZES))
        vectors = make_events(rng, kind, size if most < 300 else min(size, 13), most)
        config = ClusterConfig(
            algorithm=str(rng.choice(sorted(CODES))),  # type: ignore[arg-type]
            radius=float(rng.choice(RADII)),
            pt_min=float(rng.choice([0.0, 15.0])),
            features="jets",
        )
        if len(vectors.px) == 0:
            continue
        batch += 1
        seen["events"][kind] += len(vectors.counts)
        if before is not None:
            seen["changed"][kind] += count_changed_events(vectors, config, before)
        if before is None or batch % 10 == 0:
            seen["by FastJet"][kind] += len(vectors.counts)
            seen["not FastJet's"][kind] += count_wrong_events(vectors, config)
    return seen


def compare_functions(n: int, seed: int) -> tuple[int, int, int]:
    """How many of about `n` results of log and atan2, of sin and cos, and of sinh and cosh differ from libm's."""
    rng, size = np.random.default_rng(seed), 1 << 16
    wrong = np.zeros(3, np.int64)
    for turn in range(-(-n // size)):
        y, x = rng.normal(0, 1, (2, size)) * np.exp(rng.normal(0, (0.1, 1, 4)[turn % 3], (2, size)))
        ratio = (
            np.exp(-rng.exponential(3, size)),
            1 + rng.normal(0, 0.02, size),
            np.exp(rng.uniform(-130, 130, size)),
        )
        wrong[0] += count_differences(y, x, ratio[turn % 3], np.empty(24))
        angles, rapidities = rng.uniform(-4, 4, size), rng.normal(0, 3, size)
        wrong[1:] += count_wave_differences(angles, rapidities, np.empty(32))
    return int(wrong[0]), int(wrong[1]), int(wrong[2])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--functions", type=int, default=100_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", type=Path)
    given = parser.parse_args()
    seen = compare_jets(given.events, given.seed, before=loops_before())
    strange = seen["not FastJet's"]
    for kind in KINDS:
        say(
            f"{kind:<12} {seen['events'][kind]:>9,} events, {seen['changed'][kind]} differ from {BEFORE}; "
            f"{seen['by FastJet'][kind]:>7,}, {strange[kind]} from FastJet"
        )
    wrong = compare_functions(given.functions, given.seed)
    names = ("log, atan2", "sin, cos", "sinh, cosh")
    for name, n in zip(names, wrong, strict=True):
        say(f"{name:<12} {given.functions:,} of each, {n} differ from libm")
    if given.store:
        functions = dict(zip(names, wrong, strict=True))
        result = {"seed": given.seed, **seen, "functions": {"n": given.functions, "differ": functions}}
        given.store.write_text(json.dumps(result, indent=1) + "\n")
    return int(any(seen[name].total() for name in ("changed", "not FastJet's")) or any(wrong))


if __name__ == "__main__":
    sys.exit(main())
