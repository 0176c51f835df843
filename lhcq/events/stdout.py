"""Silence for what C++ prints, which Python's own redirection does not reach."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def silenced_stdout() -> Iterator[None]:
    """Send this process's file descriptor 1 to nowhere; keep the block short, since other threads share it."""
    libc = ctypes.CDLL(None)
    if sys.stdout is not None:
        sys.stdout.flush()
    libc.fflush(None)
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        libc.fflush(None)  # what was buffered inside the block must not come out after it
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
