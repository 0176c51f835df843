"""Reading in a child that may die."""

import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lhcq.errors import BadInput, TransientError
from lhcq.events.sandboxed_read import ReaderCrashed, read_apart

FILE = Path("/data/events.h5")


def test_what_is_read_comes_in_order_and_from_another_process() -> None:
    def read() -> Iterator[int]:
        yield from (1, 2, os.getpid())

    one, two, process = read_apart(FILE, read)

    assert (one, two) == (1, 2)
    assert process != os.getpid()


def test_a_refusal_keeps_its_kind_and_its_words() -> None:
    def read() -> Iterator[int]:
        yield 1
        raise BadInput(f"{FILE}: row 7 is odd.")

    reading = read_apart(FILE, read)

    assert next(reading) == 1
    with pytest.raises(BadInput, match=r"^/data/events.h5: row 7 is odd\.$"):
        next(reading)


def test_a_crash_is_a_refusal_that_names_the_file() -> None:
    def read() -> Iterator[int]:
        yield 1
        faulthandler.disable()  # pytest's own would tell of it
        os.kill(os.getpid(), signal.SIGSEGV)

    reading = read_apart(FILE, read)

    assert next(reading) == 1
    with pytest.raises(ReaderCrashed, match=r"/data/events\.h5.*SIGSEGV.*again"):
        next(reading)


def test_a_kill_from_outside_is_not_the_file_s_fault() -> None:
    def read() -> Iterator[int]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield 1

    with pytest.raises(TransientError, match=r"/data/events\.h5: .*SIGKILL"):
        next(read_apart(FILE, read))


def test_a_bug_keeps_its_traceback_whatever_it_is_made_of() -> None:
    class Odd(Exception):
        """Of a class that no other process knows."""

    def buggy(error: Exception) -> Iterator[int]:
        if error:
            raise error
        yield 1

    for error in (KeyError("oh"), Odd("oh")):
        with pytest.raises((KeyError, RuntimeError)) as caught:
            next(read_apart(FILE, lambda error=error: buggy(error)))
        told = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
        assert "in buggy" in told


def test_the_reader_ends_with_a_parent_that_is_killed() -> None:
    program = (
        "import os, time\nfrom pathlib import Path\nfrom lhcq.events.sandboxed_read import read_apart\n"
        "def read():\n    yield os.getpid()\n    time.sleep(600)\n"
        "one = read_apart(Path('/data'), read)\nprint(next(one), flush=True)\nnext(one)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reader = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(reader) and psutil.Process(reader).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_who_stops_asking_leaves_no_child() -> None:
    def read() -> Iterator[int]:
        while True:
            yield os.getpid()

    reading = read_apart(FILE, read)
    child = next(reading)
    reading.close()

    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
