"""`lhcq ask RUN`."""

import dataclasses
from itertools import takewhile
from typing import TYPE_CHECKING

import click

from lhcq.cli.options import answer, json_option, step_option
from lhcq.cli.parameters import NameOf, example
from lhcq.errors import BadInput

if TYPE_CHECKING:
    from lhcq.results import Answer


class _Numbers(click.Command):
    """Takes all that stands between `--numbers` and the next option as its value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The arguments, with the numbers as one of them."""
        if "--numbers" in args:
            at = args.index("--numbers") + 1
            taken = list(takewhile(lambda one: not one.startswith("--"), args[at:]))
            args = [*args[:at], " ".join(taken), *args[at + len(taken) :]]
        return super().parse_args(ctx, args)


@click.command("ask", cls=_Numbers, epilog=example("lhcq ask first --row 17"))
@click.argument("run", type=NameOf("runs"))
@click.option("--row", type=click.IntRange(min=0), help="An event by its row in the source of a dataset.")
@click.option(
    "--dataset", type=NameOf("datasets"), help="The dataset of --row.  [default: what RUN was trained on]"
)
@click.option("--numbers", metavar="NUMBER...", help="An event by its numbers: 3240 413 49 230 1.3 5.0, say.")
@click.option("--prompt", help="An event by its prompt, such as '324 413 49 23 13 50:'.")
@step_option
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
    from lhcq.cli.session import find_workspace, say
    from lhcq.model.sources import require_training

    require_training()
    told = load(run, workspace=find_workspace()).ask(
        prompt,
        numbers=None if numbers is None else _read(numbers),
        row=row,
        dataset=dataset,
        step=step,
        say=say,
    )
    answer(as_json, dataclasses.asdict(told), _said(told, dataset))
    return 0


def _read(numbers: str) -> list[float]:
    found = []
    for one in numbers.split():
        try:
            found.append(float(one))
        except ValueError:
            raise BadInput(
                f"--numbers: {one[:40]!r} is no number. Write them with blanks between, such as '3240 413 49'."
            ) from None
    return found


def _said(told: "Answer", dataset: str | None) -> str:
    """The answer, and below it what was asked."""
    lines = [f"{told.label} (P(signal) = {told.p_signal:.3g})", f"  prompt: {told.prompt}"]
    if told.generated != told.label:
        lines.append(f"  in words the model says {told.generated or 'neither label'}")
    if told.row is not None:
        where = f"row {told.row}" + (f" of {dataset}" if dataset else "")
        truth = f"{told.truth} by its label" if told.truth else "without a label"
        of = f", of the {told.subset} subset" if told.subset else ""
        lines.append(f"  {where}: {truth}{of}")
    return "\n".join(lines)
