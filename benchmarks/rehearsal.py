"""The full size: `lhcq cluster` as a user runs it, on 1.1 million rows."""

import contextlib
import shutil
import tempfile
from pathlib import Path

from benchmarks.command import watch
from benchmarks.events import N_EVENTS, cache_directory, generated_events, repeat_events
from benchmarks.rows import Row, row, say
from lhcq.errors import DiskFull
from lhcq.manifests import read_manifest
from lhcq.workspace import Workspace

N_ROWS = 1_100_000
MB = 1e6
NEEDED = 5e9  # bytes of disk: the events, the parts, the dataset


def measure() -> list[Row]:
    """The rows of the result."""
    free = shutil.disk_usage(cache_directory()).free
    if free < NEEDED:
        raise DiskFull(
            f"{cache_directory()}: the rehearsal needs {NEEDED / MB:,.0f} MB, {free / MB:,.0f} are free."
        )
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        source = Path(scratch) / "events.h5"
        say(f"rehearsal: writing {N_ROWS:,} rows")
        repeat_events(generated_events(), source, N_ROWS)
        return [
            one
            for features in ("jets", "full")
            for one in rehearse(Path(scratch) / features, source, features)
        ]


def rehearse(root: Path, source: Path, features: str) -> list[Row]:
    """One command, from an empty workspace to the dataset."""
    say(f"rehearsal: lhcq cluster --features {features}")
    disk = 0

    def look() -> None:
        nonlocal disk
        disk = max(disk, bytes_in(root))

    wall, answer, peaks = watch(
        root, "cluster", str(source), "--name", "bench", "--features", features, look=look
    )
    manifest = read_manifest(Workspace(root).dataset("bench"), what="the dataset", remedy="")
    assert manifest["rows"] == N_ROWS, manifest["rows"]
    assert manifest["gaps"] == []
    dataset = bytes_in(Path(answer["dataset"]))
    note = (
        f"the {N_EVENTS:,} events repeated, {source.stat().st_size / MB:,.0f} MB; {answer['chunks']} chunks"
    )
    return [
        row(f"{features}: 1.1 million rows, publishing to outcome", answer["seconds"], "s", note=note),
        row(f"{features}: rate", answer["events_per_second"], "events/s"),
        row(
            f"{features}: the whole command",
            wall,
            "s",
            note="with the sha256 of the source, and starting and stopping broker and workers",
        ),
        row(f"{features}: peak memory of a process that clusters", peaks["pool"] / MB, "MB", at_most=500),
        row(f"{features}: peak memory of the command itself", peaks["command"] / MB, "MB"),
        row(f"{features}: the dataset on disk", dataset / MB, "MB"),
        row(f"{features}: the workspace on disk at its largest", max(disk, dataset) / MB, "MB"),
    ]


def bytes_in(directory: Path) -> int:
    """The sizes of all files under a directory."""
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):  # renamed or removed meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total
