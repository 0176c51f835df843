"""Peak memory: of the processes that cluster, by the size of the file, and of the merge of the full size."""

import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.clustering import FULL, JETS, tables_of
from benchmarks.events import N_EVENTS, cache_directory, generated_events, repeat_events
from benchmarks.job import peak_of, run_job
from benchmarks.rows import Row, row, say
from lhcq.events.layout import open_event_file
from lhcq.jets.merge import merge_parts
from lhcq.jets.parts import fingerprint, with_contents, write_part

SIZES = (20_000, 200_000)
ROUNDS = 3
N_PARTS = 49  # of all generated events each: 1,103,872 records
MB = 1e6


def measure() -> list[Row]:
    """The rows of the result."""
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        return [*of_workers(Path(scratch)), *of_merge(Path(scratch))]


def of_workers(scratch: Path) -> list[Row]:
    """Two processes cluster a small and a large file, and one of them merges."""
    rows = []
    for config in (JETS, FULL):
        peaks: dict[int, list[float]] = {size: [] for size in SIZES}
        for number in range(ROUNDS):
            for size in SIZES:
                say(f"memory: {size:,} rows, {config.features}, round {number + 1} of {ROUNDS}")
                source = scratch / f"{size}.h5"
                if not source.exists():
                    repeat_events(generated_events(), source, size)
                root = scratch / f"{config.features}-{size}-{number}"
                peaks[size].append(run_job(root, source, config, processes=2).peak / MB)
        rows += [
            row(
                f"peak of a worker's process, {size:,} rows, {config.features}",
                peaks[size],
                "MB",
                at_most=500,
            )
            for size in SIZES
        ]
        small, large = (statistics.median(peaks[size]) for size in SIZES)
        rows.append(
            row(
                f"the larger of the two medians over the smaller, {config.features}",
                max(large / small, small / large),
                "times",
                at_most=1.1,
            )
        )
    return rows


def of_merge(scratch: Path) -> list[Row]:
    """The merge of the full size, in a process that does nothing else."""
    say(f"memory: writing {N_PARTS} parts to merge")
    write_parts(scratch / "parts")
    say("memory: merging them")
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        seconds, before, after = fresh.apply(merge, (scratch / "parts", scratch / "merged"))
    merged = (scratch / "merged" / "events.parquet").stat().st_size
    note = f"{N_PARTS * N_EVENTS:,} records with full features, {merged / MB:,.0f} MB, from {N_PARTS} parts"
    return [
        row("merge of 1.1 million records", seconds, "s", note=note),
        row(
            "peak memory of the merge",
            after / MB,
            "MB",
            at_most=1000,
            note=f"a process of its own, which had {before / MB:,.0f} MB before",
        ),
    ]


def write_parts(directory: Path) -> None:
    """Cluster the generated events once, and write them as the parts of a file that repeats them."""
    table = pa.concat_tables(tables_of(open_event_file(generated_events()), FULL))
    place, rows = table.schema.get_field_index("row"), np.arange(N_EVENTS)
    for index in range(N_PARTS):
        shifted = table.set_column(
            place, table.schema.field(place), pa.array(rows + index * N_EVENTS, pa.int64())
        )
        # As many contents as rows: a repeated event would be a duplicate, and there are no such files.
        contents = (rows + index * N_EVENTS + 1).astype(np.uint64)
        write_part(directory / f"{index:06d}.arrows", [with_contents(shifted, contents)], fingerprint())


def merge(parts: Path, final: Path) -> tuple[float, int, int]:
    """Seconds of a merge, and this process's peak before and after, in bytes."""
    before, began = peak_of("self"), time.perf_counter()
    paths = sorted(parts.iterdir())
    merge_parts(paths, final, n_events=len(paths) * N_EVENTS, manifest_fields={}, features="full")
    return time.perf_counter() - began, before, peak_of("self")
