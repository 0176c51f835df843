"""The LHC Olympics file: a pandas "fixed" HDF5 table with one event a row.

A row is 700 times (pt in GeV, eta, phi), zero-padded, then the truth bit (1 is signal), which black boxes lack.
Files are read by ranges of rows and written as a stream: no function here holds a whole one.
Source: the released files, Zenodo record 6466204.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lhcq.errors import BadInput, TransientError
from lhcq.events.faults import find_faults
from lhcq.events.pytables import BLOSC, create_frame
from lhcq.events.sink import Sink

N_PARTICLES = 700
UNLABELLED_WIDTH = 3 * N_PARTICLES
WIDTH = UNLABELLED_WIDTH + 1
FEATURE_WIDTHS = (14, 15)
VALUES = "df/block0_values"
MOST_COMPRESSED = 5_000
"""Bytes of a table for one of its file. Blosc and deflate make at most 255 and 1,032 of one."""
LARGEST_STORAGE_CHUNK = 1 << 29
"""Bytes, unpacked."""
LZF = 32000
"""A filter that brings the process down where what it unpacks is damaged (benchmarks/results/fuzz.json)."""

Floats = NDArray[np.float64]
Block = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class EventFile:
    """An event file that was opened once and found to have the layout; its values are checked when read."""

    path: Path
    n_events: int
    storage_rows: int
    """Rows of one HDF5 storage chunk; 1 when the table is contiguous, which can be cut anywhere."""
    labelled: bool
    """False for a black box, which has no truth bit."""
    size: int
    """Bytes."""
    width: int
    """Columns: 2101, or 2100 without labels."""
    dtype: str
    """`float64` or `float32`."""
    filter: str
    """How the storage chunks are compressed, for people."""


@dataclass(frozen=True, kw_only=True)
class EventBlock:
    """Consecutive events of a file."""

    rows: NDArray[np.int64]
    """(n,): the row of each event in its file."""
    particles: Floats
    """(n, 700, 3): pt (GeV), eta, phi, a view of the table; unused slots are zero, and need not be the last ones."""
    n_particles: NDArray[np.int64]
    """(n,): particles with pt > 0."""
    labels: NDArray[np.int8] | None
    """(n,): 1 signal, 0 background; None for a black box."""


class DamagedRows(BadInput):
    """Rows whose storage cannot be decompressed or found."""


class WrongValues(BadInput):
    """Rows that can be read and hold what no event has."""


def open_event_file(path: Path) -> EventFile:
    """Check that `path` is a file of the LHC Olympics layout and say what it holds.

    Opens it, reads no event and closes it. Raises `BadInput` for anything else, in one line.
    """
    file = describe_table(path)
    if file.width in FEATURE_WIDTHS:
        raise BadInput(
            f"{path}: a features file ({file.width} columns), not an event file. "
            "Use `lhcq import`, or give the event file that it was made from."
        )
    if file.width not in (UNLABELLED_WIDTH, WIDTH):
        raise BadInput(
            f"{path}: {file.width} columns, not {WIDTH} (700 particles and the label) or {UNLABELLED_WIDTH} "
            "(no label). It is not an LHC Olympics event file."
        )
    return file


def describe_table(path: Path) -> EventFile:
    """As `open_event_file`, for a pandas table of floating-point numbers of any width (a features file too)."""
    _refuse_no_file(path)
    with reading(path) as file:
        values = own_node(file, VALUES)
        if not isinstance(values, h5py.Dataset) or values.ndim != 2:
            raise BadInput(f"{path}: no table {VALUES} in it. It is not in the LHC Olympics layout.")
        if values.dtype.kind != "f" or values.dtype.itemsize not in (4, 8):
            raise BadInput(f"{path}: its values are {values.dtype}, not float64 or float32.")
        if len(values) == 0:
            raise BadInput(f"{path}: holds no events.")
        return describe_values(path, values)


def describe_values(path: Path, values: h5py.Dataset) -> EventFile:
    """What an open table (n_events, width) of the file at `path` is."""
    n_events, width = values.shape
    check_storage(path, values)
    return EventFile(
        path=path,
        n_events=n_events,
        storage_rows=values.chunks[0] if values.chunks else 1,
        labelled=width == WIDTH,
        size=path.stat().st_size,
        width=width,
        dtype=values.dtype.name,
        filter=_describe_filter(values),
    )


def own_node(group: h5py.Group, name: str) -> Any:
    """What stands under `name` in the file itself, None where nothing does.

    A link is not followed: it may name another file, which the reader could read and who made this file could not.
    """
    for step in name.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(group.get(step, getlink=True), h5py.HardLink):
            return None
        group = group[step]
    return group


def check_storage(path: Path, values: h5py.Dataset) -> None:
    """Raise `BadInput` where a table lies in other files, is a bomb (few bytes for very many), or packed by LZF."""
    if values.external or values.is_virtual:
        raise BadInput(
            f"{path}: {values.name} takes its values from other files. Copy them into one (`h5repack`)."
        )
    storage = values.id.get_create_plist()
    if LZF in (storage.get_filter(index)[0] for index in range(storage.get_nfilters())):
        raise BadInput(
            f"{path}: {values.name} is packed by LZF, whose reader crashes on damaged files. Pack it otherwise "
            "(`h5repack -f GZIP=5`)."
        )
    size = values.dtype.itemsize * math.prod(values.shape)
    if size > MOST_COMPRESSED * path.stat().st_size:
        raise BadInput(
            f"{path}: says that it holds {size:,} bytes of numbers and has {path.stat().st_size:,}, which no event "
            "file does. Download it again."
        )
    if values.chunks and values.dtype.itemsize * math.prod(values.chunks) > LARGEST_STORAGE_CHUNK:
        raise BadInput(
            f"{path}: one storage chunk of {values.name} is above {LARGEST_STORAGE_CHUNK >> 20} MiB, and can only be "
            "read whole. Write it again in smaller ones (`h5repack -l CHUNK=64x2101`)."
        )


def read_rows(file: EventFile, start: int, stop: int) -> EventBlock:
    """Read the events [start, stop) and nothing else.

    Raises `WrongValues` naming the row and the value where one is not finite, a pt is negative, an eta is out of
    reach or a label is neither 0 nor 1, and `DamagedRows` naming the rows where the storage is damaged.
    """
    return to_block(file, read_values(file, start, stop), start)


def to_block(file: EventFile, values: Floats, start: int) -> EventBlock:
    """The events in `values`, which stand in `file` from the row `start` on; raises `WrongValues`."""
    faults = find_faults(values, first_row=start)
    if faults:
        raise WrongValues(f"{file.path}: {faults[0].describe()}")
    particles = values[:, :UNLABELLED_WIDTH].reshape(
        -1, N_PARTICLES, 3
    )  # no copy, since whoever clusters makes one
    return EventBlock(
        rows=np.arange(start, start + len(values), dtype=np.int64),
        particles=particles,
        n_particles=np.count_nonzero(particles[:, :, 0] > 0, axis=1).astype(np.int64),
        labels=values[:, UNLABELLED_WIDTH].astype(np.int8) if file.labelled else None,
    )


def read_values(file: EventFile, start: int, stop: int) -> Floats:
    """The rows [start, stop) as they stand, float64 (stop - start, width), unchecked."""
    with opened(file.path) as handle:
        return load_values(file, handle, start, stop)


def load_values(file: EventFile, handle: h5py.File, start: int, stop: int) -> Floats:
    """As `read_values`, from the open `handle` of `file`."""
    if not 0 <= start < stop <= file.n_events:
        raise ValueError(f"rows [{start}, {stop}) of a file of {file.n_events}")
    values = np.empty((stop - start, file.width))
    try:
        table = handle[VALUES]
        if table.shape != (file.n_events, file.width):
            raise BadInput(f"{file.path}: changed while it was being read. Start again.")
        table.read_direct(values, np.s_[start:stop])
    except (OSError, KeyError) as error:
        if "errno" in str(error):  # the system could not read, which says nothing about what is stored
            raise TransientError(f"{file.path}: rows {start} to {stop - 1}: {_first_line(error)}") from error
        raise DamagedRows(
            f"{file.path}: rows {start} to {stop - 1} cannot be read, the file is damaged there "
            f"({_first_line(error)}). Download it again."
        ) from error
    return values


def write_event_file(path: Path, blocks: Iterable[Block], n_events: int, storage_rows: int = 64) -> None:
    """Stream `blocks` of (particles (k, 700, 3), labels (k,)) into a new file of the LHC Olympics layout.

    Equal events give equal bytes, however they are cut into blocks. `path` is written in place: give a staged one
    (`lhcq.workspace.staged_file`). Raises `ValueError` when the blocks do not hold `n_events` events.
    """
    # "earliest": the format of the released files, and the only one that every reader knows.
    with Sink(path) as sink, h5py.File(sink, "w", libver="earliest") as file:
        values = create_frame(file, rows=n_events, width=WIDTH, storage_rows=storage_rows)
        start = 0
        for rows in _regroup(blocks, storage_rows):
            stop = start + len(rows)
            if stop > n_events:
                raise ValueError(f"more than the {n_events} events announced")
            values[start:stop] = rows
            sink.check()
            start = stop
        if start != n_events:
            raise ValueError(f"{start} events, not the {n_events} announced")


def _regroup(blocks: Iterable[Block], size: int) -> Iterator[Floats]:
    """Rows of 2101 columns, `size` at a time, so that every storage chunk is compressed once, when it is whole."""
    held: list[Floats] = []
    n_held = 0
    for particles, labels in blocks:
        rows = np.empty((len(labels), WIDTH))
        rows[:, :UNLABELLED_WIDTH] = particles.reshape(len(labels), UNLABELLED_WIDTH)
        rows[:, UNLABELLED_WIDTH] = labels
        held.append(rows)
        n_held += len(rows)
        if n_held >= size:
            joined = np.concatenate(held)
            whole = n_held - n_held % size
            for start in range(0, whole, size):
                yield joined[start : start + size]
            held, n_held = [joined[whole:]], n_held - whole
    if n_held:
        yield np.concatenate(held)


def _refuse_no_file(path: Path) -> None:
    if not path.exists():
        raise BadInput(f"{path}: there is no such file.")
    if not path.is_file():
        raise BadInput(f"{path}: a directory or a device, not an HDF5 file.")
    if path.stat().st_size == 0:
        raise BadInput(f"{path}: an empty file (0 bytes).")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """As `opened`, for a body that finds out what the file is: what makes no sense to HDF5 in it is `BadInput`."""
    try:
        with opened(path) as file:
            yield file
    except (
        OSError,
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        NotImplementedError,
    ) as error:
        raise BadInput(f"{path}: damaged, HDF5 cannot make sense of it ({_first_line(error)}).") from error


def opened(path: Path) -> h5py.File:
    """Open for reading, without the lock that some shared filesystems refuse."""
    try:
        return h5py.File(path, "r", locking=False)
    except PermissionError as error:
        raise BadInput(f"{path}: cannot be read, permission denied.") from error
    except OSError as error:
        if "truncated" in str(error):
            raise BadInput(f"{path}: truncated, the end is missing. Download or copy it again.") from error
        if "signature not found" in str(error):
            raise BadInput(f"{path}: not an HDF5 file.") from error
        raise BadInput(f"{path}: HDF5 cannot open it ({_first_line(error)}).") from error


def _describe_filter(values: h5py.Dataset) -> str:
    plist = values.id.get_create_plist()
    names = []
    for index in range(plist.get_nfilters()):
        code, _, options, name = plist.get_filter(index)
        if code == BLOSC and len(options) >= 6:
            names.append(f"blosc level {options[4]}{', shuffled' if options[5] else ''}")
        else:
            names.append(name.decode(errors="replace") or f"filter {code}")
    return " + ".join(names) or "none"


def _first_line(error: Exception) -> str:
    return str(error).strip("'\"").splitlines()[0] if str(error) else type(error).__name__
