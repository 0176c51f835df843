"""`lhcq plot NAME`."""

from pathlib import Path

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import FilePath, NameOf, example
from lhcq.cli.report import REPORTED

_ON_THEIR_PAGES = {
    what: f"`lhcq report {{name}} --kind {what} --figures DIR` writes the pictures of its page."
    for what in REPORTED
}


@click.command("plot", epilog=example("lhcq plot lhco --out plots/", "lhcq plot lhco --out lhco.pdf"))
@click.argument("name", type=NameOf("datasets", instead=_ON_THEIR_PAGES))
@click.option(
    "--out",
    type=FilePath(),
    help="Directory to write NAME.png and NAME.html into, or a file that ends in .pdf, .png or .svg, for the picture "
    "alone. Default: plots/NAME in the workspace.",
)
@json_option
def command(name: str, out: Path | None, as_json: bool) -> int:
    """Draw the dataset NAME, signal against background: one PNG, and one self-contained HTML page with it.

    Jet pT, jet mass, dijet mass, tau21 and multiplicities, as far as the dataset has them. Earlier plots of the same
    name are replaced.
    """
    from lhcq.cli.session import find_workspace
    from lhcq.errors import BadInput
    from lhcq.report.dataset_page import PICTURES, write_picture, write_plots

    workspace = find_workspace()
    if out is not None and out.suffix.lower() in PICTURES and not out.is_dir():
        view, files = write_picture(workspace, name, out), {out.suffix.lower().removeprefix("."): str(out)}
    elif out is not None and out.is_file():
        raise BadInput(f"{out}: is a file. Name a directory, or a file that ends in {', '.join(PICTURES)}.")
    else:
        plots = write_plots(workspace, name, out or workspace.plots(name))
        view, files = plots.view, {"png": str(plots.png), "page": str(plots.page)}
    value = {
        **files,
        "events": view.n_events,
        "labels": view.n_by_class,
        "quantities": [one.quantity.name for one in view.spectra],
        "left_out": view.left_out,
    }
    lines = [*files.values(), *(f"not drawn: {reason}" for reason in view.left_out.values())]
    answer(as_json, value, "\n".join(lines))
    return 0
