"""The LHC Olympics file: a pandas "fixed" HDF5 table with one event a row.

A row is 700 times (pt in GeV, eta, phi), zero-padded, then the truth bit (1 is signal), which black boxes lack.
Files are read by ranges of rows and written as a stream: no function here holds a whole one.
Source: the released files, Zenodo record 6466204.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lhcq.config import AS_RELEASED, Conventions
from lhcq.errors import BadInput, TransientError
from lhcq.events.bare_features import find_bare
from lhcq.events.columns import N_PARTICLES, UNLABELLED_WIDTH, WIDTH, Arrangement, arrange
from lhcq.events.error_keeping_file import Sink
from lhcq.events.faults import find_faults
from lhcq.events.foreign import describe_records
from lhcq.events.frames import Column, NoFrame, find_frame
from lhcq.events.plain import describe_contents, find_plain, records_in
from lhcq.events.pytables import create_frame, fill_frame
from lhcq.events.signatures import HINT
from lhcq.events.storage import describe_filter, first_line, opened, reading, refuse_no_file

VALUES = "df/block0_values"

Floats = NDArray[np.float64]
Block = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one HDF5 data set holds of the rows of an event file."""

    table: str
    shape: tuple[int, ...]
    columns: slice | tuple[int, ...]
    """The columns to take of it..."""
    targets: slice | tuple[int, ...]
    """... and which ones of a row they are."""
    whole: bool
    """Whether it is the rows as they stand, as in the released files."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a file holds, whose values are checked when read."""

    path: Path
    n_events: int
    storage_rows: int
    """Rows of one HDF5 storage chunk; 1 when the table is contiguous, which can be cut anywhere."""
    labelled: bool
    """False for a black box, which has no truth bit."""
    size: int
    """Bytes."""
    width: int
    """Columns that are read: 2101, or 2100 without labels."""
    dtype: str
    """`float64`, `float32` or `float16`."""
    filter: str
    """How the storage chunks are compressed, for people."""
    ignored: tuple[str, ...] = ()
    """Names of the columns that are not read."""


@dataclass(frozen=True, kw_only=True)
class EventFile(Table):
    """An event file that was opened once and found to have the layout."""

    conventions: Conventions = AS_RELEASED
    """What its numbers mean."""
    pieces: tuple[Piece, ...]
    """Where its columns lie: one for the released files, the widest first."""

    def read_as(self, conventions: Conventions) -> "EventFile":
        """The same file, its numbers understood in another way."""
        return replace(
            self, conventions=Conventions(padding=conventions.padding, label_map=conventions.label_map)
        )


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


def open_event_file(path: Path, conventions: Conventions = AS_RELEASED) -> EventFile:
    """Check that `path` is a file of the LHC Olympics layout and say what it holds.

    Opens it, reads no event and closes it. Raises `BadInput` for anything else, in one line.
    """
    refuse_no_file(path)
    with reading(path) as file:
        found = _find(file, path)
        pieces = _pieces(file, found)
        widest = file[pieces[0].table]
        if widest.dtype.kind != "f" or widest.dtype.itemsize not in (2, 4, 8):
            raise BadInput(
                f"{path}: its values are {widest.dtype}, not float64, float32 or float16. Save them as one of these."
            )
        found_file = EventFile(
            path=path,
            n_events=len(widest),
            storage_rows=widest.chunks[0] if widest.chunks else 1,
            labelled=found.label is not None,
            size=path.stat().st_size,
            width=UNLABELLED_WIDTH + (found.label is not None),
            dtype=widest.dtype.name,
            filter=describe_filter(widest),
            pieces=pieces,
            ignored=found.ignored,
        )
    return found_file.read_as(conventions)


def _find(file: h5py.File, path: Path) -> Arrangement:
    try:
        return arrange(find_frame(file, path), path)
    except NoFrame as error:
        plain = find_plain(file, path)
        if plain is None and (bare := find_bare(file, path)) is not None:
            raise BadInput(
                f"{path}: features ({len(bare.columns)} columns), not events. Use `lhcq import`, or give the events "
                "that they were made of."
            ) from error
        if plain is None and (records := records_in(file)) is not None:
            told = describe_records(path, *records)
            raise BadInput(f"{path}: records of named fields, no table. {told}") from error
        if plain is None:
            raise BadInput(f"{error} It holds {describe_contents(file)}. {HINT}") from error
        return plain


def _pieces(file: h5py.File, found: Arrangement) -> tuple[Piece, ...]:
    """The columns of a row by the data set that they lie in."""
    by_table: dict[str, list[tuple[int, int]]] = {}
    row: list[Column] = [*found.particles, *([found.label] if found.label else [])]
    targets = [*range(len(found.particles)), UNLABELLED_WIDTH]
    for target, column in zip(targets, row, strict=False):
        by_table.setdefault(column.table, []).append((column.position, target))
    pieces = []
    for table, places in sorted(by_table.items(), key=lambda item: -len(item[1])):
        columns, targets = ([place[side] for place in places] for side in (0, 1))
        shape = file[table].shape
        everything = list(range(UNLABELLED_WIDTH + (found.label is not None)))
        whole = len(shape) == 2 and shape[1] == len(everything) and columns == targets == everything
        pieces.append(
            Piece(
                table=table,
                shape=shape,
                columns=_selection(columns),
                targets=_selection(targets),
                whole=whole,
            )
        )
    return tuple(pieces)


def _selection(places: list[int]) -> slice | tuple[int, ...]:
    """A slice where it will do, which numpy needs no copy for."""
    first, last = places[0], places[-1]
    return slice(first, last + 1) if places == list(range(first, last + 1)) else tuple(places)


def read_rows(file: EventFile, start: int, stop: int) -> EventBlock:
    """Read the events [start, stop) and nothing else.

    Values are understood by the file's `conventions`. Raises `WrongValues` naming the row and the value where one is
    not finite, a pt is negative, an eta is out of reach or a label is neither 0 nor 1, and `DamagedRows` naming the
    rows where the storage is damaged.
    """
    return to_block(file, read_values(file, start, stop), start)


def to_block(file: EventFile, values: Floats, start: int) -> EventBlock:
    """The events in `values`, which stand in `file` from the row `start` on; raises `WrongValues`."""
    from lhcq.events.soundness import count_particles  # numba, which not every command needs

    n_particles = count_particles(values)
    if n_particles is None:
        first = find_faults(values, first_row=start)[0]
        raise WrongValues(f"{file.path}: {first.describe()}{first.remedy}")
    particles = values[:, :UNLABELLED_WIDTH].reshape(
        -1, N_PARTICLES, 3
    )  # no copy, since whoever clusters makes one
    return EventBlock(
        rows=np.arange(start, start + len(values), dtype=np.int64),
        particles=particles,
        n_particles=n_particles,
        labels=values[:, UNLABELLED_WIDTH].astype(np.int8) if file.labelled else None,
    )


def read_values(file: EventFile, start: int, stop: int) -> Floats:
    """The rows [start, stop) by the file's `conventions`, float64 (stop - start, width), unchecked."""
    with opened(file.path) as handle:
        return load_values(file, handle, start, stop)


def load_values(
    file: EventFile, handle: h5py.File, start: int, stop: int, into: Floats | None = None
) -> Floats:
    """As `read_values`, from the open `handle` of `file`; `into` (stop - start, width) is overwritten where given."""
    if not 0 <= start < stop <= file.n_events:
        raise ValueError(f"rows [{start}, {stop}) of a file of {file.n_events}")
    values: Floats = np.empty((stop - start, file.width)) if into is None else into
    if not file.pieces[0].whole:
        values[:] = 0.0  # slots that a row does not have are empty
    try:
        for piece in file.pieces:
            table = handle[piece.table]
            if table.shape != piece.shape:
                raise BadInput(f"{file.path}: changed while it was being read. Start again.")
            if piece.whole:
                table.read_direct(values, np.s_[start:stop])
            else:
                values[:, piece.targets] = table[start:stop].reshape(stop - start, -1)[:, piece.columns]
    except (OSError, KeyError) as error:
        if "errno" in str(error):  # the system could not read, which says nothing about what is stored
            raise TransientError(f"{file.path}: rows {start} to {stop - 1}: {first_line(error)}") from error
        raise DamagedRows(
            f"{file.path}: rows {start} to {stop - 1} cannot be read, the file is damaged there "
            f"({first_line(error)}). Download it again."
        ) from error
    _understand(values, file.conventions)
    return values


def _understand(values: Floats, conventions: Conventions) -> None:
    """Make of numbers as a file has them those that the released files would have, in place."""
    if conventions.padding != 0.0:
        pt = values[:, 0:UNLABELLED_WIDTH:3]
        empty = np.isnan(pt) if conventions.padding == "nan" else pt == conventions.padding
        values[:, :UNLABELLED_WIDTH].reshape(-1, N_PARTICLES, 3)[empty] = 0.0
    if values.shape[1] > UNLABELLED_WIDTH:
        values[:, UNLABELLED_WIDTH] = map_labels(values[:, UNLABELLED_WIDTH], conventions)


def map_labels(labels: Floats, conventions: Conventions) -> Floats:
    """Labels (n,) as 0 and 1 where the conventions say what they stand for."""
    mapped = labels.copy() if conventions.label_map else labels
    for label, meaning in conventions.label_map.items():
        mapped[labels == float(label)] = meaning
    return mapped


def write_event_file(path: Path, blocks: Iterable[Block], n_events: int, storage_rows: int = 64) -> None:
    """Stream `blocks` of (particles (k, 700, 3), labels (k,)) into a new file of the LHC Olympics layout.

    Equal events give equal bytes, however they are cut into blocks. `path` is written in place: give a staged one
    (`lhcq.storage.staged_file`). Raises `ValueError` when the blocks do not hold `n_events` events.
    """
    # "earliest": the format of the released files, and the only one that every reader knows.
    with Sink(path) as sink, h5py.File(sink, "w", libver="earliest") as file:
        values = create_frame(file, rows=n_events, width=WIDTH, storage_rows=storage_rows)
        fill_frame(values, _regroup(blocks, storage_rows), sink, what="events")


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
