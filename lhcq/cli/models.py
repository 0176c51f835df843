"""Which model a verb takes: the one that is asked for, or the default, after it has been asked for if it is large."""

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lhcq.workspace import Workspace


def chosen_model(asked: str | None, workspace: "Workspace") -> str | None:
    """The model that is asked for, or the default one; None where nothing that trains is installed.

    A default that would have to be downloaded, and is large, is a choice: on a terminal it is asked for, elsewhere
    refused with what to say (`BadInput`).
    """
    from lhcq.extras import missing_for_training
    from lhcq.model.sources import GPU_DEFAULT, default_at_hand, default_model, is_at_hand

    if asked is not None:
        return asked
    if missing_for_training() is not None:
        return None
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return default_at_hand(workspace)
    name = default_model()
    if name == GPU_DEFAULT and not is_at_hand(name, workspace):
        _ask(name)
    return name


def _ask(name: str) -> None:
    """Ask for a download; raises `click.Abort` where that is declined."""
    from lhcq.model.sources import said_size

    click.confirm(f"lhcq: {name} is not here yet. Download {said_size(name)}?", abort=True, err=True)
