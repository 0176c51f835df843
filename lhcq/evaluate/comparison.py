"""Whether one of two classifiers is better, on the same events."""

import math

import numpy as np
from numpy.typing import NDArray

from lhcq.errors import BadInput
from lhcq.evaluate.mcnemar import compare_decisions
from lhcq.evaluate.metrics import Z95, placements
from lhcq.frozen import Frozen
from lhcq.records.scores import Scores


class AucDifference(Frozen):
    """By how much the first AUC is above the second."""

    value: float
    error: float | None
    """Standard error, with the correlation of the two; None where the estimate degenerates."""
    low: float | None
    high: float | None
    """95% interval."""
    p_value: float | None
    """Two-sided, normal."""


class Comparison(Frozen):
    """Two classifiers on the events that both scored."""

    n: int
    n_signal: int
    only_first_right: int
    only_second_right: int
    """Events that one decides rightly and the other wrongly, at P(signal) of 0.5."""
    p_value: float
    """McNemar's, two-sided, of both being right equally often."""
    auc: AucDifference | None
    """None where the events are of one class."""


def compare_scores(first: Scores, second: Scores) -> Comparison | None:
    """Compare two classifiers on the rows that both scored; None without such rows.

    Rows of the same number must be the same events: of one source. Raises `BadInput` where their labels differ.
    """
    rows, at_first, at_second = np.intersect1d(first.rows, second.rows, return_indices=True)
    if not len(rows):
        return None
    labels = first.labels[at_first].astype(np.int64)
    if (labels != second.labels[at_second]).any():
        raise BadInput("the two have other labels for the same rows, so they did not score the same events.")
    one, other = first.p_signal[at_first], second.p_signal[at_second]
    test = compare_decisions(first.right[at_first], second.right[at_second])
    return Comparison(
        n=len(rows),
        n_signal=int(labels.sum()),
        only_first_right=test.only_first,
        only_second_right=test.only_second,
        p_value=test.p_value,
        auc=auc_difference(labels, one, other),
    )


def auc_difference(
    labels: NDArray[np.int64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> AucDifference | None:
    """The difference of the AUCs of two scores of the same `(n,)` events; None where they are of one class.

    The error knows that the two are correlated: DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837, whose
    covariance is the variance of the differences of the placement values.
    """
    (signal, background), (other_signal, other_background) = (
        placements(labels, first),
        placements(labels, second),
    )
    m, n = signal.size, background.size
    if not m or not n:
        return None
    value = float(signal.mean() - other_signal.mean())
    variance = 0.0
    if min(m, n) > 1:
        variance = float(
            (signal - other_signal).var(ddof=1) / m + (background - other_background).var(ddof=1) / n
        )
    if variance <= 0:
        return AucDifference(value=value, error=None, low=None, high=None, p_value=None)
    error = math.sqrt(variance)
    return AucDifference(
        value=value,
        error=error,
        low=value - Z95 * error,
        high=value + Z95 * error,
        p_value=math.erfc(abs(value) / error / math.sqrt(2)),
    )
