"""P-values of events against the background of the calibration subset, and ranks.

The p-value of an event is the share of background events that look as much like signal: with n background events of
the split's calibration subset, which neither the training nor the choice of the checkpoint has seen,

    p = (1 + number of them with a P(signal) at least as high) / (n + 1).

That is conservative: for a background event like those, the chance of a p-value of at most a is at most a, whatever
the model (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 4.2). It can never be below
1 / (n + 1).
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def p_values(p_signal: Floats, background: Floats) -> Floats:
    """The p-values (n,) of events against the scores (n_background,) of the reference, as the module's text says."""
    ordered = np.sort(background)
    at_least = len(ordered) - np.searchsorted(ordered, p_signal, side="left")
    return np.asarray((1.0 + at_least) / (len(ordered) + 1.0), dtype=np.float64)


def p_values_among(background: Floats) -> Floats:
    """The p-value (n,) of each event of the reference, were the n - 1 others and itself what it is compared with.

    It is counted once, as any event is beside the n of the reference: over n + 1, so that as many of the reference
    reach a p-value as are allowed to before one of them is another event's. (Over n, none of nine would reach 0.1,
    which one in ten other events does.)
    """
    n = len(background)
    return np.asarray(np.rint(p_values(background, background) * (n + 1) - 1.0) / (n + 1), dtype=np.float64)


def ranks(p_signal: Floats) -> NDArray[np.int64]:
    """The rank (n,) of each event from 1, the highest score first, equal ones in their order."""
    order = np.argsort(-p_signal, kind="stable")
    found = np.empty(len(order), np.int64)
    found[order] = np.arange(1, len(order) + 1)
    return found


def passing_background(n_background: int, largest_p_value: float) -> tuple[float, float]:
    """The share of background with a p-value of at most `largest_p_value`, and its standard deviation.

    By n reference events p-values are k / (n + 1). Of the largest such one that is allowed, the share that reaches it
    has a beta distribution of parameters k and n + 1 - k over references of that size, however the scores are
    distributed; where some of these are equal it is less.
    """
    n = n_background + 1
    k = int(np.count_nonzero(np.arange(1, n + 1) / n <= largest_p_value))
    share = k / n
    return share, math.sqrt(share * (1.0 - share) / (n + 1))
