"""Ctrl-C at bad moments: while a process is being started, or a module imported."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN_SECONDS = 0.05


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold back signals that end this process until the body is over, which starts a process and notes it.

    Python's handlers may raise between any two instructions of the main thread: with the process started and nobody
    to know it, it is left running. The signals are not masked, since what is started would inherit the mask.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no handler runs here
        return
    received: list[int] = []
    # A handler that is not Python's (None) cannot be set again; ignored and default ones raise nothing here.
    before = {number: handler for number in _SIGNALS if callable(handler := signal.getsignal(number))}
    try:
        for number in before:
            signal.signal(number, lambda number, _: received.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for received_number in received:
            signal.raise_signal(received_number)


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """A `KeyboardInterrupt` of the body of which somebody's code made another exception is one again.

    Before 3.12 Python itself does so to whatever is raised while a class calls `__set_name__`, as it is imported.
    """
    try:
        yield
    except Exception as error:
        if not is_interrupt(error):
            raise
        raise KeyboardInterrupt from error


def hear_in_finalizers() -> None:
    """Have a `KeyboardInterrupt` that falls into a finalizer raised again after it: there Python only prints it."""
    told = sys.unraisablehook

    def hear(lost: "sys.UnraisableHookArgs") -> None:
        if not is_interrupt(lost.exc_value):
            told(lost)
            return
        again = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = hear


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an exception is a `KeyboardInterrupt`, or was made of one."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None
