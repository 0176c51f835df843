"""`lhcq report NAME`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import FilePath, NameOf, example

if TYPE_CHECKING:
    from lhcq.report.figures import Finished
    from lhcq.workspace import Workspace

_RUN = "run"
REPORTED = (_RUN, "prediction", "search", "scan")
"""What has a page of its own that tells what it amounts to."""


@click.command(
    "report",
    epilog=example(
        "lhcq report first",
        "lhcq report first --figures figures/",
        "lhcq report box1 --kind search --figures figures/",
    ),
)
@click.argument(
    "name",
    type=NameOf(
        "runs", "predictions", "searches", "scans", instead={"dataset": "`lhcq plot {name}` draws it."}
    ),
)
@click.option(
    "--kind",
    type=click.Choice(REPORTED),
    help="Of what sort NAME is. Default: a run, else the first of the others that has the name.",
)
@click.option(
    "--out",
    type=FilePath(),
    help="The file to write, for who may only read the workspace. Default: one in NAME's directory.",
)
@click.option(
    "--figures",
    type=FilePath(file_okay=False),
    help="Directory to write each picture of the page into as well, as PNG and as PDF. Default: none are written.",
)
@json_option
def command(name: str, kind: str | None, out: Path | None, figures: Path | None, as_json: bool) -> int:
    """Tell what the run, prediction, search or scan NAME amounts to, and the path of its page, one HTML file.

    A run's page is written anew, at any time, with its table of checkpoints; the others have theirs once they are
    finished.
    """
    from lhcq.cli.runs import run_answer
    from lhcq.cli.session import find_workspace
    from lhcq.errors import NotThere
    from lhcq.report.collect import collect_run
    from lhcq.report.figures import find_finished, write_figures
    from lhcq.report.plots import plot_run

    workspace = find_workspace()
    finished = None
    if kind != _RUN and (kind is not None or not workspace.run(name).exists()):
        finished = find_finished(workspace, name, kind)
        if finished is None and kind is not None:
            raise NotThere(
                f"{name}: there is no finished {kind} of that name. `lhcq ls` shows what there is."
            )
    page: Path | None
    value: dict[str, Any]
    if finished is not None:
        page = _copied(finished, out)
        value = {"kind": finished.what, "name": name, "found": finished.found, "verdict": finished.verdict}
        plots, text = finished.plots, _said(finished)
    else:
        page = _written(workspace, name, out)
        value, text = run_answer(workspace, name)
        plots = {} if figures is None else plot_run(collect_run(workspace, name))
    pictures = [] if figures is None else [str(path) for path in write_figures(figures, name, plots)]
    value = {**value, "report": page and str(page), "figures": pictures}
    answer(as_json, value, "\n".join([text, *([str(page)] if page else []), *pictures]))
    return 0


def _written(workspace: "Workspace", run: str, out: Path | None) -> Path | None:
    """The page of a run, written anew; where its directory may only be read, the one that stands there, or none."""
    from lhcq.cli.session import say
    from lhcq.evaluate.comparison import compare_scores
    from lhcq.report.page import write_report
    from lhcq.workspace import RunPaths

    directory = workspace.run(run)
    if out is not None or not directory.exists() or os.access(directory, os.W_OK):
        return write_report(workspace, run, compare_scores, out)
    page = RunPaths(directory).page
    stands = "the page that stands there is not written anew" if page.exists() else "no page is written"
    say(f"{directory} may only be read: {stands}. --out PATH writes one elsewhere.")
    return page if page.exists() else None


def _copied(finished: "Finished", out: Path | None) -> Path:
    from lhcq.storage import write_text

    if out is None:
        return finished.page
    write_text(out, finished.page.read_text("utf-8"))
    return out


def _said(finished: "Finished") -> str:
    return "\n".join([finished.table, *finished.verdict] if finished.table else finished.verdict)
