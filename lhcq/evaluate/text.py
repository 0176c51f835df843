"""The text report of a validation, in the form of the reference study's diary."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix

from lhcq.records.labels import LABELS

_UNKNOWN = "  (generated answers that are neither label, which Generated Accuracy takes for wrong)"


def text_report(labels: ArrayLike, p_signal: ArrayLike, answers: ArrayLike | None) -> str:
    """Accuracy, unknown predictions, sklearn's classification report and the confusion matrix.

    `(n,)` labels (1 signal), probabilities of signal and answers in words (-1 for neither label). The prediction is
    the likelier of the two labels, as in `Metrics.accuracy`; what is generated, as the study's predictions were, has
    an accuracy of its own.
    """
    truth = np.asarray(labels).astype(np.int64)
    choice = (np.asarray(p_signal) >= 0.5).astype(np.int64)
    lines = [f"Validation Accuracy: {accuracy_score(truth, choice):.4g}"]
    if answers is not None:
        said = np.asarray(answers)
        n_unknown = int(np.count_nonzero(said < 0))
        lines += [
            f"Generated Accuracy: {np.mean(said == truth):.4g}",
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
