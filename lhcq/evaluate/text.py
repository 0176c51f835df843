"""The text report of a validation, in the form of the reference study's diary."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix

from lhcq.records.labels import LABELS

_UNKNOWN = (
    "  (where neither label is the likeliest token of the vocabulary; the likelier label is the prediction)"
)


def text_report(labels: ArrayLike, p_signal: ArrayLike, unknown: ArrayLike) -> str:
    """Accuracy, unknown predictions, sklearn's classification report and the confusion matrix.

    `(n,)` labels (1 signal), probabilities of signal and unknown flags. The prediction is the likelier of the two
    labels, as in `Metrics.accuracy`, since that is what the training asks for. An unknown prediction, which the
    study's free text would have shown, is counted and does not change it.
    """
    truth = np.asarray(labels).astype(np.int64)
    choice = (np.asarray(p_signal) >= 0.5).astype(np.int64)
    n_unknown = int(np.asarray(unknown, dtype=np.bool_).sum())
    lines = [
        f"Validation Accuracy: {accuracy_score(truth, choice):.4g}",
        f"Number of unknown predictions: {n_unknown}",
        *([_UNKNOWN] if n_unknown else []),
    ]
    report = classification_report(truth, choice, labels=[0, 1], target_names=list(LABELS), zero_division=0)
    return "\n".join([*lines, str(report), _confusion_text(truth, choice), ""])


def _confusion_text(truth: np.ndarray, choice: np.ndarray) -> str:
    """A table, truth by row and prediction by column."""
    counts = confusion_matrix(truth, choice, labels=[0, 1])
    width = max(len(LABELS[0]), *(len(str(count)) for count in counts.flat)) + 2
    head = "truth \\ predicted" + "".join(f"{name:>{width}}" for name in LABELS)
    body = [
        f"{name:>17}" + "".join(f"{count:>{width}}" for count in row)
        for name, row in zip(LABELS, counts.tolist(), strict=True)
    ]
    return "\n".join([head, *body])
