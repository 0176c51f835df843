"""Why work on a job stopped, and whose it was: units that were given up, a command that left with its workers."""

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Self

from lhcq.errors import Damaged, LhcqError
from lhcq.frozen import Kept
from lhcq.records.jobs import RECORD, Job, directory_of, read_as, while_recorded
from lhcq.storage import remove_file, write_record
from lhcq.workspace import Workspace

FAILED = "failed"
STOPPED = "stopped.json"
"""Why nobody works for a job any more; it goes when somebody does."""
LOG_VARIABLE = "LHCQ_LOG"
"""Where a worker's log goes, for those who look for it."""


class Holder(Kept):
    """Who works, or worked, on a unit."""

    host: str
    pid: int
    since: float
    """Seconds since the epoch, by the holder's clock."""
    log: str | None
    """The worker's log file; None where what started the worker keeps its output."""

    @classmethod
    def this_process(cls) -> Self:
        """This process, from now on."""
        return cls(
            host=socket.gethostname(), pid=os.getpid(), since=time.time(), log=os.environ.get(LOG_VARIABLE)
        )


class Stopped(Kept):
    """Why a command that brought workers for a job ended before the job did."""

    message: str
    by: Holder
    """That command: `since` is when it ended."""


class Failure(Kept):
    """Why one unit of a job was given up."""

    unit: str
    message: str
    permanent: bool
    """The input or configuration is wrong; otherwise the attempts ran out."""
    attempts: int
    by: Holder
    traceback: str


def failures_of(workspace: Workspace, job: Job) -> list[Failure]:
    """The units that were given up, in order of name.

    One whose record is damaged is not given up any more: it is tried again, which is what a person would ask for.
    """
    failures = []
    for path in sorted((directory_of(workspace, job) / FAILED).glob("[!.]*.json")):
        with contextlib.suppress(FileNotFoundError, Damaged):
            failures.append(read_as(Failure, path))
    return failures


def record_failure(workspace: Workspace, job: Job, failure: Failure) -> None:
    """Keep why a unit was given up, unless its job is recorded no more: the name may mean another by now."""
    with while_recorded(workspace, job) as recorded:
        if recorded:
            write_record(failure_path(workspace, job, failure.unit), failure.model_dump())


def failure_path(workspace: Workspace, job: Job, unit: str) -> Path:
    """Where it stands why a unit was given up."""
    return directory_of(workspace, job) / FAILED / f"{unit.replace(':', '.')}.json"


def note_stop(workspace: Workspace, job: Job, message: str) -> None:
    """Keep why nobody works for an open job any more, where there is one and room to say so: `lhcq why` tells it."""
    directory = directory_of(workspace, job)
    if (directory / RECORD).exists():
        with contextlib.suppress(LhcqError, OSError):
            write_record(directory / STOPPED, Stopped(message=message, by=Holder.this_process()).model_dump())


def forget_stop(workspace: Workspace, job: Job) -> None:
    """Somebody works for the job again."""
    remove_file(directory_of(workspace, job) / STOPPED)


def stop_of(workspace: Workspace, job: Job) -> Stopped | None:
    """What ended the last command that had workers of its own for a job; None where it left no word."""
    with contextlib.suppress(FileNotFoundError, Damaged):
        return read_as(Stopped, directory_of(workspace, job) / STOPPED)
    return None
