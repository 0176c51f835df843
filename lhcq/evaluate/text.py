"""The text report of a validation, in the form of the reference study's diary."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix

NAMES = ("background", "signal", "unknown")
"""By class number; `unknown` only appears when there is one, as in the study."""


def text_report(labels: ArrayLike, p_signal: ArrayLike, unknown: ArrayLike) -> str:
    """Accuracy, unknown predictions, sklearn's classification report and the confusion matrix.

    `(n,)` labels (1 signal), probabilities of signal and unknown flags. An unknown prediction counts as wrong
    here, as in the study, whose predictions were free text; `Figures.accuracy` takes the likelier of the two
    labels instead, and the two agree when nothing is unknown.
    """
    truth = np.asarray(labels).astype(np.int64)
    choice = (np.asarray(p_signal) >= 0.5).astype(np.int64)
    unsaid = np.asarray(unknown, dtype=np.bool_)
    answer = np.where(unsaid, 2, choice)
    shown = [0, 1, 2] if unsaid.any() else [0, 1]
    names = [NAMES[number] for number in shown]
    lines = [
        f"Validation Accuracy: {accuracy_score(truth, answer):.4g}",
        f"Number of unknown predictions: {int(unsaid.sum())}",
    ]
    if unsaid.any():
        lines.append(f"Accuracy of the likelier label: {accuracy_score(truth, choice):.4g}")
    report = classification_report(truth, answer, labels=shown, target_names=names, zero_division=0)
    return "\n".join([*lines, str(report), _confusion_text(truth, answer, shown), ""])


def _confusion_text(truth: np.ndarray, answer: np.ndarray, shown: list[int]) -> str:
    """A table, truth by row and prediction by column."""
    counts = confusion_matrix(truth, answer, labels=shown)
    width = max(len("background"), *(len(str(count)) for count in counts.flat)) + 2
    head = "truth \\ predicted" + "".join(f"{NAMES[number]:>{width}}" for number in shown)
    body = [
        f"{NAMES[number]:>17}" + "".join(f"{count:>{width}}" for count in row)
        for number, row in zip(shown, counts.tolist(), strict=True)
        if number < 2
    ]
    return "\n".join([head, *body])
