"""`lhcq ask RUN`."""

import dataclasses
from typing import TYPE_CHECKING

import click

from lhcq.cli.options import answer, json_option

if TYPE_CHECKING:
    from lhcq.results import Answer


@click.command("ask")
@click.argument("run")
@click.option("--row", type=click.IntRange(min=0), help="An event: its row in the source of a dataset.")
@click.option("--dataset", help="The dataset of --row. Default: what RUN was trained on.")
@click.option("--numbers", help="An event's own numbers, one after the other, as '3240 413 49 230 1.3 5'.")
@click.option("--prompt", help="An event as a prompt, such as '324 413 49 23 13 50:'.")
@click.option("--step", default="best", show_default=True, help="A step of RUN, a tag, best or latest.")
@json_option
def command(
    run: str,
    row: int | None,
    dataset: str | None,
    numbers: str | None,
    prompt: str | None,
    step: str,
    as_json: bool,
) -> int:
    """Ask a checkpoint of RUN about one event: the label, and P(signal).

    The event is a row of a dataset, a prompt, or the prompt's numbers: in its order, masses and momenta in GeV, the
    rest as they are, `nan` for what the event does not have. Which numbers those are is said where their count is
    another, and in the card of an export. It is asked in this process, without workers.
    """
    from lhcq.api import load
    from lhcq.cli.session import open_workspace, say
    from lhcq.model.sources import require_training

    require_training()
    asked = load(run, place=open_workspace())
    say("loading the model")
    told = asked.ask(
        prompt, numbers=_read(numbers) if numbers is not None else None, row=row, dataset=dataset, step=step
    )
    answer(as_json, dataclasses.asdict(told), _said(told, dataset))
    return 0
