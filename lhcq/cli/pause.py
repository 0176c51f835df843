"""`lhcq pause RUN`."""

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import NameOf, example


@click.command("pause", epilog=example("lhcq pause first"))
@click.argument("run", type=NameOf("runs"))
@json_option
def command(run: str, as_json: bool) -> int:
    """Stop training RUN within a step; `lhcq resume` goes on from its newest checkpoint."""
    from lhcq.cli.session import find_workspace
    from lhcq.records.run_control import set_wish
    from tasks.client import require_open

    workspace = find_workspace()
    require_open(workspace, run)
    set_wish(workspace, run, "pause")
    answer(as_json, {"run": run, "wish": "pause"}, f"{run} will pause. `lhcq resume {run}` goes on.")
    return 0
