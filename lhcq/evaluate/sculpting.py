"""What a selection does to m_jj: how far it sculpts background, and the spectrum that background alone would give.

A classifier that can tell m_jj keeps background where it has learnt that signal is, and so makes a bump of background
alone. Two things answer that. The distance between the m_jj of selected and of other background measures it. And what
to expect of background is taken from background that went through the same selection: the share of it that passes, as
a function of m_jj, times the spectrum of the events in question. Signal among these counts as background there, which
matters only where signal is no rarity.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, ks_2samp, nbinom

from lhcq.evaluate.chi_squared import join_bins
from lhcq.records.metrics import Sculpting

Floats = NDArray[np.float64]
Bits = NDArray[np.bool_]

CONFIDENCE = 0.95
SELECTED_PER_BIN = 5
"""Selected reference events between two of their own quantiles: fewer know nothing, and more would blur a peak."""
MOST_BINS = 100
"""Between either set of quantiles."""
_FEW = 30
"""Events below which the asymptotic p-value of Kolmogorov and Smirnov is too small, of four by a quarter; the exact
one costs a tenth of a second beside a million others, and overflows from some 60 on."""


@dataclass(frozen=True, kw_only=True)
class PassingShare:
    """The share of background that passes a selection, by m_jj."""

    edges: Floats
    """Inner edges of the bins, GeV, (n_bins - 1,): the outer bins have no end."""
    share: Floats
    """(n_bins,)."""
    error: Floats
    """Its standard deviation, (n_bins,), from the reference's statistics."""

    def bin_of(self, mjj: Floats) -> NDArray[np.int64]:
        """The bin of each mass (n,)."""
        return np.searchsorted(self.edges, mjj, side="right")


def sculpting_of(mjj: Floats, selected: Bits) -> Sculpting | None:
    """How far a selection of background events (n,) sculpts their m_jj; None where all or none of them are selected,
    and of two events alone, whose distance tells nothing.

    Kolmogorov-Smirnov, with the exact p-value for fewer than 30 events on either side, else the asymptotic one. The
    interval is that of Dvoretzky, Kiefer and Wolfowitz for both
    samples at once (Massart, Ann. Probab. 18 (1990) 1269): it covers whatever the distributions are, and is wide for
    few events, where a resampled distance would be biased upwards. Events without an m_jj (NaN) do not count.
    """
    there = np.isfinite(mjj)
    chosen, others = mjj[there & selected], mjj[there & ~selected]
    if not len(chosen) or not len(others) or len(chosen) == len(others) == 1:
        return None
    few = min(len(chosen), len(others)) < _FEW
    found = ks_2samp(chosen, others, method="exact" if few else "asymp")
    width = sum(math.sqrt(math.log(4 / (1 - CONFIDENCE)) / (2 * len(one))) for one in (chosen, others))
    distance = float(found.statistic)
    return Sculpting(
        n_selected=len(chosen),
        n_others=len(others),
        distance=distance,
        low=max(0.0, distance - width),
        high=min(1.0, distance + width),
        p_value=float(found.pvalue),
    )


def passing_share(mjj: Floats, selected: Bits) -> PassingShare:
    """The passing share of background, by a reference (n,) of which some have an m_jj, GeV.

    `selected` are those that are, each against the others: k of n among themselves, where another event is with a
    chance of k / (n + 1) (`lhcq.evaluate.p_values`). Those without an m_jj (NaN) count in n alone.
    Edges are quantiles of all events and of the selected ones, so that bins are fine where events are, and where a
    selection's peak is. The error is the standard deviation of the share's posterior under Jeffreys' prior, which is
    not zero where none of a bin's events is selected.
    """
    of_another = len(mjj) / (len(mjj) + 1)
    known = np.isfinite(mjj)
    mjj, selected = mjj[known], selected[known]
    pieces = int(np.clip(selected.sum() // SELECTED_PER_BIN, 1, MOST_BINS))
    inner = np.linspace(0, 1, pieces + 1)[1:-1]
    edges = np.unique([np.quantile(one, inner) for one in (mjj, mjj[selected]) if len(one)])
    place = np.searchsorted(edges, mjj, side="right")
    n, passed = (np.bincount(place[of], minlength=len(edges) + 1) for of in (slice(None), selected))
    a, b = passed + 0.5, n - passed + 0.5
    return PassingShare(
        edges=edges,
        share=of_another * passed / np.maximum(n, 1),
        error=of_another * np.sqrt(a * b / ((a + b) ** 2 * (a + b + 1.0))),
    )


def expect(passing: PassingShare, mjj: Floats, edges: Floats) -> tuple[Floats, Floats]:
    """What background with this passing share gives of events with these masses (n,), in bins of `edges` (GeV).

    Expected events and their standard deviation from the reference's statistics, (n_bins,) each. Within a bin of the
    passing share it has the spectrum's own shape.
    """
    place = passing.bin_of(mjj)
    events = np.stack([np.histogram(mjj[place == one], edges)[0] for one in range(len(passing.share))])
    return passing.share @ events, np.sqrt(passing.error**2 @ events**2)


def compare(passing: PassingShare, mjj: Floats, selected: Bits) -> dict[str, Any]:
    """The selected of events with these masses (n,), GeV, beside what background alone is expected to give.

    In all, and in the bins of the passing share, finer than which the reference knows nothing: these are joined with
    their right neighbours until enough are expected in each (`lhcq.evaluate.chi_squared`). `chi2` and its `p_value`
    are None for fewer than two such bins, which have no shape to compare. `excess` is None where too few are
    expected; else the window of 1, 2, 4, ... bins, half of all at most, with the smallest p-value for so many events
    or more, a Poisson number whose mean has a gamma distribution of the expectation's error. `p_value_anywhere` is
    for so small a one in any window: an upper bound, as windows overlap.
    """
    place, n_shares = passing.bin_of(mjj), len(passing.share)
    n, seen = (np.bincount(place[of], minlength=n_shares) for of in (slice(None), selected))
    expected, variance = passing.share * n, (passing.error * n) ** 2
    found: dict[str, Any] = {
        "expected": float(expected.sum()),
        "error": math.sqrt(float(variance.sum())),
        "seen": int(seen.sum()),
    }
    starts = join_bins(expected)
    if not len(starts):
        return {**found, "bins": 0, "chi2": None, "p_value": None, "excess": None}
    seen, expected, variance = (np.add.reduceat(one, starts) for one in (seen, expected, variance))
    value = float(((seen - expected) ** 2 / (expected + variance)).sum()) if len(starts) > 1 else None
    ends = np.concatenate([[mjj.min()], passing.edges[starts[1:] - 1], [mjj.max()]])
    return {
        **found,
        "bins": len(starts),
        "chi2": value,
        "p_value": None if value is None else float(chi2.sf(value, len(starts))),
        "excess": _largest_excess(seen, expected, variance, ends),
    }


def _largest_excess(
    seen: NDArray[np.int64], expected: Floats, variance: Floats, ends: Floats
) -> dict[str, Any]:
    """Of the windows of bins (n,) whose edges are `ends` (n + 1,), as `compare` has it."""
    windows = []
    width = 1
    while width == 1 or 2 * width <= len(seen):
        sums = (np.convolve(one, np.ones(width), mode="valid") for one in (seen, expected, variance))
        windows += [(first, first + width, *found) for first, found in enumerate(zip(*sums, strict=True))]
        width *= 2
    first, stop, n, mean, squared = np.array(windows).T
    p_values = nbinom.sf(n - 1, mean**2 / squared, mean / (mean + squared))
    best = int(np.argmin(p_values))
    return {
        "low": float(ends[int(first[best])]),
        "high": float(ends[int(stop[best])]),
        "seen": int(n[best]),
        "expected": float(mean[best]),
        "error": math.sqrt(squared[best]),
        "p_value": float(p_values[best]),
        "windows": len(windows),
        "p_value_anywhere": float(-np.expm1(len(windows) * np.log1p(-p_values[best]))),
    }
