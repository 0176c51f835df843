"""What it costs that nothing enters by its name alone and no flipped bit is merged, to a chunk, a step and a segment.

Each check is timed where it is made, in the task that it belongs to: a share is a ratio within one run, of CPU time.
"""

import itertools
import shutil
import tempfile
import timeit
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import process_time
from typing import Any
from unittest.mock import patch

import lhcq
import lhcq.events.contents
import lhcq.jets.parts
import lhcq.records.chunks
import tasks.jobs.store
from benchmarks.events import cache_directory, repeat_events
from benchmarks.exporting import run_briefly
from benchmarks.rows import Row, row, say
from lhcq.records.jobs import Job, list_jobs
from lhcq.records.specs import TrainSpec
from lhcq.workspace import Workspace

BOUND = 1.0
"""Percent."""
N_ROWS = 8192
ROUNDS = 7
N_STEPS = 8
AGAIN = 20
CHUNK_CHECKS = (
    ("the events' contents", lhcq.events.contents, "hash_events"),
    ("the column of contents", lhcq.jets.parts, "with_contents"),
    ("the seal", lhcq.records.chunks, "crc32"),
    ("the job's identity", tasks.jobs.store, "require_same_bytes"),
)


def measure() -> list[Row]:
    """The rows of the result."""
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        root = Path(scratch) / "workspace"
        say("checks: a run of a few steps")
        run_briefly(root)
        workspace = Workspace(root)
        return [*of_chunks(workspace, Path(scratch)), *of_training(workspace)]


def of_chunks(workspace: Workspace, scratch: Path) -> list[Row]:
    """What the checks of a clustering task are of all that it computes, in percent."""
    from lhcq.jets.clustering import compile_kernels
    from tasks.app import app
    from tasks.jobs.leases import NoLease
    from tasks.jobs.planner import pending_units
    from tasks.jobs.store import create_job

    compile_kernels()
    app.loader.import_default_modules()
    (source,) = workspace.root.glob("events/*.h5")
    many = scratch / "many.h5"
    repeat_events(source, many, N_ROWS)
    rows = []
    for features in ("jets", "full"):
        say(f"checks: a chunk, {features}")
        request = lhcq.plan_cluster(
            many, f"many-{features}", features=features, events_per_chunk=N_ROWS, workspace=workspace
        )
        job = create_job(workspace, request)
        unit = pending_units(workspace, job)[0]

        def task(job: Job = job, unit: Any = unit) -> None:
            shutil.rmtree(workspace.root / "jobs" / f"cluster-{job.name}" / "parts", ignore_errors=True)
            tasks.jobs.store.require_same_bytes(job)
            app.tasks[unit.task].work(workspace, job, unit, NoLease())

        task()
        rounds = [shares(task) for _ in range(ROUNDS)]
        for name, _, _ in CHUNK_CHECKS:
            rows.append(row(f"a chunk of {features}: {name}", [one[name] for one in rounds], "%"))
        together = [sum(one.values()) for one in rounds]
        note = f"{N_ROWS:,} generated events in one chunk"
        rows.append(row(f"a chunk of {features}: all of them", together, "%", at_most=BOUND, note=note))
    return rows


def shares(task: Callable[[], None]) -> dict[str, float]:
    """Percent of a task's CPU time by check."""
    spent: Counter[str] = Counter()
    with ExitStack() as stack:
        for name, owner, function in CHUNK_CHECKS:
            stack.enter_context(patch.object(owner, function, timed(spent, name, getattr(owner, function))))
        began = process_time()
        task()
        whole = process_time() - began
    return {name: 100 * spent[name] / whole for name, _, _ in CHUNK_CHECKS}


def timed(spent: "Counter[str]", name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        began = process_time()
        try:
            return work(*arguments, **options)
        finally:
            spent[name] += process_time() - began

    return call


def of_training(workspace: Workspace) -> list[Row]:
    """What the checks of a step, and those of a segment, are of one step, in percent."""
    from lhcq.model.base import Base
    from lhcq.model.checkpoint import verified_step
    from lhcq.model.loop import train_segment
    from lhcq.model.model_cache import base_of
    from lhcq.records.commits import is_commit
    from lhcq.records.subsets import read_subset, split_of_run

    (job,) = (one for one in list_jobs(workspace) if one.kind == "train")
    spec = job.spec_of(TrainSpec)
    split = workspace.split(spec.split)
    subset = read_subset(split, "train", ["prompt", "label"])
    base = base_of(workspace, spec)
    ends: list[float] = []

    def train(n_steps: int) -> None:
        ends.clear()
        train_segment(
            base,
            prompts=subset["prompt"].to_pylist(),
            labels=subset["label"].to_numpy(),
            config=spec.config.model_copy(update={"max_steps": N_STEPS}),
            checkpoint=None,
            until_step=n_steps,
            on_step=lambda _: ends.append(process_time()) or True,  # type: ignore[func-returns-value]
        )

    say("checks: a step")
    train(N_STEPS)
    steps = [later - earlier for earlier, later in itertools.pairwise(ends)]
    asked = count_reads(Base, "own_logits", lambda: train(1))
    one_read = min(timeit.repeat(lambda: base.own_logits, number=10_000, repeat=5)) / 10_000
    checkpoint = workspace.checkpoint(job.name, spec.checkpoint_steps[-1])

    def segment() -> None:
        base_of(workspace, spec)
        split_of_run(split, job.name, spec.split_sha256)
        verified_step(checkpoint, base)
        is_commit(checkpoint)

    segment()  # what is hashed once a process
    began = process_time()
    for _ in range(AGAIN):
        segment()
    checks = (process_time() - began) / AGAIN
    note = f"{asked} times it is asked whose logits are taken; steps of {spec.config.batch_size} prompts"
    return [
        row("a training step", steps, "s"),
        row(
            "a step: its checks",
            [100 * asked * one_read / one for one in steps],
            "%",
            at_most=BOUND,
            note=note,
        ),
        row("a segment: its checks, of one step", [100 * checks / one for one in steps], "%", at_most=BOUND),
    ]


def count_reads(owner: type, name: str, work: Callable[[], None]) -> int:
    """How often an attribute of instances is read while something is done."""
    reads = 0

    def read(instance: Any) -> Any:
        nonlocal reads
        reads += 1
        return instance.__dict__[name]

    with patch.object(owner, name, property(read)):
        work()
    return reads
