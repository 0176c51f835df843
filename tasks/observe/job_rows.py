"""The jobs of a workspace as rows: what they are, whose, how far they got, how they ended."""

from pathlib import Path
from typing import Any

from lhcq.errors import LhcqError
from lhcq.records.job_control import state_of
from lhcq.records.jobs import OUTCOME, RECORD, Job, outcome_of, place_of, read_jobs
from lhcq.records.run_state import alarms_of
from lhcq.workspace import Workspace
from tasks.jobs.progress import progress_of

Row = dict[str, Any]
_Seen = tuple[tuple[int, int, int] | None, ...]


class JobRows:
    """Reads them again and again; of a job that has ended its records are read once, as long as they stay."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._ended: dict[str, tuple[_Seen, Row]] = {}
        """By place: what its records looked like, and its row."""

    def read(self) -> list[Row]:
        """A row a job, oldest first, then those whose records are damaged: these hide no others."""
        root = self._workspace.root
        kept = {place: one for place, one in self._ended.items() if _seen(root / place) == one[0]}
        jobs, damaged = read_jobs(self._workspace, but=kept)
        rows = [row for _, row in kept.values()]
        for job in jobs:
            place = place_of(self._workspace, job)
            seen = _seen(root / place)  # before it is read: what changes meanwhile is read again
            rows.append(row_of(self._workspace, job))
            if rows[-1]["finished"] is not None:
                kept[place] = (seen, rows[-1])
        self._ended = kept
        rows.sort(key=lambda row: (row["created"], row["kind"], row["name"]))
        return rows + [damaged_row(one.kind, one.name, one.message) for one in damaged]


def row_of(workspace: Workspace, job: Job) -> Row:
    """The row of a job; of one whose records are damaged, what is wrong with them."""
    try:
        return _row(workspace, job)
    except (LhcqError, OSError) as error:
        known = {
            "owner": job.owner,
            "priority": job.priority,
            "max_parallel": job.max_parallel,
            "created": job.created,
        }
        return {**damaged_row(job.kind, job.name, str(error)), **known}


def damaged_row(kind: str, name: str, message: str) -> Row:
    """The row of a job of which nothing else can be read."""
    unknown = dict.fromkeys(
        ("owner", "priority", "max_parallel", "done", "total", "unit", "created", "finished")
    )
    return {
        "kind": kind,
        "name": name,
        "state": "damaged",
        **unknown,
        "note": "",
        "message": message,
        "alarms": [],
    }


def _row(workspace: Workspace, job: Job) -> Row:
    alarms = alarms_of(workspace.run(job.name)) if job.kind == "train" else []
    outcome = outcome_of(workspace, job)
    at = progress_of(workspace, job)
    return {
        "kind": job.kind,
        "name": job.name,
        "owner": job.owner,
        "priority": job.priority,
        "max_parallel": job.max_parallel,
        "state": state_of(workspace, job, outcome),
        "done": at.done,
        "total": at.total,
        "unit": at.unit,
        "note": at.note,
        "created": job.created,
        "finished": outcome.finished if outcome else None,
        "message": outcome.message if outcome else "",
        "alarms": [alarm.model_dump(exclude={"after", "round"}) for alarm in alarms],
    }


def _seen(directory: Path) -> _Seen:
    """What changes with the records of a job that has ended: the job, its outcome."""
    return tuple(_state(directory / name) for name in (RECORD, OUTCOME))


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
