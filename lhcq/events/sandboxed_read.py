"""Reading a file that may end its reader: a spoilt one can crash the HDF5 library, or a filter, by a signal."""

import contextlib
import ctypes
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from lhcq.errors import BadInput, LhcqError, TransientError

T = TypeVar("T")

_FORK = get_context("fork")
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
_PR_SET_PDEATHSIG = 1


class ReaderCrashed(BadInput):
    """Reading a file ended the process that did it."""


def read_apart(path: Path, read: Callable[[], Iterable[T]]) -> Iterator[T]:
    """What `read` gives of the file at `path`, one after the other, read in a child process.

    Raises what `read` raises, and `ReaderCrashed` where the child died of it. For the processes that people start:
    workers have children of their own, which may die.
    """
    ours, theirs = _FORK.Pipe(duplex=False)
    child = _FORK.Process(target=_read, args=(read, ours, theirs, os.getpid()), daemon=True)
    child.start()
    theirs.close()
    try:
        while True:
            try:
                kind, value = ours.recv()
            except (EOFError, OSError):  # it died between two messages, or in the middle of one
                child.join()
                raise _death(path, child.exitcode or 0) from None
            if kind == "raised":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        ours.close()
        child.kill()
        child.join()


def _read(read: Callable[[], Iterable[Any]], ours: Connection, theirs: Connection, parent: int) -> None:
    # Without it a child whose parent was killed would read on, to the end of a large file.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    ours.close()  # so that the parent's end leaves nobody to write to
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        try:
            for one in read():
                theirs.send(("one", one))
        except LhcqError as error:
            theirs.send(("raised", error))
        except Exception as error:  # a bug, which keeps its traceback
            error.add_note(traceback.format_exc())
            theirs.send(("raised", _sendable(error)))
        else:
            theirs.send(("end", None))


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  what this process has just made
    except Exception:
        return RuntimeError(traceback.format_exc())
    return error


def _death(path: Path, exit_code: int) -> Exception:
    if exit_code >= 0:
        return RuntimeError(f"the process that read {path} ended with code {exit_code}")
    how = signal.Signals(-exit_code)
    if how in _CRASHES:
        return ReaderCrashed(
            f"{path}: reading it crashed the HDF5 library ({how.name}), so it is damaged in a place that matters. "
            "Make or download it again."
        )
    return TransientError(
        f"{path}: the process that read it was ended by {how.name}; for want of memory, if nobody did it. Try again."
    )
