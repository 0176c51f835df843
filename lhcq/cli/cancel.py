"""`lhcq cancel NAME`."""

import click

from lhcq.cli.options import answer, json_option, kind_option
from lhcq.cli.parameters import NameOf, example


@click.command("cancel", epilog=example("lhcq cancel lhco"))
@click.argument("name", type=NameOf("jobs"))
@kind_option
@json_option
def command(name: str, kind: str | None, as_json: bool) -> int:
    """End job NAME for good: a training within a step, other work at its next block.

    Checkpoints and validations of a training stay. Of other jobs nothing is made; `lhcq prune` removes their chunks.
    """
    from lhcq.cli.session import find_workspace
    from lhcq.records.job_control import set_wish
    from lhcq.records.jobs import end_job
    from tasks.client import require_open

    workspace = find_workspace()
    job = require_open(workspace, name, kind)
    run = {"run": name} if job.kind == "train" else {}  # the name that scripts know
    set_wish(workspace, job, "cancel")
    end_job(workspace, job, "cancelled", f"{job.title} was cancelled.")
    stays = " Its checkpoints stay." if job.kind == "train" else ""
    answer(as_json, {"job": job.title, "wish": "cancel", **run}, f"{job.title} is cancelled.{stays}")
    return 0
