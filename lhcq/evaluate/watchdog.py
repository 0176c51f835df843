"""The watchdog: what in a training's steps and metrics deserves an alarm. Decides on numbers, and touches nothing.

The scale of a loss over two labels is ln 2, what an answer of one half to everything costs. What is rare by chance is
told from what is not by the intervals of the metrics, so that few events raise no alarm.
"""

import math
import statistics
from collections import deque

from lhcq.evaluate.metrics import wilson_interval
from lhcq.frozen import Frozen
from lhcq.records.labels import LABELS
from lhcq.records.metrics import Metrics

WINDOW = 8
"""Optimizer steps over which loss and gradient norm are looked at together: one unlucky step is no divergence."""

LOSS_CEILING = 3 * math.log(2)
"""Nats. Above, answers are sure and wrong: no dataset does that to a model, only its training."""

LOSS_RATIO = 2.0
NORM_RATIO = 30.0

COLLAPSED_SHARE = 0.98
"""Of the answers that are of one class."""
COLLAPSED_TRUTH = 0.8
"""A class that is rarer than this in truth cannot rightly be all of the answers."""
COLLAPSED_EVENTS = 10
"""Of each class, that it takes to speak of a collapse."""

UNKNOWN_SHARE = 0.05
"""Of the answers; fewer are no alarm, whatever the best checkpoint's were."""

NLL_RISE = 0.05
"""Relative to the best validation; a smaller rise hurts nobody, however significant."""
NLL_Z = 3.0
"""Standard errors of the rise over the same events."""


class SegmentSummary(Frozen):
    """What the steps of one segment came to."""

    loss: float
    """Mean, nats."""
    grad_norm: float
    """Median, before clipping."""


class StepWatch:
    """Looks at each step of one segment. Its verdict depends on the segment's steps and its predecessor alone."""

    def __init__(self, before: SegmentSummary | None) -> None:
        self._before = before
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._loss_window: deque[float] = deque(maxlen=WINDOW)

    def see(self, loss: float, grad_norm: float) -> str | None:
        """Take in the next step; gives what is wrong where the training diverges."""
        self._losses.append(loss)
        self._norms.append(grad_norm)
        self._loss_window.append(loss)
        if len(self._losses) <= WINDOW:
            return None
        usual = self._before or SegmentSummary(
            loss=self._losses[0], grad_norm=statistics.median(self._norms[:WINDOW])
        )
        mean = statistics.fmean(self._loss_window)
        norm = statistics.median(self._norms[-WINDOW:])
        if mean > LOSS_CEILING and mean > LOSS_RATIO * usual.loss:
            return f"loss {mean:.2f} over {WINDOW} steps, {usual.loss:.2f} before"
        if norm > NORM_RATIO * usual.grad_norm and mean > usual.loss:
            return f"gradient norm {norm:.3g} over {WINDOW} steps, {usual.grad_norm:.3g} before, and the loss rises"
        return None

    def summary(self) -> SegmentSummary | None:
        """Of the steps so far; None before the first."""
        if not self._losses:
            return None
        return SegmentSummary(loss=statistics.fmean(self._losses), grad_norm=statistics.median(self._norms))


def find_collapse(metrics: Metrics) -> str | None:
    """Whether nearly all answers are of one class without reason."""
    counts = metrics.confusion
    n_background = metrics.n - metrics.n_signal
    if min(metrics.n_signal, n_background) < COLLAPSED_EVENTS:
        return None
    said_signal = counts.tp + counts.fp
    name, said, true = max(
        (LABELS[1], said_signal, metrics.n_signal),
        (LABELS[0], metrics.n - said_signal, n_background),
        key=lambda one: one[1],
    )
    if said < COLLAPSED_SHARE * metrics.n:
        return None
    lowest_auc = metrics.auc if metrics.auc_low is None else metrics.auc_low
    blind = lowest_auc is None or lowest_auc <= 0.5
    if true > COLLAPSED_TRUTH * metrics.n and not blind:
        return None  # the sample is of that class, and the scores still order it
    return f"{said:,} of {metrics.n:,} answers are {name}, which {true:,} events are"


def find_unknown(metrics: Metrics, best: Metrics | None) -> str | None:
    """Whether more generated answers are neither label than at the best checkpoint.

    The first checkpoint gives no alarm, whatever its count: a model may not have learnt the words yet, or not be
    asked for them.
    """
    if best is None or metrics.unknown is None or best.unknown is None:
        return None
    low, _ = wilson_interval(metrics.unknown, metrics.n)
    if low <= max(UNKNOWN_SHARE, wilson_interval(best.unknown, best.n)[1]):
        return None
    return f"{metrics.unknown:,} of {metrics.n:,} answers are neither label, {best.unknown:,} at the best checkpoint"


def find_overfitting(
    *,
    nll: float,
    lowest_nll: float,
    rise_error: float,
    train_loss: float | None,
    train_loss_then: float | None,
) -> str | None:
    """Whether the validation subset got worse while training still gets better.

    `lowest_nll` is that of the best validation by likelihood, `train_loss_then` the training loss before it, and
    `rise_error` the standard error of the difference of the two likelihoods over the same events.
    """
    if train_loss is None or train_loss_then is None or train_loss >= train_loss_then:
        return None
    rise = nll - lowest_nll
    if rise <= NLL_RISE * lowest_nll or rise <= NLL_Z * rise_error:
        return None
    return (
        f"validation NLL {nll:#.3g} after {lowest_nll:#.3g}, while the training loss fell to {train_loss:#.4g} "
        f"from {train_loss_then:#.4g}"
    )
