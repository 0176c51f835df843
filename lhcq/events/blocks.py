"""The events of a chunk in blocks that fit the processor's cache, stepping over rows that cannot be used."""

import contextlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import lhcq.events.soundness  # noqa: F401 - compiled before a worker forks
from lhcq.events.layout import (
    DamagedRows,
    EventBlock,
    EventFile,
    Floats,
    WrongValues,
    load_values,
    to_block,
)
from lhcq.events.storage import opened

# 17 MB of float64. Measured beside 256: a whole task takes less by a fourteenth with substructure and by a twelfth
# without, where all blocks are read into the same memory; half as much where each has its own.
BLOCK_ROWS = 1024


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The rows [start, stop) of a file, which cannot be used."""

    start: int
    stop: int
    reason: str


def read_blocks(file: EventFile, start: int, stop: int, *, skip_wrong: bool) -> Iterator[EventBlock | Gap]:
    """The events [start, stop) in order, in blocks of whole storage chunks; `start` begins one.

    A storage chunk that is damaged becomes a `Gap`. So does an event that holds wrong values when `skip_wrong`;
    otherwise `WrongValues` is raised. The file is held open in between. A later block overwrites the
    particles of this one: take what you need of them before you ask for the next.
    """
    for values, first in _read_values(file, start, stop):
        if isinstance(values, Gap):
            yield values
        else:
            yield from _check(file, values, first, skip_wrong)


def _read_values(file: EventFile, start: int, stop: int) -> Iterator[tuple[Floats | Gap, int]]:
    """What stands in the rows [start, stop), with the row that it begins at."""
    step = max(file.storage_rows, BLOCK_ROWS - BLOCK_ROWS % file.storage_rows)
    room = _pages(min(step, stop - start), file.width)
    with opened(file.path) as handle:
        for first in range(start, stop, step):
            last = min(first + step, stop)
            try:
                yield load_values(file, handle, first, last, room[: last - first]), first
                continue
            except DamagedRows:
                pass
            for one in range(first, last, file.storage_rows):
                end = min(one + file.storage_rows, last)
                try:
                    yield load_values(file, handle, one, end, room[one - first : end - first]), one
                except DamagedRows as error:
                    yield Gap(start=one, stop=end, reason=str(error)), one


def _pages(n_rows: int, width: int) -> Floats:
    """Memory for so many rows, which goes back to the system whole when nobody has it any more.

    malloc's would leave a hole that other arrays move into, so that the next chunk makes another: 30 MB of a worker.
    """
    pages = mmap.mmap(-1, 8 * n_rows * width, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    huge = getattr(mmap, "MADV_HUGEPAGE", None)
    if huge is not None:  # Linux; as numpy does, and a fiftieth of the page faults
        with contextlib.suppress(OSError):  # a kernel without
            pages.madvise(huge)
    return np.frombuffer(pages, np.float64).reshape(n_rows, width)


def _check(file: EventFile, values: Floats, first: int, skip_wrong: bool) -> Iterator[EventBlock | Gap]:
    """The events in `values`; with `skip_wrong` halved until every wrong one is alone."""
    try:
        yield to_block(file, values, first)
    except WrongValues as error:
        if not skip_wrong:
            raise WrongValues(f"{error} `--tolerate FRACTION` leaves such events out.") from error
        if len(values) == 1:
            yield Gap(start=first, stop=first + 1, reason=str(error))
            return
        half = len(values) // 2
        yield from _check(file, values[:half], first, skip_wrong)
        yield from _check(file, values[half:], first + half, skip_wrong)
