"""The hunt for a bump: each region and selection tested, and what all these tests together are worth.

A test is one region of m_jj with one share of all events selected by the classifier of that region. Its local
p-value is of `lhcq.evaluate.dijet`; that one of so many tests shows at least as much is the global p-value.
Pseudo-experiments draw each region's selected spectrum from what was fitted at its sides, and test it in the same
way, the choice of the function included. A smaller selection of a region is drawn from the larger one; regions are
drawn apart, though they share events, so there are rather too many independent tests and the global p-value is rather
too large.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from lhcq.evaluate.dijet import Excess, NoFit, Spectrum, upper_limit
from lhcq.evaluate.sculpting import sculpting_of
from lhcq.evaluate.weak import Region, WeakEvents

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Bits = NDArray[np.bool_]

BINS_PER_REGION = 8
IN_THE_TAIL = 10
"""Pseudo-experiments that have to show as much as the data for their share to be a p-value; with fewer the bound of
Bonferroni is given, which is above it."""
FEWEST_SHUFFLED = 30
"""Shuffled tests of a selection by which significances are divided: of fewer the spread is known to no tenth."""
_SEED_OF_TIES = 1
INCLUSIVE = 1.0
"""The selection of all events: shown beside the others, and no test."""


@dataclass(frozen=True, kw_only=True)
class RegionTest:
    """One region with one selection."""

    region: Region
    share: float
    selected: Bits
    """(n_events,)"""
    counts: Counts
    """(n_bins,): selected events."""
    excess: Excess | None
    reason: str
    """Why there is no `excess`; empty where there is one."""


def bin_edges(fit_low: float, fit_high: float, region: Region) -> Floats:
    """Edges of equal bins, eight to a region, from `fit_low` or just above it to `fit_high` or just below."""
    width = (region[1] - region[0]) / BINS_PER_REGION
    before = math.floor((region[0] - fit_low) / width + 1e-9)
    behind = math.floor((fit_high - region[0]) / width + 1e-9)
    return np.asarray(region[0] + width * np.arange(-before, behind + 1), dtype=np.float64)


def select(scores: Floats, folds: NDArray[np.int8], share: float) -> Bits:
    """The events (n,) with the highest scores: of each fold the same share, as scores of two models do not compare.

    Equal scores, of which trees give many, come in an order that is drawn: the file's own would select by m_jj where
    a file is sorted by that.
    """
    selected = np.zeros(len(scores), bool)
    drawn = np.random.Generator(np.random.PCG64(_SEED_OF_TIES)).permutation(len(scores))
    for fold in np.unique(folds):
        members = np.flatnonzero(folds == fold)
        best = members[np.lexsort((drawn[members], -scores[members]))]
        selected[best[: round(share * len(members))]] = True
    return selected


def hunt(
    events: WeakEvents,
    scores: Sequence[Floats],
    regions: Sequence[Region],
    shares: Sequence[float],
    edges: Floats,
) -> list[RegionTest]:
    """Every test of a search, region by region, its shares in their order; `scores` (n_events,) of each region."""
    tests = []
    for region, values in zip(regions, scores, strict=True):
        spectrum = Spectrum(edges, region)
        for share in shares:
            selected = select(values, events.folds, share)
            counts = np.histogram(events.mjj[selected], edges)[0].astype(np.int64)
            tests.append(_tested(spectrum, region, share, selected, counts))
    return tests


def _tested(spectrum: Spectrum, region: Region, share: float, selected: Bits, counts: Counts) -> RegionTest:
    excess, reason = None, ""
    try:
        excess = spectrum.excess(counts)
    except NoFit as error:
        reason = str(error)
    return RegionTest(
        region=region, share=share, selected=selected, counts=counts, excess=excess, reason=reason
    )


def pseudo_experiments(tests: Sequence[RegionTest], edges: Floats, *, seed: Sequence[int], n: int) -> Floats:
    """The significance of each test in `n` experiments of background alone, (n, n_tests); NaN where no fit was found.

    `seed` names the random numbers.
    """
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    spectra = {test.region: Spectrum(edges, test.region) for test in tests}
    found = np.full((n, len(tests)), np.nan)
    for experiment in found:
        larger: tuple[Region, Counts, Floats] | None = None
        for place, test in enumerate(tests):
            if test.excess is None:
                continue
            expected = test.excess.fit.expected
            if larger is not None and larger[0] == test.region:
                passing = np.clip(expected / np.maximum(larger[2], 1e-300), 0.0, 1.0)
                counts = random.binomial(larger[1], passing)
            else:
                counts = random.poisson(expected)
            larger = (test.region, counts, expected)
            try:
                experiment[place] = spectra[test.region].excess(counts).z
            except NoFit:
                continue
    return found


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far significances of one selection are spread where there is nothing to find."""

    width: float
    """By which they are divided: what was measured, or 1 where that is less or was measured by too few."""
    measured: float | None
    """The root of their mean square."""
    error: float | None
    n: int
    """Shuffled tests."""


def spread_of(shuffles: Floats) -> Spread:
    """Of significances (n_shuffles, n_regions) of shuffled events; the error takes these for independent."""
    known = shuffles[np.isfinite(shuffles)]
    if not len(known):
        return Spread(width=1.0, measured=None, error=None, n=0)
    measured = float(np.sqrt(np.mean(known**2)))
    error = measured / math.sqrt(2 * len(known))
    width = max(1.0, measured) if len(known) >= FEWEST_SHUFFLED else 1.0
    return Spread(width=width, measured=measured, error=error, n=len(known))


def summarize(
    events: WeakEvents,
    tests: Sequence[RegionTest],
    inclusive: Sequence[RegionTest],
    shuffles: Floats,
    pseudo: Floats,
    edges: Floats,
) -> dict[str, Any]:
    """What a search found, as it is recorded: all tests, the most significant of them, and the global p-value.

    `shuffles` (n_shuffles, n_tests) and `pseudo` (n, n_tests) are significances without signal: the former say how
    far those of each selection are spread, by which the tests' are divided; the latter are of fits alone.
    """
    shares = sorted({test.share for test in tests}, reverse=True)
    of_share = {share: [place for place, test in enumerate(tests) if test.share == share] for share in shares}
    spreads = {share: spread_of(shuffles[:, places]) for share, places in of_share.items()}
    described = [_describe(test, events, spreads[test.share].width) for test in tests]
    known = [place for place, test in enumerate(tests) if test.excess is not None]
    return {
        "edges": edges.tolist(),
        "tests": described,
        "inclusive": [_describe(test, events, 1.0) for test in inclusive],
        "spread": [{"share": share, **asdict(spread)} for share, spread in spreads.items()],
        "best": max(known, key=lambda place: described[place]["z"]) if known else None,
        "global": _global([described[place]["z"] for place in known], pseudo[:, known]) if known else None,
    }


def _global(found: Sequence[float], pseudo: Floats) -> dict[str, Any]:
    """How likely background alone shows as much in any test, by significances in pseudo-experiments (n, n_tests)."""
    z, n, n_tests = max(found), len(pseudo), len(found)
    largest = np.where(np.isfinite(pseudo), pseudo, -np.inf).max(axis=1)
    beyond, local = int((largest >= z).sum()), float(norm.sf(z))
    counted = beyond >= IN_THE_TAIL
    p_value = (1 + beyond) / (n + 1) if counted else min(1.0, n_tests * local)
    return {
        "local_p_value": local,
        "p_value": p_value,
        "z": float(norm.isf(p_value)) if 0 < p_value < 1 else None,
        "how": "pseudo-experiments" if counted else "bound",
        "pseudo_experiments": n,
        "beyond": beyond,
        "tests": n_tests,
        # Between one and all: how many independent tests would show as much as often.
        "trials": math.log1p(-p_value) / math.log1p(-local) if 0 < p_value < 1 and local < 1 else None,
        "failed_fits": int(np.isnan(pseudo).sum()),
    }


def _describe(test: RegionTest, events: WeakEvents, width: float) -> dict[str, Any]:
    low, high = test.region
    outside = (events.mjj < low) | (events.mjj >= high)
    sculpted = sculpting_of(events.mjj[outside], test.selected[outside])
    found: dict[str, Any] = {
        "low": low,
        "high": high,
        "share": test.share,
        "selected": int(test.selected.sum()),
        "counts": test.counts.tolist(),
        "reason": test.reason or None,
        "sculpting": sculpted.model_dump() if sculpted else None,
    }
    excess = test.excess
    if excess is None:
        names = ("seen", "expected", "error", "z", "z_of_fit", "p_value", "limit", "fit")
        return {**found, **dict.fromkeys(names)}
    return {
        **found,
        "seen": excess.seen,
        "expected": excess.expected,
        "error": excess.error,
        "z": excess.z / width,
        "z_of_fit": excess.z,
        "p_value": float(norm.sf(excess.z / width)),
        "limit": upper_limit(excess),
        "fit": {
            "parameters": excess.parameters,
            "f_test": excess.f_test,
            "chi2": excess.quality.chi2,
            "bins": excess.quality.bins,
            "p_value": excess.quality.p_value,
            "expected": excess.fit.expected.tolist(),
            "band": excess.fit.band.tolist(),
        },
    }


def judge_by_truth(
    labels: NDArray[np.int8], mjj: Floats, tests: Sequence[RegionTest]
) -> list[dict[str, float | int | None]]:
    """What each test is by labels (n_events,) that no search looks at: of simulated events, where they are known.

    Within the region: signal and background there are, the shares of them that are selected, and the significance
    improvement, the one share over the root of the other; None where either is zero.
    """
    judged = []
    for test in tests:
        inside = (mjj >= test.region[0]) & (mjj < test.region[1])
        signal, background = inside & (labels == 1), inside & (labels == 0)
        kept = [float(test.selected[of].mean()) if of.any() else None for of in (signal, background)]
        judged.append(
            {
                "n_signal": int(signal.sum()),
                "n_background": int(background.sum()),
                "signal_efficiency": kept[0],
                "background_efficiency": kept[1],
                "improvement": kept[0] / math.sqrt(kept[1]) if kept[0] and kept[1] else None,
            }
        )
    return judged
