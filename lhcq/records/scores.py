"""Per-event scores on disk: one parquet file with the row, the label and P(signal) of every event."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from lhcq.errors import BadInput, Denied, NotThere
from lhcq.storage import staged_file

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("p_signal", pa.float64(), nullable=False),
        pa.field("answer", pa.int8()),
    ]
)
"""`answer` is null where nobody was asked for words, and absent in files of an older lhcq."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a classifier said about `n` events; all arrays have shape `(n,)`."""

    rows: NDArray[np.int64]
    """Source row of the event in its dataset."""
    labels: NDArray[np.int8]
    """1 signal, 0 background."""
    p_signal: NDArray[np.float64]
    answers: NDArray[np.int8] | None = None
    """What was answered in words: 1 signal, 0 background, -1 neither; None where nobody asked, as of trees."""

    @classmethod
    def of(
        cls, *, rows: ArrayLike, labels: ArrayLike, p_signal: ArrayLike, answers: ArrayLike | None = None
    ) -> Self:
        """Scores from columns `(n,)` of whatever numbers."""
        return cls(
            rows=np.asarray(rows, dtype=np.int64),
            labels=np.asarray(labels, dtype=np.int8),
            p_signal=np.asarray(p_signal, dtype=np.float64),
            answers=None if answers is None else np.asarray(answers, dtype=np.int8),
        )

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the likelier of the two labels is the true one."""
        right: NDArray[np.bool_] = (self.p_signal >= 0.5) == (self.labels == 1)
        return right


def write_scores(path: Path, scores: Scores) -> None:
    """Write scores to `path`, atomically; equal scores give equal bytes.

    Raises `BadInput` when the columns do not fit each other, a label is not 0 or 1, or a probability is not
    in [0, 1].
    """
    check_scores(scores.labels, scores.p_signal, where=str(path))
    answers = np.zeros(0, np.int8) if scores.answers is None else scores.answers
    if scores.rows.shape != scores.labels.shape or answers.shape not in {(0,), scores.labels.shape}:
        raise BadInput(f"{path}: rows, labels, probabilities and answers are not equally many.")
    table = pa.table(
        {
            "row": scores.rows,
            "label": scores.labels,
            "p_signal": scores.p_signal,
            "answer": [None] * len(scores.rows) if scores.answers is None else scores.answers,
        },
        schema=SCHEMA,
    )
    with staged_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_scores(path: Path) -> Scores:
    """The scores in `path`; `NotThere` without the file, `BadInput` when it is not a scores file."""
    try:
        table = pq.read_table(path)
        row, label, p_signal = (table.column(name).to_numpy() for name in SCHEMA.names[:3])
    except FileNotFoundError:
        raise NotThere(f"{path}: there are no scores. Validate the checkpoint again.") from None
    except PermissionError as error:
        raise Denied.at(path) from error
    except (pa.ArrowException, OSError, KeyError) as error:
        raise BadInput(f"{path}: not readable as scores ({_first_line(error)}). Make it again.") from error
    asked = "answer" in table.column_names and table["answer"].null_count == 0
    answers = table["answer"].to_numpy() if asked else None
    return Scores.of(rows=row, labels=label, p_signal=p_signal, answers=answers)


def check_scores(labels: NDArray[Any], p_signal: NDArray[Any], *, where: str) -> None:
    """Raise `BadInput` unless there is one label of 0 or 1 and one probability in [0, 1] for each event."""
    if labels.shape != p_signal.shape or labels.ndim != 1:
        raise BadInput(f"{where}: {labels.shape} labels do not fit {p_signal.shape} probabilities.")
    wrong = np.flatnonzero((labels != 0) & (labels != 1))
    if wrong.size:
        raise BadInput(f"{where}: label {labels[wrong[0]]} at position {wrong[0]}; it must be 0 or 1.")
    # Written so that NaN counts as outside.
    wrong = np.flatnonzero(~((p_signal >= 0) & (p_signal <= 1)))
    if wrong.size:
        raise BadInput(
            f"{where}: P(signal) is {p_signal[wrong[0]]} at position {wrong[0]}; it must lie in [0, 1]. "
            "The model has probably diverged."
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
