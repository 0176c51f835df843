"""`lhcq report RUN`."""

import click

from lhcq.cli.options import answer, json_option


@click.command("report")
@click.argument("run")
@json_option
def command(run: str, as_json: bool) -> int:
    """Write RUN's page, one self-contained HTML file, and print the table of checkpoints and the page's path."""
    from lhcq.cli.runs import run_answer
    from lhcq.cli.session import open_workspace
    from lhcq.report.page import write_report

    workspace = open_workspace()
    page = write_report(workspace, run)
    value, text = run_answer(workspace, run)
    answer(as_json, value, f"{text}\n{page}")
    return 0
