"""On how many CPU threads a job's language model computes: chosen once, and kept by whoever goes on with the job.

torch cuts a long sum into a piece a thread, so another number of threads adds in another order, and rounds otherwise.
"""

import contextlib
import os
from pathlib import Path

from pydantic import Field

from lhcq.frozen import Kept
from lhcq.records.jobs import Job, directory_of, read_as
from lhcq.storage import staged_file, to_record
from lhcq.workspace import Workspace


class _Threads(Kept):
    """The file."""

    threads: int = Field(ge=1)


def threads_of(workspace: Workspace, job: Job) -> int | None:
    """The number that a job keeps; None before it began, and where a GPU computes."""
    with contextlib.suppress(FileNotFoundError):
        return read_as(_Threads, _path(workspace, job)).threads
    return None


def keep_threads(workspace: Workspace, job: Job, threads: int) -> int:
    """Have a job keep that number, unless it has one; the one that it keeps."""
    kept = threads_of(workspace, job)
    if kept is None:
        with staged_file(_path(workspace, job)) as temporary:
            temporary.write_text(to_record(_Threads(threads=threads).model_dump()), encoding="utf-8")
        kept = threads_of(workspace, job) or threads
    return kept


def beyond_cores(job: Job, threads: int) -> str:
    """A word where a job keeps more threads than this process has cores; empty where it does not."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads <= cores:
        return ""
    return (
        f"{job.title} was begun with {threads} threads and keeps them, for the same bytes; here it has {cores} "
        f"core{'s' if cores > 1 else ''}, so it takes longer than where it was begun"
    )


def _path(workspace: Workspace, job: Job) -> Path:
    """Of this job alone: a worker that is late may still be at an earlier one of that name."""
    return directory_of(workspace, job) / f"threads-{job.identity}.json"
