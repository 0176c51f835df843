"""What is left to do for a job: a pure reading of the workspace, used to publish at first and to heal later."""

from typing import NamedTuple

from lhcq.records.failures import failures_of
from lhcq.records.job_control import is_held
from lhcq.records.jobs import Job
from lhcq.workspace import Workspace
from tasks.jobs.kinds import chunk_unit, finished_chunks, first_round, kind_of, merge_unit
from tasks.jobs.units import Unit


def pending_units(workspace: Workspace, job: Job) -> list[Unit]:
    """The units whose turn it is, without those that were given up. Empty: nothing can be done,
    or may be, while the job is paused."""
    if is_held(workspace, job):
        return []
    kind = kind_of(job)
    given_up = {failure.unit for failure in failures_of(workspace, job)}
    units = [unit for unit in kind.plan(workspace, job) if unit.key not in given_up]
    if not units and kind.fans_out and merge_unit(job).key not in given_up:
        return [merge_unit(job)]
    return units


class Chunks(NamedTuple):
    """How far a fan-out is."""

    pending: list[int]
    """Indices of the chunks whose turn it is: without output, not given up, of the first round that is not done;
    ascending."""
    finished: int


def pending_chunks(workspace: Workspace, job: Job) -> Chunks:
    """What is left of a fan-out, as numbers: a job may have a million chunks. Nothing where there is no fan-out."""
    if not kind_of(job).fans_out or is_held(workspace, job):
        return Chunks([], 0)
    finished = finished_chunks(workspace, job)
    given_up = {failure.unit for failure in failures_of(workspace, job)}
    pending = first_round(job, [index for index in range(job.parts) if index not in finished])
    if given_up:
        pending = [index for index in pending if chunk_unit(job, index).key not in given_up]
    return Chunks(pending, len(finished))
