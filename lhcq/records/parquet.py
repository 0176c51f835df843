"""How parquet files are read: whole, in batches, or a stretch; one that cannot be read is wrong input."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lhcq.errors import BadInput, Denied


def read_schema(path: Path) -> pa.Schema:
    """The columns of `path`."""
    with _explained(path):
        return pq.read_schema(path)


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """These columns of all rows of `path`."""
    with _explained(path):
        return pq.read_table(path, columns=list(columns))


def read_batches(path: Path, columns: Sequence[str] | None, *, size: int) -> Iterator[pa.RecordBatch]:
    """The rows in order, at most `size` at a time; `jets.list.element.pt` is one column of a list of jets."""
    with _explained(path):
        file = pq.ParquetFile(path)
    with file:
        batches = file.iter_batches(batch_size=size, columns=columns)
        while True:
            with _explained(path):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch


def read_stretch(path: Path, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
    """The rows at the positions [start, stop) of `path`.

    Memory holds the row groups that they lie in. Raises `BadInput` where the file ends before.
    """
    with _explained(path), pq.ParquetFile(path) as file:
        groups, first = _row_groups(file.metadata, start, stop)
        table = file.read_row_groups(groups, columns=list(columns)).slice(start - first, stop - start)
    if table.num_rows != stop - start:
        raise BadInput(f"{path}: ends before row {stop}. Make {path.parent.name} again.")
    return table


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise Denied.at(path) from error
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BadInput(f"{path}: cannot be read ({reason}). Make {path.parent.name} again.") from error


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
