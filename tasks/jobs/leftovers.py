"""What nobody needs any more: chunks of jobs that are over, what was cut off while written or removed, old logs."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lhcq.errors import LhcqError
from lhcq.records.jobs import Job, list_jobs, outcome_of, unrecorded
from lhcq.storage import REMOVED, TEMPORARY, exclusive, explained_os_errors, remove_file, remove_tree, size_of
from lhcq.workspace import Workspace
from tasks.jobs.kinds import chunks_of, kind_of

Why = Literal["chunks of a job that is over", "chunks of an earlier request", "cut off", "old log"]
DAY_SECONDS = 24 * 3600.0
_CUT_OFF_SECONDS = DAY_SECONDS
"""What was written to in this time may be somebody's, on whatever host; nothing takes longer between two writes."""
_OVER = ("done", "cancelled")
"""States after which no request goes on with the chunks that stand."""


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something to remove."""

    path: Path
    why: Why
    bytes: int


def find_leftovers(workspace: Workspace, *, log_days: float) -> list[Leftover]:
    """Everything that may go; of logs what was written to in the last `log_days` stays."""
    found = [
        *_chunks(workspace),
        *((path, "cut off") for path in _cut_off(workspace)),
        *((path, "old log") for path in _old_logs(workspace, log_days)),
    ]
    sized = [Leftover(path=path, why=why, bytes=size_of(path)) for path, why in found]
    return [one for one in sized if one.bytes or one.why != "old log"]


def prune(workspace: Workspace, *, log_days: float) -> list[Leftover]:
    """Remove what may go; gives what that was."""
    if not workspace.root.is_dir():
        return []
    with exclusive(workspace.jobs_lock):  # a job of the same name may be asked for meanwhile
        leftovers = find_leftovers(workspace, log_days=log_days)
        for one in leftovers:
            if one.why == "old log" and one.path.suffix == ".log":
                _empty(one.path)
            elif one.path.is_dir() and not one.path.is_symlink():
                remove_tree(one.path)
            else:
                remove_file(one.path)
    return leftovers


def _chunks(workspace: Workspace) -> Iterator[tuple[Path, Why]]:
    for job in list_jobs(workspace):
        if not kind_of(job).fans_out:
            continue
        ours = chunks_of(workspace, job)
        try:
            over = _is_over(workspace, job)
        except LhcqError:  # whoever mends the record may need them
            continue
        if over and ours.parent.exists():
            yield ours.parent, "chunks of a job that is over"
        elif not over:
            for path in sorted(ours.parent.glob("[!.]*")):
                if path != ours:
                    yield path, "chunks of an earlier request"


def _is_over(workspace: Workspace, job: Job) -> bool:
    outcome = outcome_of(workspace, job)
    return outcome is not None and outcome.state in _OVER


def _cut_off(workspace: Workspace) -> Iterator[Path]:
    """What was being written, or removed, by somebody who died."""
    now = time.time()
    for directory, names, files in os.walk(workspace.root):
        going = [name for name in (*names, *files) if name.startswith(".") and name.endswith(TEMPORARY)]
        for name in sorted(going):
            path = Path(directory) / name
            if name.endswith(REMOVED) or now - _touched(path) > _CUT_OFF_SECONDS:
                yield path
        names[:] = [
            name for name in names if name not in going and Path(directory) / name != workspace.broker
        ]
    for path in [*sorted(workspace.meetings.glob("*")), *unrecorded(workspace)]:
        if now - _touched(path) > _CUT_OFF_SECONDS:
            yield path


def _touched(path: Path) -> float:
    """When something below was last written to; now where it has gone."""
    try:
        times = [path.lstat().st_mtime]
        if path.is_dir() and not path.is_symlink():
            times += [_touched(below) for below in path.iterdir()]
        return max(times)
    except OSError:
        return time.time()


def _old_logs(workspace: Workspace, days: float) -> Iterator[Path]:
    horizon = time.time() - days * DAY_SECONDS
    for path in sorted(workspace.logs.glob("*.log*")):
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_mtime < horizon:
                yield path


def _empty(log: Path) -> None:
    """Empty a log: a worker that is silent may have it open, and goes on at its beginning, since it appends."""
    with explained_os_errors(log), contextlib.suppress(FileNotFoundError):
        os.truncate(log, 0)
