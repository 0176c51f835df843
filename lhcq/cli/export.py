"""`lhcq export NAME`."""

from pathlib import Path

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import FilePath, NameOf, example
from lhcq.errors import BadInput

_SUFFIXES = {"csv": ".csv", "parquet": ".parquet", "lhco-features": ".features.h5"}


@click.command("export", epilog=example("lhcq export lhco --format parquet --out lhco.parquet"))
@click.argument(
    "name",
    type=NameOf("datasets", instead={"run": "`lhcq export-adapter {name} best DIR` writes its adapter."}),
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", *_SUFFIXES]),
    default="jsonl",
    show_default=True,
)
@click.option(
    "--out",
    type=FilePath(),
    help="Directory to write into, or, for one file, the file: a name that ends on .csv, .parquet or .h5. "
    "Default: exports/NAME in the workspace.",
)
@json_option
def command(name: str, form: str, out: Path | None, as_json: bool) -> int:
    """Write the dataset NAME in another format. Files that exist are refused, never overwritten.

    jsonl: the reference study's two files, signal.jsonl and background.jsonl, one event a line.

    csv, parquet: one event a row, one column for each number: row, label, ..., j1_pt, ..., j2_pt, ...; what is
    unknown is empty or null. Beside a csv of tau_N, NAME.csv-metadata.json (CSV on the Web) says about which axes.

    lhco-features: the columns of the released features.h5 files, for `pandas.read_hdf`; needs a dataset with tau1 to
    tau3 (`lhcq cluster --features full`).
    """
    from lhcq.cli.session import find_workspace

    if out is not None:
        _refuse_name_of_another_format(form, out)
    workspace = find_workspace()
    dataset = workspace.dataset(name)
    folder = workspace.export(name)
    if form == "jsonl":
        paths = _export_jsonl(dataset, out or folder)
    else:
        paths = _export_table(dataset, form, _path_of(out, folder, f"{name}{_SUFFIXES[form]}"))
    files = [str(path) for path in paths]
    answer(as_json, {"format": form, "files": files}, "\n".join(files))
    return 0


def _refuse_name_of_another_format(form: str, out: Path) -> None:
    """A directory called like a file of another format is nobody's wish."""
    if out.is_dir():
        return
    named = {other for other, suffix in _SUFFIXES.items() if out.suffix and suffix.endswith(out.suffix)}
    if named and form not in named:
        raise BadInput(
            f"--out {out}: is named like a file of --format {' or '.join(sorted(named))}, and this writes {form}. "
            "Give that format, or another name."
        )


def _path_of(out: Path | None, folder: Path, name: str) -> Path:
    """The file to write: `out` itself where it is named like one, else `name` in it."""
    if out is None:
        return folder / name
    return out if out.suffix == Path(name).suffix and not out.is_dir() else out / name


def _export_jsonl(dataset: Path, folder: Path) -> list[Path]:
    from lhcq.jets.export import export_jsonl

    return export_jsonl(dataset, folder)


def _export_table(dataset: Path, form: str, path: Path) -> list[Path]:
    from lhcq.jets.export_table import export_csv, export_parquet

    if form == "csv":
        return export_csv(dataset, path)
    return [export_parquet(dataset, path) if form == "parquet" else _export_lhco_features(dataset, path)]


def _warn(dataset: Path, warning: str | None) -> None:
    if warning:
        click.echo(f"lhcq: {dataset.name}: {warning}", err=True)


def _export_lhco_features(dataset: Path, path: Path) -> Path:
    """The jets' side says what stands in the file, the events' side how such a file is written."""
    from lhcq.events.pytables import write_frame
    from lhcq.jets.definitions import PUBLISHED, axes_of, export_warning
    from lhcq.jets.export import refuse_existing
    from lhcq.jets.lhco_features import read_lhco_features
    from lhcq.records.events import AXES_KEY, read_dataset
    from lhcq.storage import staged_file

    features = read_lhco_features(dataset)
    refuse_existing(path)
    manifest = read_dataset(dataset)
    _warn(dataset, export_warning(manifest))
    axes = axes_of(manifest)
    says = {} if axes == PUBLISHED else {AXES_KEY: axes}
    with staged_file(path) as temporary:
        write_frame(temporary, features.blocks, rows=features.n_events, columns=features.columns, says=says)
    return path
