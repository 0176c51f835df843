"""Which model a verb takes: the one that is asked for, or the default, after it has been said or asked."""

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lhcq.workspace import Workspace


def chosen_model(asked: str | None, workspace: "Workspace") -> str | None:
    """The model that is asked for, or the default one, which is then said; None where nothing that trains is here.

    A default that would have to be downloaded, and is large, is a choice: on a terminal it is asked for, elsewhere
    refused with what to say (`BadInput`).
    """
    import importlib.util

    from lhcq.cli.session import say
    from lhcq.model.sources import GPU_DEFAULT, SMOLLM2, default_model, is_at_hand

    if asked is not None:
        return asked
    if importlib.util.find_spec("torch") is None:
        return None
    name = default_model()
    if name == GPU_DEFAULT and not is_at_hand(name, workspace):
        _ask(name)
    why = "since there is a GPU here" if name == GPU_DEFAULT else "since there is no GPU here"
    other = SMOLLM2 if name == GPU_DEFAULT else GPU_DEFAULT
    say(f"the model is {name}, {why}; --model takes another, such as {other}")
    return name


def _ask(name: str) -> None:
    """Ask for a download; raises `click.Abort` where that is declined, `BadInput` where nobody can be asked."""
    from lhcq.errors import BadInput
    from lhcq.model.sources import SMOLLM2, download_size

    size = download_size(name)
    much = "some 15 GB" if size is None else f"{size / 1e9:.1f} GB"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise BadInput(
            f"the default model with a GPU is {name}, of which {much} would be downloaded. Say --model {name} to "
            f"have that, or --model {SMOLLM2} for one of 0.3 GB."
        )
    click.confirm(f"lhcq: {name} is not here yet. Download {much}?", abort=True, err=True)
