"""`lhcq report RUN`."""

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import NameOf, example


@click.command("report", epilog=example("lhcq report first"))
@click.argument("run", type=NameOf("runs"))
@json_option
def command(run: str, as_json: bool) -> int:
    """Write RUN's page, one self-contained HTML file, and print the table of checkpoints and the page's path."""
    from lhcq.cli.runs import run_answer
    from lhcq.cli.session import find_workspace
    from lhcq.report.page import write_report

    workspace = find_workspace()
    page = write_report(workspace, run)
    value, text = run_answer(workspace, run)
    answer(as_json, value, f"{text}\n{page}")
    return 0
