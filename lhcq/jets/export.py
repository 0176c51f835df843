"""A dataset as the two JSON-lines files of the reference study, and what all exports share."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lhcq.errors import BadInput, NameTaken
from lhcq.records.events import names_of_jet, read_dataset, read_event_batches, read_schema
from lhcq.records.labels import LABELS
from lhcq.storage import staged_file


def export_jsonl(dataset_dir: Path, out_dir: Path) -> list[Path]:
    """Write `signal.jsonl` and `background.jsonl` into `out_dir`, one event a line, and give their paths.

    A line is `{"type": "signal", "jets": [{"px", "py", "pz", "E"}], "num_particles": n}`, momenta in GeV, in
    order of row. Raises `NameTaken` where one of the files exists, `BadInput` where an event has no label or the
    dataset lacks a column.
    """
    manifest = read_dataset(dataset_dir)
    unknown = manifest["labels"]["unknown"]
    if unknown:
        raise BadInput(
            f"{dataset_dir.name}: {unknown} of {manifest['rows']} events have no label, and the two files "
            "are made by label. Cluster a labelled file."
        )
    check_columns(
        dataset_dir,
        of_event=["label", "n_particles"],
        of_jet=["px", "py", "pz", "e"],
        remedy="Cluster the events themselves, or choose another format.",
    )
    paths = {label: out_dir / f"{LABELS[label]}.jsonl" for label in (1, 0)}
    for path in paths.values():
        refuse_existing(path)
    with contextlib.ExitStack() as stack:
        streams = {
            label: stack.enter_context(stack.enter_context(staged_file(path)).open("w", encoding="utf-8"))
            for label, path in paths.items()
        }
        for batch in read_event_batches(dataset_dir, ["label", "n_particles", "jets"]):
            for event in batch.to_pylist():
                streams[event["label"]].write(_to_line(event))
    return list(paths.values())


def refuse_existing(path: Path) -> None:
    """Raise `NameTaken` where there is something at `path`: an export overwrites nothing."""
    if path.exists():
        raise NameTaken(f"{path}: exists already. Choose another place by --out.")


def check_columns(dataset_dir: Path, *, of_event: Sequence[str], of_jet: Sequence[str], remedy: str) -> None:
    """Raise `BadInput` naming every column that an export needs and the dataset does not have."""
    schema = read_schema(dataset_dir)
    of_list = names_of_jet(schema)
    missing = [name for name in of_event if name not in schema.names]
    missing_of_jets = [name for name in of_jet if name not in of_list]
    if missing_of_jets:
        missing.append(f"{', '.join(missing_of_jets)} of its jets")
    if missing:
        raise BadInput(
            f"{dataset_dir.name}: this export needs {' and '.join(missing)}, which it lacks. {remedy}"
        )


def _to_line(event: dict[str, Any]) -> str:
    jets = [{"px": jet["px"], "py": jet["py"], "pz": jet["pz"], "E": jet["e"]} for jet in event["jets"]]
    record = {"type": LABELS[event["label"]], "jets": jets, "num_particles": event["n_particles"]}
    return json.dumps(record) + "\n"
