"""Reading a file that may end its reader: a spoilt one can crash the HDF5 library, or a filter, by a signal."""

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

from lhcq.errors import BadInput

T = TypeVar("T")

_FORK = get_context("fork")


class ReaderCrashed(BadInput):
    """Reading a file ended the process that did it."""


def read_apart(path: Path, read: Callable[[], Iterable[T]]) -> Iterator[T]:
    """What `read` gives of the file at `path`, one after the other, read in a child process.

    Raises what `read` raises, and `ReaderCrashed` where the child died of it. For the processes that people start:
    workers have children of their own, which may die.
    """
    ours, theirs = _FORK.Pipe(duplex=False)
    child = _FORK.Process(target=_read, args=(read, ours, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        while True:
            try:
                kind, value = ours.recv()
            except EOFError:
                child.join()
                raise ReaderCrashed(
                    f"{path}: reading it crashed the HDF5 library ({_cause(child.exitcode)}), so it is damaged in a "
                    "place that matters. Make or download it again."
                ) from None
            if kind == "raised":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        ours.close()
        child.kill()
        child.join()


def _read(read: Callable[[], Iterable[T]], ours: Connection, theirs: Connection) -> None:
    ours.close()  # so that the parent's end leaves nobody to write to
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        try:
            for one in read():
                theirs.send(("one", one))
        except Exception as error:
            theirs.send(("raised", error))
        else:
            theirs.send(("end", None))


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit {exit_code}"
