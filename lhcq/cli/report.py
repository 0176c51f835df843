"""`lhcq report RUN`."""

from pathlib import Path

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import FilePath, NameOf, example


@click.command("report", epilog=example("lhcq report first", "lhcq report first --figures figures/"))
@click.argument("run", type=NameOf("runs"))
@click.option(
    "--out",
    type=FilePath(),
    help="The file to write, for who may only read the workspace. Default: one in the run's directory.",
)
@click.option(
    "--figures",
    type=FilePath(file_okay=False),
    help="Directory to write each picture of the page into as well, as PNG and as PDF. Default: none are written.",
)
@json_option
def command(run: str, out: Path | None, figures: Path | None, as_json: bool) -> int:
    """Write RUN's page, one self-contained HTML file, and print the table of checkpoints and the page's path."""
    from lhcq.cli.runs import run_answer
    from lhcq.cli.session import find_workspace
    from lhcq.report.page import write_figures, write_report

    workspace = find_workspace()
    page = write_report(workspace, run, out)
    pictures = [] if figures is None else [str(path) for path in write_figures(workspace, run, figures)]
    value, text = run_answer(workspace, run)
    value |= {"report": str(page), "figures": pictures}
    answer(as_json, value, "\n".join([text, str(page), *pictures]))
    return 0
