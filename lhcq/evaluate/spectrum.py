"""The spectrum of m_jj of the events that a prediction selects, and what background alone would give of it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lhcq.evaluate.sculpting import PassingShare, expect

_BIN = 100.0
"""GeV: the resolution of m_jj is about as wide."""
_BEYOND = 14_000.0
"""GeV: nothing at the LHC lies above; what does is in the last bin."""


def spectrum(
    mjj: NDArray[np.float64],
    selected: NDArray[np.bool_],
    labels: NDArray[np.int8],
    passing: PassingShare | None = None,
) -> dict[str, Any]:
    """The histogram of m_jj (n,), GeV: of all events, of the selected ones, and of those by class where known.

    Bins of 100 GeV from the lowest to the highest mass that there is; the last one that is possible holds what lies
    beyond. Events without an m_jj (NaN) are counted apart. With the share of background that is selected, `expected`
    is what background alone would give of the selected ones, and `expected_error` its standard deviation; else None.
    """
    there = np.isfinite(mjj)
    if not there.any():
        return {
            "edges": [],
            "counts": {},
            "expected": None,
            "expected_error": None,
            "without_mjj": {"all": len(mjj), "selected": int(selected.sum())},
        }
    mass = np.clip(mjj[there], 0.0, _BEYOND - _BIN / 2)
    first, last = int(mass.min() // _BIN), int(mass.max() // _BIN) + 1
    edges = _BIN * np.arange(first, last + 1, dtype=np.float64)
    chosen, known = selected[there], labels[there]
    which = {"all": np.ones(len(mass), bool), "selected": chosen}
    if (known >= 0).any():
        which |= {"selected_signal": chosen & (known == 1), "selected_background": chosen & (known == 0)}
    expected, error = expect(passing, mass, edges) if passing else (None, None)
    return {
        "edges": edges.tolist(),
        "counts": {name: np.histogram(mass[of], edges)[0].tolist() for name, of in which.items()},
        "expected": None if expected is None else expected.tolist(),
        "expected_error": None if error is None else error.tolist(),
        "without_mjj": {"all": int((~there).sum()), "selected": int((selected & ~there).sum())},
    }
