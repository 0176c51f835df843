"""`lhcq plot NAME`."""

from pathlib import Path

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import FilePath, NameOf, example


@click.command("plot", epilog=example("lhcq plot lhco --out plots/"))
@click.argument("name", type=NameOf("datasets"))
@click.option(
    "--out",
    type=FilePath(file_okay=False),
    help="Directory to write NAME.png and NAME.html into. Default: plots/NAME in the workspace.",
)
@json_option
def command(name: str, out: Path | None, as_json: bool) -> int:
    """Draw the dataset NAME, signal against background: one PNG, and one self-contained HTML page with it.

    Jet pT, jet mass, dijet mass, tau21 and multiplicities, as far as the dataset has them. Earlier plots of the same
    name are replaced.
    """
    from lhcq.cli.session import find_workspace
    from lhcq.report.dataset_page import write_plots

    workspace = find_workspace()
    plots = write_plots(workspace, name, out or workspace.plots(name))
    view = plots.view
    value = {
        "png": str(plots.png),
        "page": str(plots.page),
        "events": view.n_events,
        "labels": view.n_by_class,
        "quantities": [one.quantity.name for one in view.spectra],
        "left_out": view.left_out,
    }
    lines = [str(plots.png), str(plots.page), *(f"not drawn: {reason}" for reason in view.left_out.values())]
    answer(as_json, value, "\n".join(lines))
    return 0
