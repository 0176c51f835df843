"""A stretch of rows of a parquet file: what one task of a fan-out reads, whatever the length of the file."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lhcq.errors import BadInput


def read_stretch(path: Path, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
    """The rows at the positions [start, stop) of `path`.

    Memory holds the row groups that they lie in. Raises `BadInput` where the file cannot be read or ends before.
    """
    try:
        with pq.ParquetFile(path) as file:
            groups, first = _row_groups(file.metadata, start, stop)
            table = file.read_row_groups(groups, columns=list(columns)).slice(start - first, stop - start)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{path}: cannot be read ({reason}). Make {path.parent.name} again.") from error
    if table.num_rows != stop - start:
        raise BadInput(f"{path}: ends before row {stop}. Make {path.parent.name} again.")
    return table


def _row_groups(metadata: pq.FileMetaData, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold the positions [start, stop), and the position of the first row in them."""
    groups: list[int] = []
    first = at = 0
    for index in range(metadata.num_row_groups):
        end = at + metadata.row_group(index).num_rows
        if at < stop and end > start:
            first = first if groups else at
            groups.append(index)
        at = end
    return groups, first
