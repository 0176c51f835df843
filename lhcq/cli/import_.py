"""`lhcq import FEATURES.h5 --name NAME`."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.conventions import label_map_option, labels_option
from lhcq.cli.options import answer, choice_of, force_option, json_option, told_by_option
from lhcq.cli.parameters import FilePath, example
from lhcq.cli.progress import Update, progress
from lhcq.config import ClusterConfig

if TYPE_CHECKING:
    from lhcq.events.featurefile import FeatureFile
    from lhcq.jets.import_features import Block

_BYTES_PER_EVENT = 250


@click.command("import", epilog=example("lhcq import events_anomalydetection_v2.features.h5 --name features"))
@click.argument("file", type=FilePath())
@click.option("--name", required=True, help="Name of the dataset to make.")
@labels_option
@click.option(
    "--axes",
    type=choice_of(ClusterConfig, "axes"),
    help="About which axes the file's tau_N are. Default: as it says, else as in the published files.",
)
@label_map_option
@force_option
@json_option
def command(
    file: Path,
    name: str,
    key: Path | None,
    axes: str | None,
    label_map: dict[str, int] | None,
    force: bool,
    as_json: bool,
) -> int:
    """Make the dataset NAME of the jets in a published features FILE (*.features.h5), as if clustered.

    What such a file does not say (particles, constituents) is absent from the dataset, and prompts and trees do
    without it.
    """
    from lhcq.cli.session import Waited, clear_way, open_workspace
    from lhcq.config import Conventions
    from lhcq.errors import BadInput
    from lhcq.events.featurefile import open_feature_file
    from lhcq.events.sandboxed_read import read_apart
    from lhcq.jets.definitions import resolve_axes
    from lhcq.jets.import_features import imported_schema, write_imported
    from lhcq.storage import check_room, sha256_of
    from tasks.client import refuse_used_name

    workspace = open_workspace()
    final = workspace.dataset(name)
    started = time.monotonic()
    with told_by_option():
        conventions = Conventions.checked(label_map=label_map or {})
    (source,) = read_apart(file, lambda: [open_feature_file(file.absolute(), conventions)])
    if key and source.labelled:
        raise BadInput(f"{source.path}: has labels of its own. Leave --labels out.")
    mtime_ns = source.path.stat().st_mtime_ns  # from before the file is hashed
    fields = {
        "name": name,
        "source": str(source.path),
        "source_sha256": sha256_of(source.path),
        "labels_sha256": sha256_of(key) if key and key.is_file() else None,
        "config": None,
        **conventions.model_dump(),
    }
    if any(column.startswith("tau") for column in source.columns) or axes:
        fields["tau_axes"] = resolve_axes(source.axes, axes, source=str(source.path))
    readable = key is None or key.is_file()  # else it is refused where it is read
    if force and readable:
        clear_way(workspace, "cluster", name, final)
    manifest, seconds = _imported_before(final, fields) if readable else None, None
    if manifest is None:
        refuse_used_name(workspace, "cluster", name, final)
        check_room(workspace.root, source.n_events * _BYTES_PER_EVENT)
        with progress(f"import {name}", source.n_events, "events") as update:
            blocks = _read_blocks(source, mtime_ns, key, update)
            manifest = write_imported(blocks, final, imported_schema(source.columns), **fields)
        seconds = time.monotonic() - started
    waited = Waited(code=0, seconds=seconds)
    rate = waited.rate(manifest["rows"])
    value = {"dataset": str(final), "seconds": seconds, "events_per_second": rate}
    facts = {
        key: manifest[key]
        for key in ("rows", "duplicates", "labels", "jet_columns", "source_sha256", "files")
    }
    facts["tau_axes"] = manifest.get("tau_axes")
    ignored = {"ignored_columns": list(source.ignored)}
    answer(
        as_json,
        {**value, **facts, **ignored},
        _text(final, manifest, waited.took(manifest["rows"]), source.ignored),
    )
    return 0


def _imported_before(final: Path, fields: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of the dataset where it is of the same events, wherever their file stood; else None."""
    from lhcq.jets.definitions import axes_of
    from lhcq.records.commits import differing
    from lhcq.records.events import read_dataset
    from lhcq.storage import MANIFEST

    if not (final / MANIFEST).exists():
        return None
    manifest = read_dataset(final)
    asked = {key: value for key, value in fields.items() if key != "source"}
    if asked.get("tau_axes") == axes_of(manifest):  # which an earlier lhcq did not write down
        del asked["tau_axes"]
    return None if differing(manifest, asked) else manifest


def _read_blocks(source: "FeatureFile", mtime_ns: int, key: Path | None, update: Update) -> Iterator["Block"]:
    from lhcq.errors import BadInput
    from lhcq.events.featurefile import read_features
    from lhcq.events.masterkey import read_master_key
    from lhcq.events.sandboxed_read import read_apart
    from lhcq.records.events import ROW_GROUP

    truth = read_master_key(key, source.n_events) if key else None
    for block in read_apart(source.path, lambda: read_features(source, rows=ROW_GROUP)):
        yield block.rows, block.values, block.labels if truth is None else truth[block.rows]
        update(int(block.rows[-1]) + 1, "")
    if source.path.stat().st_mtime_ns != mtime_ns:
        raise BadInput(f"{source.path}: changed while it was being read. Start again.")


def _text(final: Path, manifest: dict[str, Any], took: str, ignored: tuple[str, ...]) -> str:
    from lhcq.jets.definitions import PUBLISHED
    from lhcq.records.duplicates import describe_duplicates

    labels, counts = manifest["labels"], manifest["events_by_listed_jets"]
    jets = ", ".join(f"{n}: {counts[n]:,}" for n in counts)
    lines = [
        f"imported {manifest['rows']:,} events{took}: {final}",
        f"  signal {labels['signal']:,}, background {labels['background']:,}, unlabelled {labels['unknown']:,}",
        f"  events by number of jets: {jets}",
        f"  of each jet: {', '.join(manifest['jet_columns'])}",
    ]
    if manifest.get("tau_axes") == PUBLISHED:
        lines.append(
            "  its tau_N are about axes that it does not name: as those of the published files, which kt are not"
        )
    if ignored:
        lines.append(f"  not read: {', '.join(ignored)}")
    if manifest["duplicates"]["rows"]:
        lines.append(f"  {describe_duplicates(manifest['duplicates'])}: a split keeps them together")
    if labels["unknown"]:
        lines.append("  training needs labels: import it again with --labels KEY for that")
    return "\n".join(lines)
