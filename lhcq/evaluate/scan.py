"""What one region shows of so many signal events that were put in: significance out against significance in."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lhcq.evaluate.hunt import INCLUSIVE, RegionTest, hunt, judge_by_truth
from lhcq.evaluate.injection import Injected
from lhcq.evaluate.weak import Region

Floats = NDArray[np.float64]


def judge_point(
    put: Injected, scores: Mapping[str, Floats], region: Region, shares: Sequence[float], edges: Floats
) -> dict[str, Any]:
    """One number of signal events by one seed, as it is recorded.

    `scores` (n_events,) are by name of who gave them; each selects the `shares`, and the selected events are tested
    as a search's are. Significances are the fits' own, None where there is no fit; improvements are by labels.
    """
    events = put.events
    inside = (events.mjj >= region[0]) & (events.mjj < region[1])
    s, b = (int((inside & (put.labels == label)).sum()) for label in (1, 0))
    (inclusive,) = hunt(events, [np.zeros(len(events.rows))], [region], (INCLUSIVE,), edges)
    return {
        "signal_in_region": s,
        "background_in_region": b,
        "in": s / math.sqrt(b) if b else None,
        "inclusive": _significance(inclusive),
        "learners": {
            name: _judged(put, hunt(events, [values], [region], shares, edges))
            for name, values in scores.items()
        },
    }


def _judged(put: Injected, tests: Sequence[RegionTest]) -> list[dict[str, float | int | None]]:
    truth = judge_by_truth(put.labels, put.events.mjj, tests)
    kept = ("improvement", "signal_efficiency", "background_efficiency")
    return [
        {"share": test.share, "z": _significance(test), **{name: of[name] for name in kept}}
        for test, of in zip(tests, truth, strict=True)
    ]


def _significance(test: RegionTest) -> float | None:
    return test.excess.z if test.excess else None
