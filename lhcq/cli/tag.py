"""`lhcq tag RUN STEP TAG`."""

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import NameOf, example


@click.command("tag", epilog=example("lhcq tag first best v1"))
@click.argument("run", type=NameOf("runs"))
@click.argument("step")
@click.argument("tag")
@json_option
def command(run: str, step: str, tag: str, as_json: bool) -> int:
    """Give the checkpoint of RUN at STEP a name that stays, such as v0.1.

    STEP is a number, another tag, best or latest. A tagged checkpoint is never removed, and the tag stands for it
    wherever a command takes a step.
    """
    from lhcq.cli.session import find_workspace
    from lhcq.records.tags import resolve_step, tag_step

    run_dir = find_workspace().run(run)
    number = resolve_step(run_dir, step)
    tag_step(run_dir, number, tag)
    answer(as_json, {"run": run, "step": number, "tag": tag}, f"{tag} is step {number} of {run}.")
    return 0
