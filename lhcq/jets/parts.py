"""The file that one clustering task writes, and the fingerprint of the host that wrote it."""

import json
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lhcq.config import Frozen
from lhcq.errors import BadInput
from lhcq.workspace import staged_file

FINGERPRINT_KEY = b"lhcq.fingerprint"
GAPS_KEY = b"lhcq.gaps"

# Everything about the bytes that does not come from the table, fixed. The writer signs with its version, which
# is part of the fingerprint. Dictionaries would not pay: hardly any float occurs twice.
WRITER_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "version": "2.6",
    "data_page_version": "1.0",
    "data_page_size": 1 << 20,
    "use_dictionary": False,
    "write_statistics": True,
}


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


def gather(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    """All `tables` of `schema` as one that has its own memory.

    Kept by reference, the small pieces of each would keep the allocator from using again what the large arrays
    around it leave: measured, 600 MB instead of 360 for a chunk of 12,500 events.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        for table in tables:
            stream.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def write_part(path: Path, table: pa.Table, fingerprint: dict[str, str], gaps: Sequence[Gap] = ()) -> None:
    """Commit `table` as a part, with the rows of its chunk that it lacks; the same input gives the same bytes."""
    metadata = {FINGERPRINT_KEY: json.dumps(fingerprint, sort_keys=True)}
    if gaps:
        metadata[GAPS_KEY] = json.dumps([gap.model_dump() for gap in gaps])
    signed = table.replace_schema_metadata(metadata)
    with staged_file(path) as temporary:
        # In one piece, because a page ends where a piece of a column ends.
        pq.write_table(signed.combine_chunks(), temporary, row_group_size=1 << 20, **WRITER_OPTIONS)


def read_gaps(schema: pa.Schema) -> list[Gap]:
    """The gaps that `write_part` put into a part."""
    return [Gap.checked(**gap) for gap in json.loads((schema.metadata or {}).get(GAPS_KEY, b"[]"))]


def read_fingerprint(schema: pa.Schema, path: Path) -> dict[str, str]:
    """The fingerprint that `write_part` put into the part at `path`."""
    try:
        found: dict[str, str] = json.loads(schema.metadata[FINGERPRINT_KEY])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: not a part that lhcq wrote. Remove it and cluster again.") from error
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
