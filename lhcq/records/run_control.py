"""What the user wishes of a run, a file that the trainer polls at each step; and what the watchdog holds it for."""

import contextlib
from typing import Literal

from lhcq.config import Frozen
from lhcq.records.jobs import Job
from lhcq.records.run_state import current_course, open_pause
from lhcq.records.specs import TrainSpec
from lhcq.storage import read_json, write_json
from lhcq.workspace import RunPaths, Workspace

Wish = Literal["run", "pause", "cancel"]


class _Wished(Frozen):
    """The file."""

    wish: Wish


def wish_of(workspace: Workspace, run: str) -> Wish:
    """The last wish; `run` when none was made, and `pause` while an alarm waits for a person."""
    run_dir = workspace.run(run)
    wish: Wish = "run"
    with contextlib.suppress(FileNotFoundError):
        wish = _Wished.checked(**read_json(RunPaths(run_dir).wish)).wish
    return "pause" if wish == "run" and open_pause(run_dir) else wish


def is_paused(workspace: Workspace, job: Job) -> bool:
    """Whether a training stands still until a person resumes it; not where it has ended and only the test is left."""
    if not isinstance(job.spec, TrainSpec) or wish_of(workspace, job.name) != "pause":
        return False
    return not current_course(workspace.run(job.name)).ends(job.spec.checkpoint_steps[-1])


def set_wish(workspace: Workspace, run: str, wish: Wish) -> None:
    """Make a wish; the run follows it within a step."""
    write_json(RunPaths(workspace.run(run)).wish, _Wished(wish=wish).model_dump())
