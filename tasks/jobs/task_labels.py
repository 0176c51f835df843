"""What a message is about, in words for Flower's list of tasks: dataset and rows, run and step.

They travel as the representation of keyword arguments that a task does not have, which Flower shows and searches.
"""

import contextlib
from collections.abc import Callable

from lhcq.errors import LhcqError
from lhcq.records.run_state import reached_step
from lhcq.workspace import Workspace
from tasks.jobs.planner import Unit
from tasks.jobs.store import Job

Caption = dict[str, str]


def captioner(workspace: Workspace, job: Job) -> Callable[[Unit], Caption]:
    """Tells of each unit of `job` what it is about; nothing where a record does not say."""
    try:
        rows = part_rows(job)
    except LhcqError:
        rows = []

    def caption(unit: Unit) -> Caption:
        with contextlib.suppress(LhcqError, IndexError):
            return _caption(workspace, job, unit, rows)
        return {}

    return caption


def part_rows(job: Job) -> list[tuple[str, int, int]]:
    """What each part of a clustering or a prediction is a stretch of, and the rows [start, stop) of it."""
    if job.kind == "cluster":
        from tasks.stages.cluster import chunks_of

        return [(job.name, chunk.start, chunk.stop) for chunk in chunks_of(job)]
    if job.kind == "predict":
        from tasks.stages.predict import REFERENCE, stretches_of

        stretches = stretches_of(job.spec)
        return [
            *((REFERENCE, chunk.start, chunk.stop) for chunk in stretches.reference),
            *((str(job.spec["dataset"]), chunk.start, chunk.stop) for chunk in stretches.events),
        ]
    return []


def _caption(workspace: Workspace, job: Job, unit: Unit, rows: list[tuple[str, int, int]]) -> Caption:
    if job.kind == "train":
        return {"run": job.name, **_steps(workspace, job, unit)}
    if job.kind == "prepare":
        return {"split": job.name, "dataset": str(job.spec["dataset"])}
    if not unit.task.endswith("_part"):
        return {job.kind: job.name, "parts": str(job.parts)}
    index = int(unit.args[1])
    if not rows:
        return {job.kind: job.name, "part": f"{index + 1} of {job.parts}"}
    source, start, stop = rows[index]
    return {"dataset": source, "rows": f"{start}-{stop - 1}"}


def _steps(workspace: Workspace, job: Job, unit: Unit) -> Caption:
    """The steps that a unit trains, or the checkpoint that it scores."""
    if len(unit.args) > 1:
        return {"step": str(unit.args[1])}
    if unit.task != "lhcq.train_segment":
        return {}
    steps: list[int] = job.spec["checkpoint_steps"]
    reached = reached_step(workspace.run(job.name))
    until = min((step for step in steps if step > reached), default=reached)
    return {"steps": f"{reached + 1}-{until}"}
