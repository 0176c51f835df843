"""What the user wishes of a run: a file that the trainer polls at each step."""

import contextlib
from typing import Literal

from lhcq.workspace import Workspace, read_json, write_json

Wish = Literal["run", "pause", "cancel"]


def wish_of(workspace: Workspace, run: str) -> Wish:
    """The last wish; `run` when none was made."""
    with contextlib.suppress(FileNotFoundError):
        wish: Wish = read_json(workspace.run(run) / "wish.json")["wish"]
        return wish
    return "run"


def set_wish(workspace: Workspace, run: str, wish: Wish) -> None:
    """Make a wish; the run follows it within a step."""
    write_json(workspace.run(run) / "wish.json", {"wish": wish})
