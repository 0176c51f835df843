"""The file that one clustering task writes, and the fingerprint of the host that wrote it."""

import itertools
import json
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa

from lhcq.config import FeatureSet
from lhcq.errors import BadInput, DamagedChunk
from lhcq.frozen import Frozen
from lhcq.records.chunks import write_chunk
from lhcq.records.duplicates import Contents
from lhcq.records.events import schema_of

# Rows in a batch of a part: few, so that a worker's memory does not depend on the length of its chunk.
BATCH = 1024
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


class Told(Frozen):
    """What a part tells beside its rows."""

    fingerprint: dict[str, str]
    gaps: tuple[Gap, ...] = ()
    """The rows of its chunk that it lacks."""
    ties: int | None = None
    """How many of its events were decided by equal distances; None where nobody counted."""


def read_told(told: bytes, path: Path) -> Told:
    """What `write_part` told in the part at `path`."""
    try:
        return Told.checked(**json.loads(told))
    except (ValueError, TypeError, RecursionError, BadInput) as error:
        raise DamagedChunk.at(path, "no chunk of a clustering that this lhcq wrote") from error


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
    holds `BATCH` rows.
    """
    rest = iter(tables)
    first = next(rest)
    batches = (batch for table in itertools.chain([first], rest) for batch in table.to_batches())

    def told() -> dict[str, object]:
        found = Told(fingerprint=fingerprint, gaps=tuple(gaps), ties=None if ties is None else sum(ties))
        return found.model_dump(mode="json", exclude_defaults=True)

    write_chunk(path, first.schema, regroup(batches, BATCH), told)


def regroup(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly `size` (the last may be shorter), each in one piece."""
    waiting: list[pa.RecordBatch] = []
    n_waiting = 0
    # Batches at the end of those that wait: a row alone takes some 25 kB, most of it for being a batch.
    small = 0
    for batch in batches:
        waiting.append(batch)
        n_waiting += batch.num_rows
        small += 1
        if small == _MOST_SMALL:
            waiting[-small:] = [pa.concat_batches(waiting[-small:])]
            small = 0
        while n_waiting >= size:
            joined = pa.Table.from_batches(waiting)
            waiting, n_waiting, small = joined.slice(size).to_batches(), n_waiting - size, 0
            group = pa.concat_batches(joined.slice(0, size).to_batches())
            del joined  # or it would stay while the group is used
            yield group
            del group  # or it would stay while the next is made
    if n_waiting:
        yield pa.concat_batches(waiting)


def _libm() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or platform.platform()
    except ValueError:  # not glibc
        return platform.platform()


def _cpu_level() -> str:
    """The machine and the vector extensions that numpy found and may use, such as `x86_64 X86_V3`."""
    found: list[str] = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return " ".join([platform.machine(), *sorted(found)])
