"""What the fan-outs share: a task a chunk, and the merge that ends the job."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from lhcq.errors import ChunkAgain, DamagedChunk, LhcqError, RowsMissing
from lhcq.records.jobs import Failure, Job, directory_of, end_job, failures_of, find_job
from lhcq.workspace import Workspace
from tasks.app import own_workspace
from tasks.engine.execute import Work, perform
from tasks.jobs.kinds import chunk_path, chunk_unit, merge_unit, missing_chunks
from tasks.jobs.leases import Lease
from tasks.jobs.planner import pending_chunks
from tasks.jobs.store import end_with_failures
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
        make(workspace, job, index, chunk_path(workspace, job, index), held)

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
            raise _discarded(job, error, chunks) from error
        end_job(workspace, job, "done", message)
        shutil.rmtree(directory_of(workspace, job) / "parts", ignore_errors=True)

    return work


def _discarded(job: Job, error: DamagedChunk, chunks: dict[int, Path]) -> LhcqError:
    """Have a damaged chunk made again, it alone: what does not stand is left to do."""
    for index, path in chunks.items():
        if path == error.path:
            path.unlink(missing_ok=True)
            log.warning("%s: chunk %d is made again: %s", job.title, index, error)
            return ChunkAgain(f"{job.title}: chunk {index} was damaged and is made again")
    return error


def perform_chunk(kind: str, name: str, index: int, make: MakeChunk) -> str:
    """Make chunk `index` of a job, unless it stands."""
    job = find_job(own_workspace(), kind, name)
    if job is None or not 0 <= index < job.parts:  # a message of an earlier job of that name
        return "closed"
    return perform(
        chunk_unit(job, index),
        chunk_work(make),
        done=lambda workspace, job: chunk_path(workspace, job, index).exists(),
    )


def perform_merge(kind: str, name: str, merge: Merge) -> str:
    """Merge a job's chunks and end it; with chunks still to come, leave it for later.

    A merge may run twice: the second finds the final name taken, and only writes the outcome.
    """
    workspace = own_workspace()
    job = find_job(workspace, kind, name)
    if job is None:
        return "closed"
    if pending_chunks(workspace, job).pending:
        return "waiting"
    return perform(merge_unit(job), merge_work(merge), done=lambda *_: False)


def _lost(workspace: Workspace, job: Job, missing: list[int]) -> dict[int, Failure]:
    """Those of the missing chunks that were given up, by index."""
    given_up = {failure.unit: failure for failure in failures_of(workspace, job)}
    return {index: given_up[key] for index in missing if (key := chunk_unit(job, index).key) in given_up}
