"""What the fan-outs share: a task a part, and the merge that ends the job."""

import shutil
from collections.abc import Callable
from pathlib import Path

from lhcq.errors import RowsMissing
from lhcq.workspace import Workspace
from tasks.app import workspace
from tasks.engine.execute import perform
from tasks.jobs.leases import Lease
from tasks.jobs.planner import finished_parts, merge_unit, part_path, part_unit
from tasks.jobs.progress import count_part, forget_count
from tasks.jobs.store import Failure, Job, Kind, end_job, end_with_failures, failures_of, find_job

MakePart = Callable[[Job, int, Path, Lease], None]
Merge = Callable[[Workspace, Job, dict[int, Path], dict[int, Failure]], str]
"""Merges the parts that stand, by index, without those that were given up; `RowsMissing` where it cannot."""


def perform_part(kind: Kind, name: str, index: int, make: MakePart) -> str:
    """Make part `index` of a job, unless it stands."""
    place = workspace()
    job = find_job(place, kind, name)
    if job is None or not 0 <= index < job.parts:  # a message of an earlier job of that name
        return "closed"

    def work(place: Workspace, job: Job, held: Lease) -> None:
        make(job, index, part_path(place, job, index), held)
        count_part(job, index)

    return perform(
        kind, part_unit(job, index), work, done=lambda place, job: part_path(place, job, index).exists()
    )


def perform_merge(kind: Kind, name: str, merge: Merge) -> str:
    """Merge a job's parts and end it; with parts still to come, leave it for later.

    A merge may run twice: the second finds the final name taken, and only writes the outcome.
    """
    place = workspace()
    job = find_job(place, kind, name)
    if job is None:
        return "closed"
    finished = finished_parts(place, job)
    failures = failures_of(place, job)
    given_up = {failure.unit: failure for failure in failures}
    missing = sorted(set(range(job.parts)) - finished)
    lost = {index: given_up[key] for index in missing if (key := part_unit(job, index).key) in given_up}
    if len(lost) < len(missing):
        return "waiting"

    def work(place: Workspace, job: Job, _: Lease) -> None:
        if any(failure.permanent for failure in failures):
            end_with_failures(place, job, failures)
            return
        try:
            message = merge(place, job, {index: part_path(place, job, index) for index in finished}, lost)
        except RowsMissing as error:
            end_job(place, job, "incomplete", str(error))
            return
        end_job(place, job, "done", message)
        shutil.rmtree(place.job(kind, name) / "parts", ignore_errors=True)
        forget_count(job)

    return perform(kind, merge_unit(job), work, done=lambda *_: False)
