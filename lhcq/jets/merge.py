"""The merge of all parts into a dataset: complete, in order of row, and the same bytes however it was cut."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lhcq.errors import BadInput, NameTaken
from lhcq.jets.parts import WRITER_OPTIONS, read_fingerprint
from lhcq.jets.records import EVENTS_FILE, SCHEMA
from lhcq.jets.vectors import Integers
from lhcq.workspace import MANIFEST, read_json, staged_directory, write_manifest

# Rows in a row group of the merged file, whatever the chunks were.
ROW_GROUP = 65_536

_CLASSES = {0: "background", 1: "signal", None: "unknown"}


class ChunkMissing(BadInput):
    """The parts of a dataset do not cover every row of its source exactly once."""

    @classmethod
    def of(cls, dataset: str, missing: Integers, doubled: Integers, foreign: Integers) -> Self:
        """Name the rows that no part has, that several have, and that the source does not have."""
        faults = [
            f"{len(rows)} {what} ({_name_ranges(rows)})"
            for what, rows in (
                ("rows are in no part", missing),
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
    labels: Counter[str]
    n_jets: Counter[int]
    fingerprint: dict[str, str]


def merge_parts(
    part_paths: Sequence[Path], final: Path, *, n_events: int, manifest_fields: dict[str, Any]
) -> dict[str, Any]:
    """Commit the dataset directory `final` from its parts, and give its manifest.

    Raises `ChunkMissing` unless the parts cover the rows [0, n_events) exactly once. Where `final` stands
    already, its manifest is given if it has the same `manifest_fields`, else `NameTaken` is raised. Parts are
    streamed: memory holds one row group, and one integer a row.
    """
    if (final / MANIFEST).exists():
        return _check_standing(final, manifest_fields)
    surveys = sorted(
        (_survey_part(path) for path in part_paths),
        key=lambda survey: survey.rows[0] if len(survey.rows) else -1,
    )
    check_coverage([survey.rows for survey in surveys], n_events, dataset=final.name)
    fields = {**manifest_fields, **_summarize(surveys)}
    with staged_directory(final) as directory:
        _write_events([survey.path for survey in surveys], directory / EVENTS_FILE)
        write_manifest(directory, **fields)
    return _check_standing(final, manifest_fields)


def check_coverage(parts: Sequence[Integers], n_events: int, *, dataset: str) -> None:
    """Raise `ChunkMissing` unless `parts`, one after the other, are the rows 0, 1, ... n_events - 1."""
    rows = np.concatenate([np.zeros(0, np.int64), *parts])
    if np.array_equal(rows, np.arange(n_events)):
        return
    known = rows[(rows >= 0) & (rows < n_events)]
    times = np.bincount(known, minlength=n_events)
    missing, doubled = np.flatnonzero(times == 0), np.flatnonzero(times > 1)
    foreign = np.unique(rows[(rows < 0) | (rows >= n_events)])
    if not (len(missing) or len(doubled) or len(foreign)):
        raise BadInput(
            f"{dataset}: the parts overlap or are not in order of row. Remove them and cluster again."
        )
    raise ChunkMissing.of(dataset, missing, doubled, foreign)


def _check_standing(final: Path, manifest_fields: dict[str, Any]) -> dict[str, Any]:
    manifest: dict[str, Any] = read_json(final / MANIFEST)
    # Compared as JSON gives it back, where a tuple is a list.
    wanted = json.loads(json.dumps(manifest_fields))
    different = [name for name, value in wanted.items() if manifest.get(name) != value]
    if different:
        raise NameTaken(
            f"{final}: the dataset exists already, with another {', '.join(different)}. Choose another name."
        )
    return manifest


def _survey_part(path: Path) -> _Survey:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if not schema.equals(SCHEMA):
                raise BadInput(
                    f"{path}: has other columns than this version writes. Remove it and cluster again."
                )
            table = file.read(columns=["row", "label", "n_jets"])
    except FileNotFoundError as error:
        raise ChunkMissing(f"{path}: the part is not there. Run the same command again.") from error
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: not a readable part ({error}). Remove it and cluster again.") from error
    return _Survey(
        path=path,
        rows=table["row"].to_numpy(),
        labels=Counter({_CLASSES[label]: count for label, count in _count_values(table["label"])}),
        n_jets=Counter(dict(_count_values(table["n_jets"]))),
        fingerprint=read_fingerprint(schema, path),
    )


def _count_values(column: pa.ChunkedArray) -> Iterator[tuple[Any, int]]:
    for entry in column.value_counts().to_pylist():
        yield entry["values"], entry["counts"]


def _summarize(surveys: list[_Survey]) -> dict[str, Any]:
    labels: Counter[str] = sum((survey.labels for survey in surveys), Counter())
    n_jets: Counter[int] = sum((survey.n_jets for survey in surveys), Counter())
    hosts = Counter(json.dumps(survey.fingerprint, sort_keys=True) for survey in surveys)
    return {
        "rows": sum(len(survey.rows) for survey in surveys),
        "labels": {name: labels[name] for name in ("signal", "background", "unknown")},
        "events_by_n_jets": {str(count): n_jets[count] for count in sorted(n_jets)},
        "fingerprints": [{**json.loads(host), "parts": count} for host, count in sorted(hosts.items())],
    }


def _write_events(paths: list[Path], target: Path) -> None:
    # The schema without metadata: who computed what is in the manifest, not in the bytes of the events.
    with pq.ParquetWriter(target, SCHEMA, **WRITER_OPTIONS) as writer:
        for group in _regroup(_read_batches(paths), ROW_GROUP):
            writer.write_table(group, row_group_size=ROW_GROUP)


def _read_batches(paths: list[Path]) -> Iterator[pa.Table]:
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=ROW_GROUP):
                yield pa.Table.from_batches([batch]).replace_schema_metadata(None)


def _regroup(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `size` rows (the last may be shorter), each in one piece."""
    waiting: list[pa.Table] = []
    n_waiting = 0
    for table in tables:
        waiting.append(table)
        n_waiting += table.num_rows
        while n_waiting >= size:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, size).combine_chunks()
            waiting, n_waiting = [joined.slice(size)], n_waiting - size
    if n_waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _name_ranges(rows: Integers, shown: int = 3) -> str:
    """`0-999, 3000-3999, ...` for sorted `rows`."""
    breaks = np.flatnonzero(np.diff(rows) > 1)
    firsts, lasts = rows[[0, *(breaks + 1)]], rows[[*breaks, len(rows) - 1]]
    ranges = [f"{a}-{b}" if a != b else f"{a}" for a, b in zip(firsts, lasts, strict=True)]
    return ", ".join(ranges[:shown] + ["..."] * (len(ranges) > shown))
