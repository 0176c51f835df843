"""The validation of a checkpoint: its scores on a subset, the metrics made of them, and the text report."""

from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from lhcq.evaluate.metrics import metrics_of
from lhcq.evaluate.text import text_report
from lhcq.records.metrics import Metrics
from lhcq.records.scores import Scores
from lhcq.records.validations import Scored, commit_validation


def write_validation(
    final: Path,
    *,
    step: int,
    rows: ArrayLike,
    labels: ArrayLike,
    p_signal: ArrayLike,
    answers: ArrayLike | None,
    **fields: Any,
) -> Metrics:
    """Judge the scores and commit the directory `final` for the checkpoint at `step`; `fields` go into its manifest.

    If `final` is there already it stays, and this copy is discarded.
    """
    scores = Scores.of(rows=rows, labels=labels, p_signal=p_signal, answers=answers)
    metrics = metrics_of(labels, p_signal, answers)
    report = text_report(labels, p_signal, answers)
    commit_validation(final, Scored(scores, metrics), step=step, report=report, **fields)
    return metrics
