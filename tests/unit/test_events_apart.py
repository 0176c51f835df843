"""Reading in a child that may die."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lhcq.errors import BadInput
from lhcq.events.apart import ReaderCrashed, read_apart

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
        os.kill(os.getpid(), signal.SIGSEGV)

    reading = read_apart(FILE, read)

    assert next(reading) == 1
    with pytest.raises(ReaderCrashed, match=r"/data/events\.h5.*SIGSEGV.*again"):
        next(reading)


def test_who_stops_asking_leaves_no_child() -> None:
    def read() -> Iterator[int]:
        while True:
            yield os.getpid()

    reading = read_apart(FILE, read)
    child = next(reading)
    reading.close()

    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
