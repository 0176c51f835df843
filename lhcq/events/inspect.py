"""What a file is and what is wrong with it, found in one pass over ranges of rows."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lhcq.config import AS_RELEASED, Conventions
from lhcq.errors import BadInput
from lhcq.events.columns import UNLABELLED_WIDTH
from lhcq.events.contents import hash_events
from lhcq.events.faults import Fault, find_faults
from lhcq.events.featurefile import (
    SpoiltFeatures,
    check_jets,
    find_wrong_labels,
    open_feature_file,
    read_columns,
)
from lhcq.events.known import next_steps, published_as
from lhcq.events.layout import Table, open_event_file, read_values
from lhcq.events.oddities import SAMPLE, find_oddities
from lhcq.events.storage import describe_filter, opened
from lhcq.frozen import Frozen
from lhcq.records.duplicates import Contents, describe_duplicates, find_duplicates, hash_columns
from lhcq.records.labels import LABELS

Kind = Literal["events with labels", "black box", "features", "not lhcq"]
Floats = NDArray[np.float64]
Read = Callable[[int, int], Floats]
"""The values of the rows from the first number to before the second, (n, width)."""
RANGE_ROWS = 512
"""Rows held in memory at a time: 9 MB, which caches like better than more."""
MOST_DAMAGED = 5
"""Storage chunks that cannot be read, of which each has a line."""


class Spread(Frozen):
    """The smallest, mean and largest of a quantity over the events."""

    min: float
    mean: float
    max: float


class FileReport(Frozen):
    """What `inspect_file` found; a field is None where the file has no such thing."""

    kind: Kind
    bytes: int
    rows: int | None = None
    width: int | None = None
    dtype: str | None = None
    labels: dict[str, int] | None = None
    """Events of each class: background, signal."""
    particles: Spread | None = None
    """Particles with pt > 0 in an event."""
    leading_pt: Spread | None = None
    """pt of the hardest particle in an event, GeV."""
    storage_rows: int | None = None
    """Rows of one HDF5 storage chunk."""
    filter: str | None = None
    float32_exact: bool | None = None
    """Whether every value is one that float32 can hold."""
    sorted_by_label: bool | None = None
    duplicates: int | None = None
    """Rows that hold the same event as an earlier one."""
    ignored: list[str] | None = None
    """Columns that are not read."""
    published: str | None = None
    """Which published file it is, or may be."""
    next: list[str] | None = None
    """Commands that can take it."""
    problems: list[str] = Field(default=[])
    """What is wrong, each in one line with the first row that has it."""


def inspect_file(path: Path, conventions: Conventions = AS_RELEASED) -> FileReport:
    """Say what the file at `path` is, reading it once by ranges of rows.

    A file that lhcq cannot use is reported, not raised; a path where nothing is raises `BadInput`.
    """
    if not path.exists():
        raise BadInput(f"{path}: there is no such file.")
    try:
        file = open_event_file(path, conventions)
    except BadInput as error:
        problem = str(error)
        try:
            if ours := _report_features(path, conventions):
                return ours
        except SpoiltFeatures as spoilt:
            problem = str(spoilt)
        return FileReport(kind="not lhcq", bytes=path.stat().st_size, problems=[problem])
    survey = _Survey(file, "events with labels" if file.labelled else "black box")
    return _placed(path, _report(survey, lambda start, stop: read_values(file, start, stop)), conventions)


def _placed(path: Path, report: FileReport, conventions: Conventions) -> FileReport:
    """A report that says too which file it is of, and what is next."""
    known = published_as(path, rows=report.rows or 0, width=report.width or 0, labels=report.labels)
    steps = next_steps(path, report.kind, report.ignored or [], conventions)
    return report.model_copy(update={"published": known, "next": steps})


def _report_features(path: Path, conventions: Conventions) -> FileReport | None:
    """What a features file holds, whose columns may stand in several blocks; None where it is no such file."""
    try:
        features = open_feature_file(path, conventions)
    except SpoiltFeatures:
        raise
    except BadInput:
        return None
    with opened(path) as handle:
        table = handle[features.places[features.columns[0]][0]]
        file = Table(
            path=path,
            n_events=features.n_events,
            width=len(features.columns),
            labelled=features.labelled,
            ignored=features.ignored,
            storage_rows=table.chunks[0] if table.chunks else 1,
            size=path.stat().st_size,
            dtype=table.dtype.name,
            filter=describe_filter(table),
        )

    unlike: list[str] = []

    def read(start: int, stop: int) -> Floats:
        with opened(file.path) as handle:
            columns = read_columns(features, handle, start, stop)
        values = np.column_stack([columns[name] for name in features.columns])  # the label is the last
        if not unlike and np.isfinite(values).all():
            try:
                check_jets(columns, path, start)
            except BadInput as error:
                unlike.append(str(error))
        return values

    report = _report(_Survey(file, "features"), read)
    return _placed(path, report.model_copy(update={"problems": [*report.problems, *unlike]}), conventions)


def _report(survey: "_Survey", read: Read) -> FileReport:
    for first_row, values in _ranges(survey.file, read, survey.problems):
        survey.add(first_row, values)
    return survey.report()


def _ranges(file: Table, read: Read, problems: list[str]) -> Iterator[tuple[int, Floats]]:
    """All rows that can be read; what cannot is a problem and is stepped over."""
    step = (
        RANGE_ROWS - RANGE_ROWS % file.storage_rows
    ) or RANGE_ROWS  # whole storage chunks where they are small
    damaged: list[str] = []
    for start in range(0, file.n_events, step):
        stop = min(start + step, file.n_events)
        try:
            yield start, read(start, stop)
            continue
        except BadInput:
            pass  # some of its storage chunks may be whole
        for one in range(start, stop, file.storage_rows):
            try:
                yield one, read(one, min(one + file.storage_rows, stop))
            except BadInput as error:
                damaged.append(str(error))
    problems += damaged[:MOST_DAMAGED]
    if len(damaged) > MOST_DAMAGED:
        problems.append(f"{len(damaged) - MOST_DAMAGED} more storage chunks cannot be read.")


class _Survey:
    """Sums over the ranges seen so far."""

    def __init__(self, file: Table, kind: Kind) -> None:
        self.file = file
        self.kind = kind
        self.problems: list[str] = []
        self.faults: dict[str, Fault] = {}
        self.counts = {0.0: 0, 1.0: 0}
        self.particles = _Extent()
        self.leading_pt = _Extent()
        self.empty: list[int] = []
        self.n_empty = 0
        self.oddities: list[str] = []
        self.float32_exact = True
        self.label_steps: set[float] = set()
        self.last_label: float | None = None
        self.rows: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        self.contents: list[Contents] = [np.zeros(0, np.uint64)]
        self.labels: list[NDArray[np.float32]] = [np.zeros(0, np.float32)]

    def add(self, first_row: int, values: Floats) -> None:
        """Take in the rows from `first_row` on."""
        self.float32_exact = self.float32_exact and _fits_float32(values)
        if self.kind == "features":
            self._add_faults(_find_unfinished(values, first_row))
            if self.file.labelled:
                self._add_faults(find_wrong_labels(values[:, -1], first_row=first_row))
        else:
            self._add_faults(find_faults(values, first_row=first_row))
            self._add_particles(first_row, values[:, 0:UNLABELLED_WIDTH:3])
            if first_row == 0 and not self.faults:  # else they may be one wrong value that is told already
                self.oddities = find_oddities(values[:SAMPLE])
        self._add_contents(first_row, values)
        if self.file.labelled:
            self._add_labels(values[:, -1])

    def report(self) -> FileReport:
        """What was found."""
        problems = [fault.describe_all() for fault in self.faults.values()] + self.oddities
        if self.n_empty:
            problems.append(f"row {self.empty[0]}: no particle at all ({self.n_empty} such rows).")
        labels = np.concatenate(self.labels) if self.file.labelled else None
        duplicates = find_duplicates(np.concatenate(self.rows), np.concatenate(self.contents), labels)
        if len(duplicates.rows):
            problems.append(f"{describe_duplicates(duplicates.summary())}.")
        return FileReport(
            kind=self.kind,
            bytes=self.file.size,
            rows=self.file.n_events,
            width=self.file.width,
            dtype=self.file.dtype,
            labels={LABELS[int(label)]: count for label, count in self.counts.items()}
            if self.file.labelled
            else None,
            particles=self.particles.spread(),
            leading_pt=self.leading_pt.spread(),
            storage_rows=self.file.storage_rows,
            filter=self.file.filter,
            float32_exact=self.float32_exact,
            sorted_by_label=len(self.label_steps) < 2 if self.file.labelled else None,
            duplicates=len(duplicates.rows),
            ignored=list(self.file.ignored),
            problems=[*self.problems, *problems],
        )

    def _add_faults(self, faults: list[Fault]) -> None:
        for fault in faults:
            earlier = self.faults.get(fault.kind)
            self.faults[fault.kind] = fault if earlier is None else earlier.joined(fault)

    def _add_contents(self, first_row: int, values: Floats) -> None:
        if self.kind == "features":
            contents = hash_columns(values[:, : values.shape[1] - self.file.labelled].T)
        else:
            contents = hash_events(values, np.count_nonzero(values[:, 0:UNLABELLED_WIDTH:3], axis=1))
        self.rows.append(np.arange(first_row, first_row + len(values), dtype=np.int64))
        self.contents.append(contents)
        if self.file.labelled:
            self.labels.append(values[:, -1].astype(np.float32))

    def _add_particles(self, first_row: int, pt: Floats) -> None:
        numbers = np.count_nonzero(pt > 0, axis=1)
        self.particles.add(numbers)
        self.leading_pt.add(np.where(np.isfinite(pt), pt, 0.0).max(axis=1))
        empty = np.flatnonzero(numbers == 0)
        if len(empty):
            self.empty = self.empty or [first_row + int(empty[0])]
            self.n_empty += len(empty)

    def _add_labels(self, labels: Floats) -> None:
        for label in self.counts:
            self.counts[label] += int(np.count_nonzero(labels == label))
        before = labels[:1] if self.last_label is None else np.array([self.last_label])
        steps = np.sign(np.diff(np.concatenate([before, labels])))
        self.label_steps |= set(steps[steps != 0].tolist())
        self.last_label = float(labels[-1])


class _Extent:
    """Running minimum, mean and maximum."""

    def __init__(self) -> None:
        self.n = 0
        self.total = 0.0
        self.low = np.inf
        self.high = -np.inf

    def add(self, values: NDArray[np.generic]) -> None:
        self.n += len(values)
        self.total += float(values.sum())
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def spread(self) -> Spread | None:
        return Spread(min=self.low, mean=self.total / self.n, max=self.high) if self.n else None


def _fits_float32(values: Floats) -> bool:
    with np.errstate(invalid="ignore", over="ignore"):
        exact = values.astype(np.float32) == values
    return bool(exact.all() or (exact | np.isnan(values)).all())


def _find_unfinished(values: Floats, first_row: int) -> list[Fault]:
    """The features that are not finite."""
    wrong = ~np.isfinite(values)
    if not wrong.any():
        return []
    row, column = np.argwhere(wrong)[0]
    return [
        Fault(
            kind="not finite",
            row=first_row + int(row),
            place=f"column {column}",
            value=float(values[row, column]),
            n_rows=int(wrong.any(axis=1).sum()),
        )
    ]
