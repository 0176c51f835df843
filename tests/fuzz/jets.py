"""Jets of strange small events against the loops before and FastJet, functions against libm and more digits.

`python -m tests.fuzz.jets --events 1000000 --functions 100000000 --seed 1 --store FILE` prints what it compared and
what differs; one batch in ten is compared with FastJet too. CI runs a sample. Jets may differ where two distances
tie, and only there: which one is taken depends on who is looked at first, and neither the loops before nor FastJet's
strategies for many particles look in the order of N2Plain (`lhcq.jets.ties`). Those events are counted apart.
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
from benchmarks.rows import circumstances, say
from lhcq.config import ClusterConfig
from lhcq.jets.clustering import cluster_four_vectors
from lhcq.jets.compiling import Floats, compiled
from lhcq.jets.exact import angle_of, log_of
from lhcq.jets.lanes import N_LANES, address_of, put_row, row
from lhcq.jets.libm import count_differences, count_wave_differences, lanes_for_libm
from lhcq.jets.vectors import FourVectors
from lhcq.jets.waves import circular_of, hyperbolic_of

CODES = {
    "antikt": fastjet.antikt_algorithm,
    "kt": fastjet.kt_algorithm,
    "cambridge": fastjet.cambridge_algorithm,
}
KINDS = (
    *("spread", "around zero", "around pi", "narrow", "forward", "equal pt", "tiny pt", "huge pt", "any pt"),
    *("collinear", "two jets", "massive", "duplicates"),
)
RADII = (0.2, 0.4, 0.7, 1.0, 1.5)
MOST = (1, 3, 8, 12, 20, 40, 100, 300, 700)
CHANCES = (0.05, 0.1, 0.15, 0.2, 0.2, 0.2, 0.06, 0.03, 0.01)
SIZES = (1, 3, 8, 13, 256)
CHANGED, NOT_FASTJETS = "changed", "not FastJet's"
CHANGES = (CHANGED, f"{CHANGED}, tied", f"{CHANGED}, order")
# What a function may err by, in its last bit: what is claimed of glibc in `exact` and `waves`, and for sinh and cosh
# in its manual. The doubles that are left to libm err most.
SLACK = 0.001  # of the last bit: what 64 bits of a fraction cannot tell
MOST_ERRORS = {"log": 0.519, "atan2": 0.56, "sin": 0.55, "cos": 0.55, "sinh": 2.0, "cosh": 2.0}


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
        case "duplicates":
            chosen = rng.integers(0, max(1, n // 2), n)
            pt, eta, phi = pt[chosen], eta[chosen], phi[chosen]
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    e = np.hypot(pt * np.cosh(eta), mass) if mass.any() else pt * np.cosh(eta)
    return FourVectors(counts=counts, px=px, py=py, pz=pz, e=e)


def count_wrong_events(vectors: FourVectors, config: ClusterConfig) -> tuple[int, int]:
    """How many events have jets that are not FastJet's, bit for bit: where no distances tie; where they do."""
    columns = [ak.contents.NumpyArray(column) for column in (vectors.px, vectors.py, vectors.pz, vectors.e)]
    momenta = ak.contents.RecordArray(columns, ["px", "py", "pz", "E"])
    events = ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(vectors.offsets), momenta))
    sequence = fastjet.ClusterSequence(events, fastjet.JetDefinition(CODES[config.algorithm], config.radius))
    theirs = sequence.inclusive_jets(min_pt=config.pt_min)
    jets = cluster_four_vectors(vectors, config)
    found = jets.vectors
    expected = [ak.to_numpy(ak.flatten(theirs[name])) for name in ("px", "py", "pz", "E")]
    counts = ak.to_numpy(ak.num(theirs))
    ours = np.stack([found.px, found.py, found.pz, found.e], axis=1)
    wrong, at, there = [0, 0], 0, 0
    for n, m, tied in zip(found.counts.tolist(), counts.tolist(), jets.ties.tolist(), strict=True):
        one = sorted(map(tuple, ours[at : at + n].tolist()))
        other = sorted(zip(*(column[there : there + m].tolist() for column in expected), strict=True))
        wrong[tied] += one != other
        at, there = at + n, there + m
    return wrong[0], wrong[1]


def count_changed_events(vectors: FourVectors, config: ClusterConfig, before: Any) -> Counter[str]:
    """How many events have jets, members or an order that the loops before did not give, bit for bit.

    Apart: where distances tie, and where the jets are the same in another order: by the square of pt, and of equal
    ones as FastJet has them, which the loops before did not keep to.
    """
    found = cluster_four_vectors(vectors, config)
    counts, momenta, starts, members, pt_lead = jets_before(
        before, vectors, POWERS[config.algorithm], radius=config.radius, pt_min=config.pt_min
    )
    n, ours = int(counts.sum()), found.vectors
    columns = np.stack([ours.px, ours.py, ours.pz, ours.e])
    same = (
        np.array_equal(counts, ours.counts)
        and np.array_equal(momenta[:, :n], columns)
        and np.array_equal(starts[: n + 1], found.starts)
        and np.array_equal(members[: starts[n]], found.members)
        and np.array_equal(pt_lead[:n], found.pt_lead)
    )
    if same:
        return Counter()
    if len(counts) > 1:
        return sum((count_changed_events(one, config, before) for one in _one_by_one(vectors)), Counter())
    if found.ties[0]:
        return Counter([f"{CHANGED}, tied"])
    pt2 = ours.px * ours.px + ours.py * ours.py
    one = _jets_of(columns, found.starts, found.members, found.pt_lead)
    other = _jets_of(momenta[:, :n], starts[: n + 1], members, pt_lead)
    reordered = one == other and bool((np.diff(pt2) <= 0.0).all())
    return Counter([f"{CHANGED}, order" if reordered else CHANGED])


def _jets_of(momenta: Any, starts: Any, members: Any, pt_lead: Any) -> list[tuple[Any, ...]]:
    """The jets of an event in an order of their own: momentum, the hardest particle's pt, members."""
    return sorted(
        (*momentum, lead, *members[start:stop].tolist())
        for momentum, lead, start, stop in zip(
            momenta.T.tolist(), pt_lead.tolist(), starts[:-1], starts[1:], strict=False
        )
    )


def _one_by_one(vectors: FourVectors) -> list[FourVectors]:
    ends = vectors.offsets[1:-1]
    columns = (np.split(column, ends) for column in (vectors.px, vectors.py, vectors.pz, vectors.e))
    return [
        FourVectors(counts=np.array([len(px)]), px=px, py=py, pz=pz, e=e)
        for px, py, pz, e in zip(*columns, strict=True)
    ]


def compare_jets(n_events: int, seed: int, *, before: Any = None) -> dict[str, Counter[str]]:
    """Events by kind: how many were compared, with what, in how many distances tie, and how many differ.

    Without the loops `before` all are compared with FastJet, and otherwise one batch in ten.
    """
    rng = np.random.default_rng(seed)
    names = ("events", "tied", *CHANGES, "by FastJet", NOT_FASTJETS, f"{NOT_FASTJETS}, tied")
    seen: dict[str, Counter[str]] = {name: Counter() for name in names}

    batch, shown = 0, 0
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
        seen["tied"][kind] += int(np.count_nonzero(cluster_four_vectors(vectors, config).ties))
        if before is not None:
            for name, n in count_changed_events(vectors, config, before).items():
                seen[name][kind] += n
        if before is None or batch % 10 == 0:
            seen["by FastJet"][kind] += len(vectors.counts)
            wrong, tied = count_wrong_events(vectors, config)
            seen[NOT_FASTJETS][kind] += wrong
            seen[f"{NOT_FASTJETS}, tied"][kind] += tied
        if seen["events"].total() // 100_000 > shown:
            shown += 1
            say(f"{seen['events'].total():,} of {n_events:,} events")
    return seen


@compiled
def evaluate(
    y: Floats,
    x: Floats,
    ratio: Floats,
    angles: Floats,
    rapidities: Floats,
    by_libm: int,
    room: Floats,
    out: Floats,
) -> None:
    """log(ratio), atan2(y, x), sin and cos of `angles`, sinh and cosh of `rapidities` into `out` (6, n)."""
    scratch, to, n = address_of(room), address_of(out), len(x) // N_LANES
    for k in range(n):
        put_row(to, k, log_of(row(address_of(ratio), k), 0, scratch))
        put_row(to, n + k, angle_of(row(address_of(y), k), row(address_of(x), k), 0, scratch))
        sine, cosine = circular_of(row(address_of(angles), k), 0, scratch)
        put_row(to, 2 * n + k, sine)
        put_row(to, 3 * n + k, cosine)
        up, along = hyperbolic_of(row(address_of(rapidities), k), by_libm, scratch)
        put_row(to, 4 * n + k, up)
        put_row(to, 5 * n + k, along)


def compare_functions(n: int, seed: int) -> tuple[tuple[int, int, int], dict[str, float]]:
    """How many of about `n` results of log and atan2, of sin and cos, and of sinh and cosh differ from libm's.

    Beside it the largest error of each function in its last bit, by what the CPU's 80 bits have for it.
    """
    rng, size = np.random.default_rng(seed), 1 << 16
    wrong, most, values = np.zeros(3, np.int64), np.zeros(6), np.empty((6, size))
    for turn in range(-(-n // size)):
        y, x = rng.normal(0, 1, (2, size)) * np.exp(rng.normal(0, (0.1, 1, 4)[turn % 3], (2, size)))
        ratio = (
            np.exp(-rng.exponential(3, size)),
            1 + rng.normal(0, 0.02, size),
            np.exp(rng.uniform(-130, 130, size)),
        )[turn % 3]
        wrong[0] += count_differences(y, x, ratio, np.empty(24))
        angles, rapidities = rng.uniform(-4, 4, size), rng.normal(0, 3, size)
        wrong[1:] += count_wave_differences(angles, rapidities, np.empty(32))
        evaluate(y, x, ratio, angles, rapidities, lanes_for_libm("hyperbolic"), np.empty(32), values)
        long_y, long_x, long_ratio, angle, rapidity = (
            one.astype(np.longdouble) for one in (y, x, ratio, angles, rapidities)
        )
        exact = (
            *(np.log(long_ratio), np.arctan2(long_y, long_x), np.sin(angle), np.cos(angle)),
            *(np.sinh(rapidity), np.cosh(rapidity)),
        )
        for place, (ours, theirs) in enumerate(zip(values, exact, strict=True)):
            last_bit = np.spacing(np.abs(theirs.astype(np.float64)))
            most[place] = max(most[place], float((np.abs(ours - theirs) / last_bit).max()))
    return (int(wrong[0]), int(wrong[1]), int(wrong[2])), dict(zip(MOST_ERRORS, most.tolist(), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--functions", type=int, default=100_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", type=Path)
    given = parser.parse_args()
    seen = compare_jets(given.events, given.seed, before=loops_before())
    for kind in KINDS:
        n = {name: f"{counts[kind]:,}" for name, counts in seen.items()}
        say(
            f"{kind}: {n['events']} events, {n['tied']} tied. From {BEFORE} differ {n[CHANGED]}; tied "
            f"{n[f'{CHANGED}, tied']}; by order {n[f'{CHANGED}, order']}. Of {n['by FastJet']} from FastJet "
            f"{n[NOT_FASTJETS]}; tied {n[f'{NOT_FASTJETS}, tied']}."
        )
    wrong, errors = compare_functions(given.functions, given.seed)
    names = ("log, atan2", "sin, cos", "sinh, cosh")
    for name, differ in zip(names, wrong, strict=True):
        say(f"{name:<12} {given.functions:,} of each, {differ} differ from libm")
    for name, error in errors.items():
        say(f"{name:<12} errs by {error:.4f} of its last bit at most (glibc {MOST_ERRORS[name]})")
    if given.store:
        functions = {
            "n": given.functions,
            "differ": dict(zip(names, wrong, strict=True)),
            "largest_error_of_last_bit": errors,
        }
        result = {**circumstances(), "seed": given.seed, **seen, "functions": functions}
        given.store.write_text(json.dumps(result, indent=1) + "\n")
    too_far = any(error > MOST_ERRORS[name] + SLACK for name, error in errors.items())
    return int(too_far or any(seen[name].total() for name in (CHANGED, NOT_FASTJETS)) or any(wrong))


if __name__ == "__main__":
    sys.exit(main())
