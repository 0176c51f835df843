"""The file that one clustering task writes, and the fingerprint of the host that wrote it."""

import itertools
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lhcq.config import FeatureSet
from lhcq.errors import DamagedChunk
from lhcq.frozen import Frozen
from lhcq.records.duplicates import Contents
from lhcq.records.events import WRITER_OPTIONS, schema_of
from lhcq.seals import OPEN, seal
from lhcq.storage import staged_file

FINGERPRINT_KEY = b"lhcq.fingerprint"
GAPS_KEY = b"lhcq.gaps"
TIES_KEY = b"lhcq.ties"
# Rows in a row group of a part: few, so that a worker's memory does not depend on the length of its chunk.
ROW_GROUP = 1024
_MOST_SMALL = 256

CONTENT = pa.field("content", pa.uint64(), nullable=False)
"""What tells one event from another (`records.duplicates`): parts have it behind their records, datasets do not."""


def part_schema_of(features: FeatureSet, *, constituents: bool = False) -> pa.Schema:
    """The schema of the records in a part, each with the content of its event."""
    return schema_of(features, constituents=constituents).append(CONTENT)


def with_contents(records: pa.Table, contents: Contents) -> pa.Table:
    """Records as a part has them, from those of `schema_of` and the content of each event."""
    return records.append_column(CONTENT, pa.array(contents, CONTENT.type))


def fingerprint() -> dict[str, str]:
    """What decides the last bits of a result on this host: package versions, libm, CPU feature level.

    Hosts of one fingerprint give the same bytes; across fingerprints results agree to rounding.
    """
    packages = {name: version(name) for name in ("numba", "llvmlite", "numpy", "pyarrow")}
    return {**packages, "libm": _libm(), "cpu": _cpu_level()}


class Gap(Frozen):
    """The rows [start, stop) of the source that could not be used, and why."""

    start: int
    stop: int
    reason: str


def write_part(
    path: Path,
    tables: Iterable[pa.Table],
    fingerprint: dict[str, str],
    gaps: Sequence[Gap] = (),
    ties: Sequence[int] | None = None,
) -> None:
    """Commit `tables`, at least one, as a part; the same rows give the same bytes, however they come.

    `gaps` are the rows of its chunk that it lacks, `ties` how many events of each table were decided by equal
    distances (None: not counted): both are read after the last table, so that they may be found on the way. Memory
    holds `ROW_GROUP` rows.
    """
    rest = iter(tables)
    first = next(rest)
    with staged_file(path, sync_name=False) as temporary:
        with pq.ParquetWriter(temporary, first.schema, **WRITER_OPTIONS) as writer:
            for group in regroup(itertools.chain([first], rest), ROW_GROUP):
                writer.write_table(group)
            metadata = {**OPEN, FINGERPRINT_KEY: json.dumps(fingerprint, sort_keys=True)}
            if gaps:
                metadata[GAPS_KEY] = json.dumps([gap.model_dump() for gap in gaps])
            if ties is not None:
                metadata[TIES_KEY] = str(sum(ties))
            writer.add_key_value_metadata(metadata)
        seal(temporary)


def regroup(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `size` rows (the last may be shorter), each in one piece."""
    waiting: list[pa.Table] = []
    n_waiting = 0
    small = (
        0  # tables at the end of those that wait: a row alone takes some 25 kB, most of it for being a table
    )
    for table in tables:
        waiting.append(table)
        n_waiting += table.num_rows
        small += 1
        if small == _MOST_SMALL:
            waiting[-small:] = [pa.concat_tables(waiting[-small:]).combine_chunks()]
            small = 0
        while n_waiting >= size:
            joined = pa.concat_tables(waiting)
            waiting, n_waiting, small = [joined.slice(size)], n_waiting - size, 0
            joined = joined.slice(0, size).combine_chunks()
            yield joined
            del joined  # or it would stay while the next are made
    if n_waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def read_gaps(metadata: Mapping[bytes, bytes], path: Path) -> list[Gap]:
    """The gaps that `write_part` put into the metadata of the part at `path`."""
    try:
        return [Gap.checked(**gap) for gap in json.loads(metadata.get(GAPS_KEY, b"[]"))]
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedChunk.at(path, "its list of gaps cannot be read") from error


def read_ties(metadata: Mapping[bytes, bytes], path: Path) -> int | None:
    """How many events of the part at `path` were decided by equal distances; None where nobody counted."""
    try:
        return int(metadata[TIES_KEY]) if TIES_KEY in metadata else None
    except ValueError as error:
        raise DamagedChunk.at(path, "its count of ties cannot be read") from error


def read_fingerprint(metadata: Mapping[bytes, bytes], path: Path) -> dict[str, str]:
    """The fingerprint that `write_part` put into the metadata of the part at `path`."""
    try:
        found: dict[str, str] = json.loads(metadata[FINGERPRINT_KEY])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedChunk.at(path, "not a chunk that lhcq wrote") from error
    return found


def _libm() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or platform.platform()
    except ValueError:  # not glibc
        return platform.platform()


def _cpu_level() -> str:
    """The machine and the vector extensions that numpy found and may use, such as `x86_64 X86_V3`."""
    found: list[str] = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return " ".join([platform.machine(), *sorted(found)])
