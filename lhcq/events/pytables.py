"""The HDF5 dress that pandas and PyTables give a table in their "fixed" format.

Reproduced from the released LHC Olympics files, so that `pandas.read_hdf` opens ours as it opens theirs: fixed-size
strings, bit fields and null dataspaces that h5py's high-level interface would write as something else.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers the Blosc filter with HDF5)
import numpy as np
from numpy.typing import NDArray

from lhcq.events.error_keeping_file import Sink

BLOSC = 32001
# Four values that the filter fills in by itself, then compression level 5 and byte shuffling.
BLOSC_OPTIONS = (0, 0, 0, 0, 5, 1)
INDEX_CHUNK = 8192

_PYTABLES_GROUP = {"CLASS": "GROUP", "TITLE": "", "VERSION": "1.0"}
_PYTABLES_ARRAY = {"CLASS": "CARRAY", "TITLE": "", "VERSION": "1.1"}
_PANDAS_FRAME: dict[str, str | int] = {
    "axis0_variety": "regular",
    "axis1_variety": "regular",
    "block0_items_variety": "regular",
    "encoding": "UTF-8",
    "errors": "strict",
    "nblocks": 1,
    "ndim": 2,
    "pandas_type": "frame",
    "pandas_version": "0.15.2",
}


def write_frame(
    path: Path,
    blocks: Iterable[NDArray[np.float64]],
    *,
    rows: int,
    columns: Sequence[str],
    storage_rows: int = 4096,
    says: Mapping[str, str] | None = None,
) -> None:
    """Stream `blocks`, each float64 (k, n_columns), into a new pandas frame `df` of named columns.

    `says` becomes attributes of the frame, which pandas leaves alone.
    `path` is written in place: give a staged one (`lhcq.storage.staged_file`). Raises `ValueError` when the blocks
    do not hold `rows` rows.
    """
    with Sink(path) as sink, h5py.File(sink, "w", libver="earliest") as file:
        values = create_frame(file, rows=rows, width=len(columns), storage_rows=storage_rows, columns=columns)
        _write_attributes(file["df"], says or {}, charset=h5py.h5t.CSET_UTF8)
        fill_frame(values, blocks, sink, what="rows")


def fill_frame(values: h5py.Dataset, blocks: Iterable[NDArray[np.float64]], sink: Sink, *, what: str) -> None:
    """Write blocks (k, width) of rows one after the other into `values` (n_rows, width), as far as `sink` takes them.

    Raises `ValueError` when they do not hold all rows, or more; `what` is what it calls these.
    """
    n_rows, start = len(values), 0
    for block in blocks:
        stop = start + len(block)
        if stop > n_rows:
            raise ValueError(f"more than the {n_rows} {what} announced")
        values[start:stop] = block
        sink.check()
        start = stop
    if start != n_rows:
        raise ValueError(f"{start} {what}, not the {n_rows} announced")


def create_frame(
    file: h5py.File, *, rows: int, width: int, storage_rows: int, columns: Sequence[str] | None = None
) -> h5py.Dataset:
    """Dress an empty file as a pandas frame `df` and give its `block0_values`, float64 (rows, width), to fill.

    `columns` names the columns; without it they are numbered, as in the event files.
    """
    _write_attributes(file, {**_PYTABLES_GROUP, "PYTABLES_FORMAT_VERSION": "2.1"}, charset=h5py.h5t.CSET_UTF8)
    frame = file.create_group("df")
    _write_attributes(frame, {**_PYTABLES_GROUP, **_PANDAS_FRAME}, charset=h5py.h5t.CSET_UTF8)
    _create_columns(frame, "axis0", columns or width)
    _create_index(frame, "axis1", rows)
    _create_columns(frame, "block0_items", columns or width)
    values = _create_array(
        frame,
        "block0_values",
        dtype=np.dtype("<f8"),
        shape=(rows, width),
        chunks=(min(storage_rows, rows), width),
    )
    _write_bit(values, "transposed")
    return values


def _create_index(frame: h5py.Group, name: str, length: int) -> None:
    """The integers from 0, as pandas stores a plain index."""
    index = _create_array(frame, name, dtype=np.dtype("<i8"), shape=(length,), chunks=(INDEX_CHUNK,))
    _dress_index(index, "integer")
    for start in range(0, length, INDEX_CHUNK):
        stop = min(start + INDEX_CHUNK, length)
        index[start:stop] = np.arange(start, stop)


def _create_columns(frame: h5py.Group, name: str, columns: Sequence[str] | int) -> None:
    """The index of the columns: strings, which pandas stores as bytes of one length, or so many numbers."""
    if isinstance(columns, int):
        _create_index(frame, name, columns)
        return
    values = np.array([text.encode() for text in columns])
    index = _create_array(frame, name, dtype=values.dtype, shape=values.shape, chunks=values.shape)
    _dress_index(index, "string")
    index[:] = values


def _dress_index(index: h5py.Dataset, kind: str) -> None:
    _write_text(index, "kind", kind, charset=h5py.h5t.CSET_UTF8)
    # "N." is None, pickled; as UTF-8 it would be a name.
    _write_text(index, "name", "N.", charset=h5py.h5t.CSET_ASCII)
    _write_bit(index, "transposed")


def _create_array(
    frame: h5py.Group,
    name: str,
    *,
    dtype: np.dtype[np.generic],
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
) -> h5py.Dataset:
    array = frame.create_dataset(
        name,
        shape=shape,
        maxshape=tuple(max(pair) for pair in zip(shape, chunks, strict=True)),
        dtype=dtype,
        chunks=chunks,
        compression=BLOSC,
        compression_opts=BLOSC_OPTIONS,
        fill_time="alloc",  # otherwise the unused end of the last storage chunk is what memory held
        track_times=False,  # a time stamp would make equal files differ
    )
    _write_attributes(array, _PYTABLES_ARRAY, charset=h5py.h5t.CSET_ASCII)
    return array


def _write_attributes(
    target: h5py.Group | h5py.Dataset, values: Mapping[str, str | int], *, charset: int
) -> None:
    for name, value in values.items():
        if isinstance(value, int):
            target.attrs.create(name, np.int64(value))
        else:
            _write_text(target, name, value, charset=charset)


def _write_text(target: h5py.Group | h5py.Dataset, name: str, text: str, *, charset: int) -> None:
    """A string of exactly its own length; PyTables writes an empty one as a null dataspace."""
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(max(len(text), 1))
    kind.set_cset(charset)
    space = h5py.h5s.create(h5py.h5s.SCALAR if text else h5py.h5s.NULL)
    attribute = h5py.h5a.create(target.id, name.encode(), kind, space)
    if text:
        attribute.write(np.array(text.encode(), dtype=f"S{len(text)}"), mtype=kind)


def _write_bit(target: h5py.Dataset, name: str) -> None:
    """True, in PyTables' type for booleans."""
    space = h5py.h5s.create(h5py.h5s.SCALAR)
    attribute = h5py.h5a.create(target.id, name.encode(), h5py.h5t.STD_B8LE, space)
    bit: NDArray[np.uint8] = np.array(1, dtype=np.uint8)
    attribute.write(bit, mtype=h5py.h5t.NATIVE_B8)
