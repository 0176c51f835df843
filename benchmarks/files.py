"""What `lhcq inspect` and `lhcq import` take of files of a million rows: time, processor time and memory."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.events import cache_directory, generated_events, repeat_events
from benchmarks.job import peak_of
from benchmarks.rows import Row, row, say
from lhcq.events.featurefile import LABEL, OF_JETS
from lhcq.events.pytables import write_frame

ROUNDS = {100_000: 3, 1_000_000: 1}
"""How often each size is taken."""
MOST_MB = 300.0
"""Of a process that reads, whatever the size: 1,000,000 rows of events are 17 GB in memory, of features 0.1."""
MB = 1e6
_LOOK_SECONDS = 0.02
_BLOCK = 50_000


class Taken(NamedTuple):
    """What one command took."""

    wall: float
    cpu: float
    """Seconds of all its processes."""
    peak: float
    """MB: the largest resident size that one of its processes had."""


def measure() -> list[Row]:
    """The rows of the result."""
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        root = Path(scratch)
        rows: list[Row] = []
        for size, rounds in ROUNDS.items():
            features = root / f"{size}.features.h5"
            write_frame(features, _made_up(size), rows=size, columns=(*OF_JETS, LABEL))
            events = root / f"{size}.h5"
            repeat_events(generated_events(), events, size)
            for what, words in (
                ("inspect of a features file", ["inspect", str(features)]),
                ("import of a features file", ["import", str(features)]),
                ("inspect of an event file", ["inspect", str(events)]),
            ):
                say(f"files: {what}, {size:,} rows")
                rows += rows_of(f"{what}, {size:,} rows", [_take(root, words, n) for n in range(rounds)])
            events.unlink()
        return rows


def rows_of(what: str, taken: list[Taken]) -> list[Row]:
    """The rows of the result that are of one command on one file."""
    return [
        row(f"{what}: whole command", [one.wall for one in taken], "s"),
        row(f"{what}: processor time", [one.cpu for one in taken], "s"),
        row(f"{what}: peak of a process", [one.peak for one in taken], "MB", at_most=MOST_MB),
    ]


def _made_up(n: int) -> Iterator[NDArray[np.float64]]:
    """Two jets an event, every one another, as the released files have them; the last column is the label."""
    for start in range(0, n, _BLOCK):
        k = min(_BLOCK, n - start)
        random = np.random.default_rng([23, start])
        pt = np.sort(random.uniform(1200, 2000, (k, 2)), axis=1)[:, ::-1]
        columns = []
        for jet in range(2):
            phi, eta = random.uniform(-np.pi, np.pi, k), random.uniform(-2, 2, k)
            tau1 = random.uniform(50, 100, k)
            momentum = [pt[:, jet] * of for of in (np.cos(phi), np.sin(phi), np.sinh(eta))]
            columns += [*momentum, random.exponential(100, k), tau1, tau1 / 2, tau1 / 4]
        yield np.column_stack([*columns, random.random(k) < 0.1])


def _take(root: Path, words: list[str], number: int) -> Taken:
    """Run a command that ends well and look at all its processes while it runs."""
    named = ["--name", f"{Path(words[1]).stem.replace('.', '-')}-{number}"] if words[0] == "import" else []
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = subprocess.Popen(
        [sys.executable, "-m", "lhcq.cli.main", *words, *named, "--json"],
        env={**os.environ, "LHCQ_WORKSPACE": str(root / "workspace")},
        stdout=subprocess.PIPE,
        text=True,
    )
    peak = 0
    while command.poll() is None:
        peak = max(peak, *_peaks(command.pid))
        time.sleep(_LOOK_SECONDS)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert command.stdout is not None
    answer = json.loads(command.stdout.read())
    # Rows that are repeated are what `inspect` has to say of the events, and it exits 1 for that.
    assert command.returncode == 0 or "earlier event" in str(answer["problems"]), answer
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(wall, cpu, peak / MB)


def _peaks(pid: int) -> list[int]:
    """The largest resident sizes so far of a process and what it started; 0 for one that has just ended."""
    peaks = [0]
    try:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            peaks.append(peak_of(process.pid))
    except (psutil.Error, OSError, StopIteration):
        pass
    return peaks
