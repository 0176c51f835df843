"""The merge of all parts into a dataset: complete, in order of row, and the same bytes however it was cut."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lhcq.config import Axes, FeatureSet
from lhcq.errors import BadInput, DamagedChunk, NameTaken, RowsMissing
from lhcq.jets.parts import (
    CONTENT,
    Gap,
    Told,
    read_told,
    regroup,
)
from lhcq.jets.vectors import Integers
from lhcq.manifests import write_manifest
from lhcq.records.chunks import Chunk
from lhcq.records.commits import differing
from lhcq.records.duplicates import Contents, Duplicates, find_duplicates, write_duplicates
from lhcq.records.events import ROW_GROUP, events_writer, schema_of, with_axes
from lhcq.records.labels import KNOWN_LABELS, count_labels
from lhcq.storage import MANIFEST, read_json, staged_directory


class ChunkMissing(BadInput):
    """The parts of a dataset do not cover every row of its source exactly once."""

    @classmethod
    def of(cls, dataset: str, missing: Integers, doubled: Integers, foreign: Integers) -> Self:
        """Name the rows that no part has, that several have, and that the source does not have."""
        faults = [
            f"{len(rows)} {what} ({_name_ranges(rows)})"
            for what, rows in (
                ("rows are in no chunk", missing),
                ("rows are there more than once", doubled),
                ("rows are not in the source", foreign),
            )
            if len(rows)
        ]
        return cls(f"{dataset}: {'; '.join(faults)}. Run `lhcq retry {dataset}`.")


class _OutOfOrder(Exception):
    """The parts were given in another order than that of their rows: `paths` have the right one."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__()
        self.paths = paths


class _Survey:
    """What the small columns of all parts say, gathered while their events are written: a few bytes a row."""

    def __init__(self, paths: Sequence[Path], n_events: int) -> None:
        self.paths = list(paths)
        self.gaps: list[Gap] = []
        self.foreign = False
        """Whether a row is not in the source: then nothing can be written any more."""
        self._n_events = n_events
        self._sizes: list[int] = []
        """Rows of each part that was begun, as far as they were read."""
        self._n_rows = 0
        self._rows: list[Integers] = [np.zeros(0, np.int64)]
        self._contents: list[Contents] = [np.zeros(0, np.uint64)]
        self._classes: list[NDArray[np.int8]] = [np.zeros(0, np.int8)]
        self._n_jets: Counter[int] = Counter()
        self._hosts: Counter[str] = Counter()
        self._told: dict[bytes, tuple[Told, str]] = {}
        """What parts tell, with the fingerprint as it is counted: most tell the same."""
        self._ties: list[int | None] = []

    def begin_part(self, path: Path, told: bytes) -> None:
        """Note who computed the part whose rows follow, and what it lacks."""
        if told not in self._told:
            found = read_told(told, path)
            self._told[told] = found, json.dumps(found.fingerprint, sort_keys=True)
        found, host = self._told[told]
        self._hosts[host] += 1
        self.gaps += found.gaps
        self._ties.append(found.ties)
        self._sizes.append(0)

    def extend_part(self, n_rows: int) -> None:
        """Note that the part has so many rows more."""
        self._sizes[-1] += n_rows

    def add(self, group: pa.RecordBatch) -> None:
        """Note the rows that follow, of however many parts: for one alone numpy costs more than reading it."""
        rows = group["row"].to_numpy()
        classes = group["label"].fill_null(-1).to_numpy()
        unlabelled = classes == -1
        known = {-1, *KNOWN_LABELS} if unlabelled.sum() == group["label"].null_count else KNOWN_LABELS
        if foreign := set(np.unique(classes).tolist()) - known:
            label = min(foreign)
            path = self._path_of(self._n_rows + int(np.argmax(classes == label)))
            raise DamagedChunk.at(path, f"has the label {label}, which no event has")
        self.foreign = self.foreign or bool(len(rows) and (rows.min() < 0 or rows.max() >= self._n_events))
        self._n_rows += len(rows)
        self._rows.append(rows.copy())  # else they would keep the group
        self._classes.append(classes.copy())
        counts, times = np.unique(group["n_jets"].to_numpy(), return_counts=True)
        self._n_jets.update(dict(zip(counts.tolist(), times.tolist(), strict=True)))
        self._contents.append(group[CONTENT.name].to_numpy().copy())

    def _path_of(self, position: int) -> Path:
        """The part that the row at a position, counted from the first part's first, is of."""
        return self.paths[int(np.searchsorted(np.cumsum(self._sizes), position, side="right"))]

    def require_order(self) -> None:
        """Raise `_OutOfOrder` unless each part's first row comes after that of the part before."""
        sizes = np.array(self._sizes, np.int64)
        firsts = np.full(len(sizes), -1)  # of a part without rows
        firsts[sizes > 0] = self.rows[(np.cumsum(sizes) - sizes)[sizes > 0]]
        order = np.argsort(firsts, kind="stable").tolist()
        if order != list(range(len(order))):
            raise _OutOfOrder([self.paths[at] for at in order])

    @property
    def rows(self) -> Integers:
        """Of all parts, in the order in which they were read."""
        return np.concatenate(self._rows)

    def summary(self, key: NDArray[np.int8] | None) -> dict[str, Any]:
        """What the manifest says of the events; `key` are labels by source row, in the place of the parts' own."""
        classes = np.concatenate(self._classes) if key is None else key[self.rows]
        values, times = np.unique(classes, return_counts=True)
        labels: Counter[int | None] = Counter()
        for value, count in zip(values.tolist(), times.tolist(), strict=True):
            labels[None if value == -1 else value] = count
        return {
            "rows": len(classes),
            "labels": count_labels(labels),
            "ties": self._n_tied(),
            "events_by_n_jets": {str(count): self._n_jets[count] for count in sorted(self._n_jets)},
            "fingerprints": [{**json.loads(host), "parts": n} for host, n in sorted(self._hosts.items())],
        }

    def _n_tied(self) -> int | None:
        """Events that equal distances decided; None where a part did not count."""
        counted = [n for n in self._ties if n is not None]
        return sum(counted) if len(counted) == len(self._ties) else None

    def duplicates(self, key: NDArray[np.int8] | None) -> Duplicates:
        """The rows of the parts, in order, that hold an event again."""
        rows = self.rows
        labels = np.concatenate(self._classes) if key is None else key[rows]
        return find_duplicates(rows, np.concatenate(self._contents), labels)


def merge_parts(
    part_paths: Sequence[Path],
    final: Path,
    *,
    n_events: int,
    manifest_fields: dict[str, Any],
    features: FeatureSet = "jets",
    axes: Axes | None = None,
    constituents: bool = False,
    tolerate: float = 0.0,
    labels: NDArray[np.int8] | None = None,
) -> dict[str, Any]:
    """Commit the dataset directory `final` from its parts, and give its manifest.

    The parts have to cover the rows [0, n_events) exactly once, else `ChunkMissing` is raised; up to the fraction
    `tolerate` of the rows may be gaps that the parts know, damaged or impossible in the source: then the manifest
    lists them, else `RowsMissing` is raised. `labels` (n_events,), by source row, take the place of the parts' own.
    Where `final` stands already, its manifest is given if it has the same `manifest_fields`, else `NameTaken` is
    raised. `axes` are those of the parts' tau_N, which its columns and the manifest say. Which rows are duplicates of
    others is counted in the manifest and listed in a file beside the events; counted are the events that equal
    distances decided, too (`ties`). Each part is read once, as a stream: memory holds one row group, and some bytes a
    row.
    """
    if (final / MANIFEST).exists():
        return read_standing(final, manifest_fields)
    schema = schema_of(features, constituents=constituents)
    if features == "full":
        schema = with_axes(schema, axes)
    told = {**manifest_fields, **({"tau_axes": axes} if features == "full" else {})}
    try:
        _merge(part_paths, final, n_events, told, schema, tolerate, labels)
    except _OutOfOrder as wrong:
        _merge(wrong.paths, final, n_events, told, schema, tolerate, labels)
    return read_standing(final, manifest_fields)


def _merge(
    part_paths: Sequence[Path],
    final: Path,
    n_events: int,
    manifest_fields: dict[str, Any],
    schema: pa.Schema,
    tolerate: float,
    labels: NDArray[np.int8] | None,
) -> None:
    """Read each part once: its events are written while it is surveyed, and thrown away if the survey says so."""
    survey = _Survey(part_paths, n_events)
    with staged_directory(final) as directory:
        _write_events(_read_parts(survey, schema), survey, directory, schema, labels)
        survey.require_order()
        gaps = _joined(survey.gaps)
        check_coverage(survey.rows, n_events, gaps, dataset=final.name)
        _check_gaps(gaps, n_events, tolerate, dataset=final.name)
        duplicates = survey.duplicates(labels)
        write_duplicates(directory, duplicates)
        fields = {
            **manifest_fields,
            **survey.summary(labels),
            "gaps": [gap.model_dump() for gap in gaps],
            "duplicates": duplicates.summary(),
        }
        write_manifest(directory, **fields)


def read_standing(final: Path, manifest_fields: dict[str, Any]) -> dict[str, Any]:
    """The manifest of the dataset that stands at `final`; raises `NameTaken` where it has other `manifest_fields`.

    But for `source`: a file that was moved is the same by its hash.
    """
    manifest: dict[str, Any] = read_json(final / MANIFEST)
    different = [name for name in differing(manifest, manifest_fields) if name != "source"]
    if different:
        raise NameTaken(
            f"{final}: the dataset exists already, with another {', '.join(different)}. Choose another name."
        )
    return manifest


def _joined(gaps: list[Gap]) -> list[Gap]:
    """In order, with neighbours in one; the first of them gives the reason."""
    joined: list[Gap] = []
    for gap in sorted(gaps, key=lambda gap: gap.start):
        if joined and joined[-1].stop == gap.start:
            joined[-1] = joined[-1].model_copy(update={"stop": gap.stop})
        else:
            joined.append(gap)
    return joined


def _check_gaps(gaps: list[Gap], n_events: int, tolerate: float, *, dataset: str) -> None:
    n_missing = sum(gap.stop - gap.start for gap in gaps)
    if not n_missing or n_missing / n_events <= tolerate:  # 29 > 0.29 * 100, but 29 / 100 == 0.29
        return
    ranges = ", ".join([f"{gap.start}-{gap.stop - 1}" for gap in gaps[:3]] + ["..."] * (len(gaps) > 3))
    enough = math.ceil(1e6 * n_missing / n_events) / 1e6
    raise RowsMissing(
        f"{dataset}: {n_missing:,} of {n_events:,} rows cannot be used ({ranges}): {gaps[0].reason.rstrip('.')}. "
        f"All others are clustered; --tolerate {enough:.6f} leaves these out."
    )


def check_coverage(rows: Integers, n_events: int, gaps: Sequence[Gap] = (), *, dataset: str) -> None:
    """Raise `ChunkMissing` unless `rows` of all parts, in order, are 0 to n_events - 1 without `gaps`."""
    # No copy of a number a row but where there are gaps, or rows that are refused below.
    named = np.concatenate([rows, *(np.arange(gap.start, gap.stop) for gap in gaps)]) if gaps else rows
    outside = (named < 0) | (named >= n_events)
    times = np.bincount(named[~outside] if outside.any() else named, minlength=n_events)
    missing, doubled = np.flatnonzero(times == 0), np.flatnonzero(times > 1)
    foreign = np.unique(named[outside])
    if len(missing) or len(doubled) or len(foreign):
        raise ChunkMissing.of(dataset, missing, doubled, foreign)
    if (rows[1:] < rows[:-1]).any():
        raise BadInput(
            f"{dataset}: the chunks overlap or are not in order of row. Cluster again, under another name."
        )


def _read_parts(survey: _Survey, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows of all parts with their contents, a batch at a time."""
    whole = schema.append(CONTENT)
    for path in survey.paths:
        try:
            chunk = Chunk(path)
        except FileNotFoundError as error:
            raise ChunkMissing(f"{path}: the chunk is not there. Run the same command again.") from error
        survey.begin_part(path, chunk.told)
        for batch in chunk.batches():
            survey.extend_part(len(batch))
            if not batch.schema.equals(whole):
                raise DamagedChunk.at(path, "has other columns than this version writes")
            yield batch


def _write_events(
    batches: Iterator[pa.RecordBatch],
    survey: _Survey,
    directory: Path,
    schema: pa.Schema,
    labels: NDArray[np.int8] | None,
) -> None:
    # The schema without metadata: who computed what is in the manifest, not in the bytes of the events.
    with events_writer(directory, schema) as writer:
        for group in regroup(batches, ROW_GROUP):
            survey.add(group)
            if not survey.foreign:  # else it will be refused, and is read on to say all that is wrong
                writer.write_batch(_labelled(group.select(schema.names), labels), row_group_size=ROW_GROUP)
            del group


def _labelled(group: pa.RecordBatch, labels: NDArray[np.int8] | None) -> pa.RecordBatch:
    if labels is None:
        return group
    place = group.schema.get_field_index("label")
    return group.set_column(place, group.schema.field(place), pa.array(labels[group["row"].to_numpy()]))


def _name_ranges(rows: Integers, shown: int = 3) -> str:
    """`0-999, 3000-3999, ...` for sorted `rows`."""
    breaks = np.flatnonzero(np.diff(rows) > 1)
    firsts, lasts = rows[[0, *(breaks + 1)]], rows[[*breaks, len(rows) - 1]]
    ranges = [f"{a}-{b}" if a != b else f"{a}" for a, b in zip(firsts, lasts, strict=True)]
    return ", ".join(ranges[:shown] + ["..."] * (len(ranges) > shown))
