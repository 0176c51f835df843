"""What the user wishes of a run, a file that the trainer polls at each step; and what the watchdog holds it for."""

import contextlib
from typing import Literal

from lhcq.records.run_state import open_pause
from lhcq.storage import read_json, write_json
from lhcq.workspace import Workspace

Wish = Literal["run", "pause", "cancel"]


def wish_of(workspace: Workspace, run: str) -> Wish:
    """The last wish; `run` when none was made, and `pause` while an alarm waits for a person."""
    wish: Wish = "run"
    with contextlib.suppress(FileNotFoundError):
        wish = read_json(workspace.run(run) / "wish.json")["wish"]
    return "pause" if wish == "run" and open_pause(workspace.run(run)) else wish


def set_wish(workspace: Workspace, run: str, wish: Wish) -> None:
    """Make a wish; the run follows it within a step."""
    write_json(workspace.run(run) / "wish.json", {"wish": wish})
