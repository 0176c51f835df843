"""Whether one of two classifiers is right more often, on the same events."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr

from lhcq.errors import BadInput
from lhcq.frozen import Frozen


class McNemar(Frozen):
    """McNemar's test: only the events on which exactly one of the two is right tell them apart."""

    only_first: int
    only_second: int
    p_value: float
    """Two-sided mid-p."""


def compare_decisions(first_right: ArrayLike, second_right: ArrayLike) -> McNemar:
    """Test two classifiers by which of the same `(n,)` events each has right.

    The mid-p version of the exact test: unlike that one it keeps its level without being conservative, and unlike the
    chi-squared version it needs no large counts. Fagerland, Lydersen and Laake, BMC Med. Res. Methodol. 13 (2013) 91.
    """
    first, second = (np.asarray(right, dtype=np.bool_) for right in (first_right, second_right))
    if first.shape != second.shape:
        raise BadInput(f"{first.size} and {second.size} decisions are not on the same events.")
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    fewer, total = min(only_first, only_second), only_first + only_second
    if only_first == only_second:
        p_value = 1.0
    else:
        below = float(bdtr(fewer - 1, total, 0.5)) if fewer else 0.0
        p_value = below + float(bdtr(fewer, total, 0.5))
    return McNemar(only_first=only_first, only_second=only_second, p_value=p_value)
