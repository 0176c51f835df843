"""What the user wishes of a job, a file that who works for it looks at; and what the watchdog holds a run for."""

import contextlib
from typing import Literal

from lhcq.frozen import Kept
from lhcq.records.jobs import Job, Outcome, read_as
from lhcq.records.run_state import current_course, open_pause
from lhcq.records.specs import TrainSpec
from lhcq.storage import write_record
from lhcq.workspace import Workspace

Wish = Literal["run", "pause", "cancel"]


class _Wished(Kept):
    """The file."""

    wish: Wish


def wish_of(workspace: Workspace, job: Job) -> Wish:
    """The last wish; `run` when none was made, and `pause` while an alarm of a run waits for a person."""
    wish: Wish = "run"
    with contextlib.suppress(FileNotFoundError):
        wish = read_as(_Wished, workspace.wish(job.kind, job.name)).wish
    if wish == "run" and isinstance(job.spec, TrainSpec) and open_pause(workspace.run(job.name)):
        return "pause"
    return wish


def is_held(workspace: Workspace, job: Job) -> bool:
    """Whether nothing of a job may be worked on. A run that is paused still has its validations."""
    return not isinstance(job.spec, TrainSpec) and wish_of(workspace, job) != "run"


def is_paused(workspace: Workspace, job: Job) -> bool:
    """Whether a job stands still until a person resumes it; not a run that has ended but for its test."""
    if wish_of(workspace, job) != "pause":
        return False
    if not isinstance(job.spec, TrainSpec):
        return True
    return not current_course(workspace.run(job.name)).ends(job.spec.checkpoint_steps[-1])


NOT_ENDED = ("open", "paused")
"""The states of a job that has no outcome."""


def state_of(workspace: Workspace, job: Job, outcome: Outcome | None) -> str:
    """How a job stands: as its `outcome` says; without one, `paused` or `open`."""
    if outcome is not None:
        return outcome.state
    return "paused" if is_paused(workspace, job) else "open"


def set_wish(workspace: Workspace, job: Job, wish: Wish) -> None:
    """Make a wish; a run follows it within a step, other work at its next block."""
    write_record(workspace.wish(job.kind, job.name), _Wished(wish=wish).model_dump())
