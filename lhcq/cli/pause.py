"""`lhcq pause NAME`."""

import click

from lhcq.cli.options import answer, json_option, kind_option
from lhcq.cli.parameters import NameOf, example


@click.command("pause", epilog=example("lhcq pause lhco"))
@click.argument("name", type=NameOf("jobs"))
@kind_option
@json_option
def command(name: str, kind: str | None, as_json: bool) -> int:
    """Have nobody work for job NAME: a training stops within a step, other work at its next block.

    What is finished is kept, and `lhcq resume NAME` goes on. Checkpoints of a training are validated all the same.
    """
    from lhcq.cli.session import find_workspace
    from lhcq.records.job_control import set_wish
    from tasks.client import require_open

    workspace = find_workspace()
    job = require_open(workspace, name, kind)
    run = {"run": name} if job.kind == "train" else {}  # the name that scripts know
    set_wish(workspace, job, "pause")
    answer(
        as_json,
        {"job": job.title, "wish": "pause", **run},
        f"{job.title} will pause. `lhcq resume {name}` goes on.",
    )
    return 0
