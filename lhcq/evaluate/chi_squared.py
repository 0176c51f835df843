"""The bins that a chi-squared is taken over: each has to expect enough events for it to hold."""

import numpy as np
from numpy.typing import NDArray

EXPECTED_PER_BIN = 5.0
"""Events to expect at least in a bin; narrower ones are joined."""


def join_bins(expected: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first of those bins (n,) that are joined with their right neighbours until each expects enough.

    What is left at the upper end goes to the last one. Empty where all together do not expect enough.
    """
    starts, held = [0], 0.0
    for place, events in enumerate(expected.tolist()):
        if held >= EXPECTED_PER_BIN:
            starts.append(place)
            held = 0.0
        held += events
    if held < EXPECTED_PER_BIN:
        starts.pop()
    return np.array(starts, dtype=np.int64)
