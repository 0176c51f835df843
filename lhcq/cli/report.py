"""`lhcq report RUN`."""

from pathlib import Path

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import FilePath, NameOf, example


@click.command("report", epilog=example("lhcq report first"))
@click.argument("run", type=NameOf("runs"))
@click.option(
    "--out",
    type=FilePath(),
    help="The file to write, for who may only read the workspace. Default: one in the run's directory.",
)
@json_option
def command(run: str, out: Path | None, as_json: bool) -> int:
    """Write RUN's page, one self-contained HTML file, and print the table of checkpoints and the page's path."""
    from lhcq.cli.runs import run_answer
    from lhcq.cli.session import find_workspace
    from lhcq.report.page import write_report

    workspace = find_workspace()
    page = write_report(workspace, run, out)
    value, text = run_answer(workspace, run)
    answer(as_json, {**value, "report": str(page)}, f"{text}\n{page}")
    return 0
