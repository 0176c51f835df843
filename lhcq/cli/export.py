"""`lhcq export NAME`."""

from pathlib import Path

import click

from lhcq.cli.options import answer, json_option


@click.command("export")
@click.argument("name")
@click.option("--format", "form", type=click.Choice(["jsonl"]), default="jsonl", show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Directory to write into. Default: exports/NAME."
)
@json_option
def command(name: str, form: str, out: Path | None, as_json: bool) -> int:
    """Write the dataset NAME in another format.

    jsonl: the reference study's two files, signal.jsonl and background.jsonl, one event a line.
    """
    from lhcq.cli.session import open_workspace
    from lhcq.jets.export import export_jsonl

    workspace = open_workspace()
    target = out or workspace.root / "exports" / name
    files = [str(path) for path in export_jsonl(workspace.dataset(name), target)]
    answer(as_json, {"format": form, "files": files}, "\n".join(files))
    return 0
