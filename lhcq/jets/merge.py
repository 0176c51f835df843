"""The merge of all parts into a dataset: complete, in order of row, and the same bytes however it was cut."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lhcq.config import FeatureSet
from lhcq.errors import BadInput, DamagedChunk, NameTaken, RowsMissing
from lhcq.jets.parts import CONTENT, Gap, read_fingerprint, read_gaps, regroup
from lhcq.jets.parts import ROW_GROUP as PART_ROW_GROUP
from lhcq.jets.vectors import Integers
from lhcq.records.commits import differing
from lhcq.records.duplicates import Contents, Duplicates, find_duplicates, write_duplicates
from lhcq.records.events import ROW_GROUP, events_writer, schema_of
from lhcq.records.labels import KNOWN_LABELS, count_labels
from lhcq.seals import check_seal
from lhcq.storage import MANIFEST, read_json, staged_directory, write_manifest


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


@dataclass(frozen=True, kw_only=True)
class _Survey:
    """What the small columns of one part say."""

    path: Path
    rows: Integers
    contents: Contents | None
    """None in a part of records alone."""
    classes: NDArray[np.int8]
    """-1 where there is no label."""
    labels: Counter[int | None]
    n_jets: Counter[int]
    fingerprint: dict[str, str]
    gaps: list[Gap]


def merge_parts(
    part_paths: Sequence[Path],
    final: Path,
    *,
    n_events: int,
    manifest_fields: dict[str, Any],
    features: FeatureSet = "jets",
    constituents: bool = False,
    tolerate: float = 0.0,
    labels: NDArray[np.int8] | None = None,
) -> dict[str, Any]:
    """Commit the dataset directory `final` from its parts, and give its manifest.

    The parts have to cover the rows [0, n_events) exactly once, else `ChunkMissing` is raised; up to the fraction
    `tolerate` of the rows may be gaps that the parts know, damaged or impossible in the source: then the manifest
    lists them, else `RowsMissing` is raised. `labels` (n_events,), by source row, take the place of the parts' own.
    Where `final` stands already, its manifest is given if it has the same `manifest_fields`, else `NameTaken` is
    raised. Which rows are duplicates of others is counted in the manifest and listed in a file beside the events;
    None where a part has no contents. Parts are streamed: memory holds one row group, and two integers a row.
    """
    if (final / MANIFEST).exists():
        return read_standing(final, manifest_fields)
    schema = schema_of(features, constituents=constituents)
    surveys = sorted(
        (_survey_part(path, schema) for path in part_paths),
        key=lambda survey: survey.rows[0] if len(survey.rows) else -1,
    )
    gaps = _joined([gap for survey in surveys for gap in survey.gaps])
    check_coverage([survey.rows for survey in surveys], n_events, gaps, dataset=final.name)
    _check_gaps(gaps, n_events, tolerate, dataset=final.name)
    duplicates = _find_duplicates(surveys, labels)
    fields = {
        **manifest_fields,
        **_summarize(surveys, labels),
        "gaps": [gap.model_dump() for gap in gaps],
        "duplicates": duplicates and duplicates.summary(),
    }
    with staged_directory(final) as directory:
        if duplicates:
            write_duplicates(directory, duplicates)
        _write_events([survey.path for survey in surveys], directory, schema, labels)
        write_manifest(directory, **fields)
    return read_standing(final, manifest_fields)


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


def check_coverage(
    parts: Sequence[Integers], n_events: int, gaps: Sequence[Gap] = (), *, dataset: str
) -> None:
    """Raise `ChunkMissing` unless `parts`, one after the other, are the rows 0 to n_events - 1 without `gaps`."""
    rows = np.concatenate([np.zeros(0, np.int64), *parts])
    named = np.concatenate([rows, *(np.arange(gap.start, gap.stop) for gap in gaps)])
    known = named[(named >= 0) & (named < n_events)]
    times = np.bincount(known, minlength=n_events)
    missing, doubled = np.flatnonzero(times == 0), np.flatnonzero(times > 1)
    foreign = np.unique(named[(named < 0) | (named >= n_events)])
    if len(missing) or len(doubled) or len(foreign):
        raise ChunkMissing.of(dataset, missing, doubled, foreign)
    if (np.diff(rows) < 0).any():
        raise BadInput(
            f"{dataset}: the chunks overlap or are not in order of row. Cluster again, under another name."
        )


def _survey_part(path: Path, schema: pa.Schema) -> _Survey:
    try:
        check_seal(path)
        with pq.ParquetFile(path) as file:
            found = file.schema_arrow
            columns = ["row", "label", "n_jets"]
            if found.equals(schema.append(CONTENT)):
                columns.append(CONTENT.name)
            elif not found.equals(schema):
                raise DamagedChunk.at(path, "has other columns than this version writes")
            metadata = file.metadata.metadata
            table = file.read(columns=columns)
    except FileNotFoundError as error:
        raise ChunkMissing(f"{path}: the chunk is not there. Run the same command again.") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    labels = dict(_count_values(table["label"]))
    if foreign := labels.keys() - KNOWN_LABELS:
        raise DamagedChunk.at(path, f"has the label {min(foreign)}, which no event has")
    return _Survey(
        path=path,
        rows=table["row"].to_numpy(),
        contents=table[CONTENT.name].to_numpy() if CONTENT.name in table.schema.names else None,
        classes=table["label"].fill_null(-1).to_numpy(),
        labels=Counter(labels),
        n_jets=Counter(dict(_count_values(table["n_jets"]))),
        fingerprint=read_fingerprint(metadata, path),
        gaps=read_gaps(metadata, path),
    )


def _unreadable(path: Path, error: Exception) -> DamagedChunk:
    return DamagedChunk.at(path, f"not a readable chunk ({error})")


def _count_values(column: pa.ChunkedArray) -> Iterator[tuple[Any, int]]:
    for entry in column.value_counts().to_pylist():
        yield entry["values"], entry["counts"]


def _summarize(surveys: list[_Survey], key: NDArray[np.int8] | None) -> dict[str, Any]:
    labels: Counter[int | None] = sum((survey.labels for survey in surveys), Counter())
    if key is not None:
        n_signal = sum(int(key[survey.rows].sum()) for survey in surveys)
        labels = Counter({1: n_signal, 0: labels.total() - n_signal})
    n_jets: Counter[int] = sum((survey.n_jets for survey in surveys), Counter())
    hosts = Counter(json.dumps(survey.fingerprint, sort_keys=True) for survey in surveys)
    return {
        "rows": sum(len(survey.rows) for survey in surveys),
        "labels": count_labels(labels),
        "events_by_n_jets": {str(count): n_jets[count] for count in sorted(n_jets)},
        "fingerprints": [{**json.loads(host), "parts": count} for host, count in sorted(hosts.items())],
    }


def _find_duplicates(surveys: list[_Survey], key: NDArray[np.int8] | None) -> Duplicates | None:
    """The rows of the parts, in order, that hold an event again."""
    contents = [survey.contents for survey in surveys if survey.contents is not None]
    if len(contents) < len(surveys) or not surveys:
        return None
    rows = np.concatenate([survey.rows for survey in surveys])
    labels = np.concatenate([survey.classes for survey in surveys]) if key is None else key[rows]
    return find_duplicates(rows, np.concatenate(contents), labels)


def _write_events(
    paths: list[Path], directory: Path, schema: pa.Schema, labels: NDArray[np.int8] | None
) -> None:
    # The schema without metadata: who computed what is in the manifest, not in the bytes of the events.
    with events_writer(directory, schema) as writer:
        for group in regroup(_read_batches(paths, schema.names), ROW_GROUP):
            writer.write_table(_labelled(group, labels), row_group_size=ROW_GROUP)
            del group


def _labelled(group: pa.Table, labels: NDArray[np.int8] | None) -> pa.Table:
    if labels is None:
        return group
    place = group.schema.get_field_index("label")
    return group.set_column(place, group.schema.field(place), pa.array(labels[group["row"].to_numpy()]))


def _read_batches(paths: list[Path], columns: list[str]) -> Iterator[pa.Table]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(
                batch_size=PART_ROW_GROUP, columns=columns
            )  # more would be held decoded
            while True:
                try:
                    batch = next(batches, None)
                except (pa.ArrowException, OSError) as error:
                    raise _unreadable(path, error) from error
                if batch is None:
                    break
                yield pa.Table.from_batches([batch]).replace_schema_metadata(None)


def _name_ranges(rows: Integers, shown: int = 3) -> str:
    """`0-999, 3000-3999, ...` for sorted `rows`."""
    breaks = np.flatnonzero(np.diff(rows) > 1)
    firsts, lasts = rows[[0, *(breaks + 1)]], rows[[*breaks, len(rows) - 1]]
    ranges = [f"{a}-{b}" if a != b else f"{a}" for a, b in zip(firsts, lasts, strict=True)]
    return ", ".join(ranges[:shown] + ["..."] * (len(ranges) > shown))
