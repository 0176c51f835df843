"""What the events of an excess look like: the selected ones of a region, less what background gives of them.

Background's share of these events is taken from the selected events beside the region, as many as the fit expects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from lhcq.evaluate.dijet import Peak, Spectrum
from lhcq.evaluate.hunt import RegionTest
from lhcq.evaluate.weak import WeakEvents

Floats = NDArray[np.float64]
Bits = NDArray[np.bool_]

LOOKS = ("m_sd_heavy", "m_sd_light", "m_heavy", "m_light", "tau21_heavy", "tau21_light", "n_heavy", "n_light")
"""Features by which people know a resonance's decay, of those that a dataset has."""
WORTH_DESCRIBING = 2.0
"""Standard deviations, as they are told, below which an excess has no looks: they would be those of noise."""
_SAMPLES = 200
_BINS = 25
_FEWEST_BESIDE = 10


def describe_excess(
    events: WeakEvents,
    tests: Sequence[RegionTest],
    found: Mapping[str, Any],
    looks: Mapping[str, Floats],
    edges: Floats,
) -> dict[str, Any] | None:
    """The most significant of the tests: its mass, its number of events, and the `looks` (n_events,) of these.

    `found` is what `hunt.summarize` made of the tests. None where there is no test, or none that is worth it.
    """
    best = found["best"]
    test = None if best is None else tests[best]
    if test is None or test.excess is None or found["tests"][best]["z"] < WORTH_DESCRIBING:
        return None
    excess, (low, high) = test.excess, test.region
    peak = Spectrum(edges, test.region).peak(test.counts, excess)
    mjj, width = events.mjj, high - low
    inside = test.selected & (mjj >= low) & (mjj < high)
    outside = test.selected & ~inside
    near = outside & (mjj >= low - width) & (mjj < high + width)
    beside = near if near.sum() >= _FEWEST_BESIDE else outside
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([best, len(mjj)])))
    return {
        "low": low,
        "high": high,
        "share": test.share,
        "events": excess.seen - excess.expected,
        "events_error": float(np.sqrt(excess.seen + excess.error**2)),
        "mass": None if peak is None else _mass_of(peak),
        "lacking": _lacking(events, inside, (mjj < low) | (mjj >= high)),
        "looks": {
            name: _look(values[inside], values[beside], excess.expected, random)
            for name, values in looks.items()
        },
    }


def _lacking(events: WeakEvents, inside: Bits, elsewhere: Bits) -> dict[str, float | int]:
    """Of how many of the events inside a feature has no value, and the share of such events elsewhere, (n,) each.

    Trees, too, learn from what is missing: where that is in one region alone, its selection is a bump of it. The
    p-value is the binomial one of so many inside by the share elsewhere.
    """
    lacks: Bits = np.asarray(np.isnan(events.values).any(axis=1))
    n, share = int(lacks[inside].sum()), float(lacks[elsewhere].mean()) if elsewhere.any() else 0.0
    return {"n": n, "share_elsewhere": share, "p_value": float(binom.sf(n - 1, int(inside.sum()), share))}


def _mass_of(peak: Peak) -> dict[str, Any]:
    return {
        "value": peak.mass,
        "error": peak.error,
        "sigma": peak.sigma,
        "expected": peak.expected.tolist(),
        "fit": None if peak.quality is None else asdict(peak.quality),
    }


def _look(inside: Floats, beside: Floats, expected: float, random: np.random.Generator) -> dict[str, Any]:
    """A feature of the events inside and beside the region, and the median of the excess with its bootstrap error."""
    inside, beside = inside[np.isfinite(inside)], beside[np.isfinite(beside)]
    ends = np.quantile(inside, [0.0, 0.99]) if len(inside) else np.array([0.0, 1.0])
    edges = np.linspace(ends[0], ends[1] if ends[1] > ends[0] else ends[0] + 1.0, _BINS + 1)
    scale = expected / max(len(beside), 1)
    found = [
        _median_of_excess(random.choice(inside, len(inside)), random.choice(beside, len(beside)), scale)
        for _ in range(_SAMPLES if len(inside) and len(beside) else 0)
    ]
    middle = _median_of_excess(inside, beside, scale)
    # Half of the central 68%: a resampled excess without events now and then must not decide.
    low, high = np.nanquantile(found, norm.cdf([-1, 1])) if np.isfinite(found).any() else (np.nan, np.nan)
    return {
        "edges": edges.tolist(),
        "inside": np.histogram(inside, edges)[0].tolist(),
        "expected": (np.histogram(beside, edges)[0] * scale).tolist(),
        "median": middle if np.isfinite(middle) else None,
        "error": float(high - low) / 2 if np.isfinite(high - low) else None,
    }


def _median_of_excess(inside: Floats, beside: Floats, scale: float) -> float:
    """Where half of the excess is below: events count 1 inside and `-scale` beside; NaN without any."""
    values = np.concatenate([inside, beside])
    weights = np.concatenate([np.ones(len(inside)), np.full(len(beside), -scale)])
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights[order])
    if not len(sums) or sums[-1] <= 0:
        return float("nan")
    return float(values[order][int(np.argmax(sums >= sums[-1] / 2))])
