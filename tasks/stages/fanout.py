"""What the fan-outs share: a task a chunk, and the merge that ends the job."""

import contextlib
import logging
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import redis

from lhcq.errors import ChunkAgain, DamagedChunk, LhcqError, RowsMissing
from lhcq.records.failures import Failure, failures_of
from lhcq.records.jobs import Job, end_job, find_job, while_recorded, write_outcome
from lhcq.storage import clear_set_aside, set_aside
from lhcq.workspace import Workspace
from tasks.app import own_workspace
from tasks.engine.execute import Work, perform
from tasks.engine.publish import publish_rest
from tasks.jobs.kinds import chunk_path, chunk_unit, chunks_of, kind_of, merge_unit, missing_chunks
from tasks.jobs.leases import Lease
from tasks.jobs.planner import pending_chunks
from tasks.jobs.store import OpenJob, end_with_failures
from tasks.jobs.units import Unit

log = logging.getLogger(__name__)

MakeChunk = Callable[[Workspace, Job, int, Path, Lease], None]
"""Writes the chunk of this index to a path."""
Merge = Callable[[Workspace, Job, dict[int, Path], dict[int, Failure]], str]
"""Merges the chunks that stand, by index, without those that were given up; `RowsMissing` where it cannot."""


def chunk_work(make: MakeChunk) -> Work:
    """The work of a task that makes one chunk."""

    def work(workspace: Workspace, job: Job, unit: Unit, held: Lease) -> None:
        index = unit.number or 0
        try:
            make(workspace, job, index, chunk_path(workspace, job, index), held)
        except DamagedChunk as error:  # one of the round before, which this one reads
            raise _discarded(workspace, job, error) from error

    return work


def merge_work(merge: Merge) -> Work:
    """The work of the task that merges all chunks and ends the job."""

    def work(workspace: Workspace, job: Job, _: Unit, held: Lease) -> None:
        held.check()
        failures = failures_of(workspace, job)
        if any(failure.permanent for failure in failures):
            end_with_failures(workspace, job, failures)
            return
        missing = missing_chunks(workspace, job)
        finished = sorted(set(range(job.parts)).difference(missing))
        chunks = {index: chunk_path(workspace, job, index) for index in finished}
        try:
            message = merge(workspace, job, chunks, _lost(workspace, job, missing))
        except RowsMissing as error:
            end_job(workspace, job, "incomplete", str(error))
            return
        except DamagedChunk as error:
            raise _discarded(workspace, job, error) from error
        with while_recorded(workspace, job) as recorded:  # else these could be a new job's of the same name
            if not recorded:
                return
            write_outcome(workspace, job, "done", message)
            # The removal of many files takes a disk a while, for which nobody should wait: the lease ends before it.
            with contextlib.suppress(OSError):  # `lhcq prune` finds it
                set_aside(chunks_of(workspace, job).parent, workspace.jobs)

    return work


def _discarded(workspace: Workspace, job: Job, error: DamagedChunk) -> LhcqError:
    """Have a damaged chunk made again, it alone: what does not stand is left to do."""
    stem = error.path.name.partition(".")[0] if error.path else ""
    if not stem.isdecimal() or error.path != chunk_path(workspace, job, int(stem)):
        return error
    error.path.unlink(missing_ok=True)
    log.warning("%s: chunk %d is made again: %s", job.title, int(stem), error)
    return ChunkAgain(f"{job.title}: chunk {int(stem)} was damaged and is made again")


def perform_chunk(kind: str, name: str, index: int, make: MakeChunk) -> str:
    """Make chunk `index` of a job, unless it stands.

    One that needs a chunk of the round before which does not stand, or was found damaged, waits for it: that round is
    published again, and its end publishes this one.
    """
    workspace = own_workspace()
    job = find_job(workspace, kind, name)
    if job is None or not 0 <= index < job.parts:  # a message of an earlier job of that name
        return "closed"
    status: str = "waiting"
    if not _comes_early(workspace, job, index):
        status = perform(
            chunk_unit(job, index),
            chunk_work(make),
            done=lambda workspace, job: chunk_path(workspace, job, index).exists(),
        )
    if status == "waiting" or (status == "again" and _comes_early(workspace, job, index)):
        try:
            publish_rest(workspace, job)
        except redis.RedisError as error:
            log.warning("%s: the broker is away, so this waits for the reconciler: %s", job.title, error)
    return status


def _comes_early(workspace: Workspace, job: Job, index: int) -> bool:
    """Whether a chunk of an earlier round than that of chunk `index` does not stand, of a job that is open."""
    begin = max((end for end in accumulate(kind_of(job).rounds(job)) if end <= index), default=0)
    if not begin or OpenJob(workspace, job).ended():
        return False
    missing = missing_chunks(workspace, job)
    return bool(missing) and missing[0] < begin


def perform_merge(kind: str, name: str, merge: Merge) -> str:
    """Merge a job's chunks and end it; with chunks still to come, leave it for later.

    A merge may run twice: the second finds the final name taken, and only writes the outcome.
    """
    workspace = own_workspace()
    job = find_job(workspace, kind, name)
    if job is None:
        return "closed"
    status: str = "waiting"
    if not pending_chunks(workspace, job).pending:
        status = perform(merge_unit(job), merge_work(merge), done=lambda *_: False)
    clear_set_aside(workspace.jobs)  # and what a worker left that was killed meanwhile
    return status


def _lost(workspace: Workspace, job: Job, missing: list[int]) -> dict[int, Failure]:
    """Those of the missing chunks that were given up, by index."""
    given_up = {failure.unit: failure for failure in failures_of(workspace, job)}
    return {index: given_up[key] for index in missing if (key := chunk_unit(job, index).key) in given_up}
