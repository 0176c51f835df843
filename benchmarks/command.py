"""`lhcq` as a user runs it, with the broker that it brings: what it answers, how long it takes, and its memory."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import psutil

from benchmarks.job import peak_of

LOOK_SECONDS = 0.2


class Watched(NamedTuple):
    """One command that ended well."""

    seconds: float
    """All of it."""
    answer: dict[str, Any]
    peaks: Counter[str]
    """The largest resident sizes in bytes: of the `command`, and of a process of its workers' `pool`."""


def start(root: Path, *arguments: str, answer: int | IO[str] = subprocess.PIPE) -> "subprocess.Popen[str]":
    """Start a command in the workspace `root`; its answer goes into a pipe, unless a file is given."""
    environment = {name: value for name, value in os.environ.items() if name != "LHCQ_BROKER_URL"}
    return subprocess.Popen(
        [sys.executable, "-m", "lhcq.cli.main", *arguments, "--json"],
        env={**environment, "LHCQ_WORKSPACE": str(root)},
        stdout=answer,
        text=True,
    )


def watch(root: Path, *arguments: str, look: Callable[[], None] | None = None) -> Watched:
    """Run a command, and look after it, and call `look`, a few times a second."""
    peaks: Counter[str] = Counter()
    # Into a file: nobody reads a pipe while the command runs, and a search's answer is more than a pipe holds.
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        command = start(root, *arguments, answer=said)
        while command.poll() is None:
            for name, peak in peaks_of(psutil.Process(command.pid)).items():
                peaks[name] = max(peaks[name], peak)
            if look:
                look()
            time.sleep(LOOK_SECONDS)
        seconds = time.perf_counter() - began
        assert command.returncode == 0
        said.seek(0)
        answer: dict[str, Any] = json.load(said)
    return Watched(seconds, answer, peaks)


def peaks_of(command: psutil.Process) -> dict[str, int]:
    """The largest resident sizes so far, in bytes: of the command, and of a process of its workers' pools."""
    peaks: Counter[str] = Counter()
    # A process may end while it is looked at.
    with contextlib.suppress(psutil.Error, OSError, StopIteration):
        peaks["command"] = peak_of(command.pid)
        for worker in command.children():
            for child in worker.children() if "worker" in worker.cmdline() else ():
                peaks["pool"] = max(peaks["pool"], peak_of(child.pid))
    return peaks
