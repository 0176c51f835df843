"""`lhcq cancel RUN`."""

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import NameOf, example


@click.command("cancel", epilog=example("lhcq cancel first"))
@click.argument("run", type=NameOf("runs"))
@json_option
def command(run: str, as_json: bool) -> int:
    """End training RUN for good; its checkpoints and validations stay."""
    from lhcq.cli.session import find_workspace
    from lhcq.records.jobs import end_job
    from lhcq.records.run_control import set_wish
    from tasks.client import require_open

    workspace = find_workspace()
    job = require_open(workspace, run)
    set_wish(workspace, run, "cancel")
    end_job(workspace, job, "cancelled", f"{run} was cancelled.")
    answer(as_json, {"run": run, "wish": "cancel"}, f"{run} is cancelled. Its checkpoints stay.")
    return 0
