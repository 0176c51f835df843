"""The particles of the rows of an event file counted, and the values looked at, in one pass over the memory."""

import math

import numpy as np
from numpy.typing import NDArray

from lhcq.compiling import compiled
from lhcq.events.faults import ETA_MAX, N_VALUES, PT_MAX

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@compiled("boolean(float64[:, ::1], int64[::1])")
def _count(values: Floats, counts: Integers) -> bool:
    sound = True
    for event in range(len(counts)):
        row, filled = values[event], 0
        for slot in range(N_VALUES // 3):
            pt, eta, phi = row[3 * slot], row[3 * slot + 1], row[3 * slot + 2]
            # each is false of what is not a number
            sound &= (pt >= 0.0) & (pt <= PT_MAX) & (abs(eta) <= ETA_MAX) & (abs(phi) < math.inf)
            filled += pt > 0.0
        counts[event] = filled
    return sound


def count_particles(values: Floats) -> Integers | None:
    """The particles with pt > 0 in each row of `values` (n, 2100 or 2101), (n,); None where a row has a fault."""
    counts = np.empty(len(values), np.int64)
    labels = values[:, N_VALUES:]
    sound = _count(np.ascontiguousarray(values, np.float64), counts)
    return counts if sound and ((labels == 0.0) | (labels == 1.0)).all() else None
