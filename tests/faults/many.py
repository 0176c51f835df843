"""A clustering of many short parts: it lasts long enough for hosts to come and go in the middle."""

import os
import subprocess
from pathlib import Path

import numpy as np

from lhcq.events.layout import open_event_file, read_rows, write_event_file
from tests.deployed import here

_GENERATED = 150
ONE_BY_ONE = ("--events-per-chunk", "1")


def lhcq(*words: str | Path, workspace: Path, code: int = 0, **environment: str) -> str:
    """Run the program in a workspace; without LHCQ_BROKER_URL it brings its own broker and workers."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LHCQ_BROKER")}
    done = subprocess.run(
        [here("lhcq"), *map(str, words)],
        env={**inherited, "LHCQ_WORKSPACE": str(workspace), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def many_events(directory: Path, rows: int) -> Path:
    """A file of this many rows stored one by one: generated events, repeated."""
    made = directory / "generated.h5"
    classes = ("--background", _GENERATED // 2, "--signal", _GENERATED // 2)
    lhcq("generate", made, *map(str, classes), "--no-detector", workspace=directory / "generation")
    block = read_rows(open_event_file(made), 0, _GENERATED)
    repeated = np.arange(rows) % _GENERATED
    path = directory / "events.h5"
    assert block.labels is not None
    write_event_file(path, [(block.particles[repeated], block.labels[repeated])], rows, storage_rows=1)
    return path


def single_machine(events: Path, directory: Path) -> bytes:
    """The dataset of these events as one machine makes it, in few large parts."""
    workspace = directory / "single"
    lhcq("cluster", events, "--name", "made", workspace=workspace)
    return (workspace / "datasets/made/events.parquet").read_bytes()
