"""Events that stand several times in one source: how they are told, and the record of them beside a dataset.

Two rows are the same event where they hold the same numbers: of an event file the same particles in any order, of a
features file the same jets; labels do not count. Rows are compared by a 64-bit hash of that, `content`. Of a million
different events two have one hash with a probability of 3e-8; they would then be kept in one subset of a split, and
nothing else would come of it. An event that holds nothing has the content 0 and is nobody's duplicate.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lhcq.errors import BadInput, Denied

Integers = NDArray[np.int64]
Contents = NDArray[np.uint64]

_FILE = "duplicates.parquet"
SCHEMA = pa.schema(
    [pa.field("row", pa.int64(), nullable=False), pa.field("first", pa.int64(), nullable=False)]
)
"""Of each duplicate its row, and the first row that holds the same event. A first one is not listed itself."""
_SHOWN = 3
_ROW_GROUP = 16_384
"""Rows whose different numbers are held while they are written: 2 MB, where all at once took 34."""


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """The duplicates among events, in order of row."""

    rows: Integers
    """(n,): their rows."""
    firsts: Integers
    """(n,): the first row with the same event as each."""
    n_contradictory: int
    """Events of which two rows have different labels."""

    @property
    def n_events(self) -> int:
        """How many different events have duplicates."""
        return len(np.unique(self.firsts))

    def summary(self) -> dict[str, Any]:
        """What a manifest says: counts, and the first few as pairs (row, first row of the same event)."""
        pairs = zip(self.rows[:_SHOWN].tolist(), self.firsts[:_SHOWN].tolist(), strict=True)
        return {
            "rows": len(self.rows),
            "events": self.n_events,
            "contradictory": self.n_contradictory,
            "examples": [list(pair) for pair in pairs],
        }


def find_duplicates(rows: Integers, contents: Contents, labels: NDArray[np.generic] | None) -> Duplicates:
    """The duplicates among the events of `rows` (n,), which rise, by their `contents` (n,) and labels (n,)."""
    ranked = np.sort(contents)  # mostly no content stands twice, and then nothing else takes memory
    repeated = np.unique(ranked[1:][ranked[1:] == ranked[:-1]])
    repeated = repeated[repeated != 0]
    del ranked
    several = np.flatnonzero(np.isin(contents, repeated))  # positions
    order = several[np.argsort(contents[several], kind="stable")]
    begins = np.searchsorted(contents[order], repeated)
    first = np.repeat(order[begins], np.diff(np.append(begins, len(order))))
    later = order != first
    places = np.argsort(order[later])
    later, first = order[later][places], first[later][places]
    contrary = np.zeros(0, np.int64) if labels is None else first[labels[later] != labels[first]]
    return Duplicates(rows=rows[later], firsts=rows[first], n_contradictory=len(np.unique(contrary)))


def describe_duplicates(summary: dict[str, Any]) -> str:
    """One clause for people about a `Duplicates.summary` that is not empty."""
    rows, events = summary["rows"], summary["events"]
    pairs = ", ".join(f"row {row} is row {first}" for row, first in summary["examples"])
    more = ", ..." if rows > len(summary["examples"]) else ""
    contrary = summary["contradictory"]
    labels = f"; {contrary:,} of these events with contradictory labels" if contrary else ""
    return (
        f"{rows:,} row{'s' * (rows > 1)} repeat{'s' * (rows == 1)} {events:,} earlier "
        f"event{'s' * (events > 1)} ({pairs}{more}){labels}"
    )


def write_duplicates(directory: Path, duplicates: Duplicates) -> None:
    """Write the record into a dataset that is being made, where there are any."""
    if len(duplicates.rows):
        columns = [pa.array(duplicates.rows), pa.array(duplicates.firsts)]
        table = pa.Table.from_arrays(columns, schema=SCHEMA)
        pq.write_table(table, directory / _FILE, compression="zstd", row_group_size=_ROW_GROUP)


def duplicates_sha256(manifest: Mapping[str, Any]) -> str | None:
    """What tells the record from any other, by the dataset's manifest; None where there are no duplicates."""
    sha256: str | None = manifest["files"].get(_FILE, {}).get("sha256")
    return sha256


def read_firsts(directory: Path, manifest: dict[str, Any], rows: Integers) -> Integers:
    """Of each of the `rows` (n,) of a dataset, all or some, the first row with the same event, mostly itself.

    The first row is the dataset's, whether or not it is among `rows`. A dataset whose `manifest` names no such record
    has no duplicates, or was made before they were looked for.
    """
    if _FILE not in manifest["files"]:
        return rows
    path = directory / _FILE
    try:
        table = pq.read_table(path, schema=SCHEMA)
    except PermissionError as error:
        raise Denied.at(path) from error
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: cannot be read ({error}). Make {directory.name} again.") from error
    duplicates, first_rows = table["row"].to_numpy(), table["first"].to_numpy()  # of all rows, which rise
    places = np.minimum(np.searchsorted(duplicates, rows), len(duplicates) - 1)
    return np.where(duplicates[places] == rows, first_rows[places], rows)


def hash_columns(columns: Iterable[NDArray[np.float64]]) -> Contents:
    """The content of rows from their columns (n,) each; 0 where all are 0."""
    every = [(column + 0.0).view(np.uint64) for column in columns]  # -0.0 becomes 0.0
    state = np.zeros(len(every[0]), np.uint64)
    for bits in every:
        state = _mix((state + bits) * np.uint64(0x9E3779B97F4A7C15))
    return np.where(np.any(every, axis=0), np.maximum(state, np.uint64(1)), np.uint64(0))


def _mix(state: Contents) -> Contents:
    """The finalizer of splitmix64: Steele, Lea and Flood, OOPSLA 2014."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
