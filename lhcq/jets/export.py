"""A dataset as the two JSON-lines files of the reference study."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from lhcq.errors import BadInput, NameTaken
from lhcq.jets.records import EVENTS_FILE
from lhcq.workspace import read_manifest, staged_file

_CLASSES = {1: "signal", 0: "background"}


def export_jsonl(dataset_dir: Path, out_dir: Path) -> list[Path]:
    """Write `signal.jsonl` and `background.jsonl` into `out_dir`, one event a line, and give their paths.

    A line is `{"type": "signal", "jets": [{"px", "py", "pz", "E"}], "num_particles": n}`, momenta in GeV, in
    order of row. Raises `NameTaken` where one of the files exists, `BadInput` where an event has no label.
    """
    manifest = read_manifest(
        dataset_dir, what=f"dataset {dataset_dir.name}", remedy="Run `lhcq cluster` first."
    )
    unknown = manifest["labels"]["unknown"]
    if unknown:
        raise BadInput(
            f"{dataset_dir.name}: {unknown} of {manifest['rows']} events have no label, and the two files "
            "are made by label. Cluster a labelled file."
        )
    paths = {label: out_dir / f"{name}.jsonl" for label, name in _CLASSES.items()}
    for path in paths.values():
        if path.exists():
            raise NameTaken(f"{path}: exists already. Remove it or choose another directory.")
    with contextlib.ExitStack() as stack:
        streams = {
            label: stack.enter_context(stack.enter_context(staged_file(path)).open("w", encoding="utf-8"))
            for label, path in paths.items()
        }
        for event in _read_events(dataset_dir / EVENTS_FILE):
            streams[event["label"]].write(_to_line(event))
    return list(paths.values())


def _read_events(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=8192, columns=["label", "n_particles", "jets"]):
            yield from batch.to_pylist()


def _to_line(event: dict[str, Any]) -> str:
    jets = [{"px": jet["px"], "py": jet["py"], "pz": jet["pz"], "E": jet["e"]} for jet in event["jets"]]
    record = {"type": _CLASSES[event["label"]], "jets": jets, "num_particles": event["n_particles"]}
    return json.dumps(record) + "\n"
