"""A dataset as the two JSON-lines files of the reference study, and what all exports share."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lhcq.commits import read_verified
from lhcq.errors import BadInput, NameTaken
from lhcq.jets.records import EVENTS_FILE
from lhcq.storage import staged_file

BATCH = 8192
"""Events that an export holds at a time; the row groups of a dataset are a multiple of it."""

_CLASSES = {1: "signal", 0: "background"}


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
    paths = {label: out_dir / f"{name}.jsonl" for label, name in _CLASSES.items()}
    for path in paths.values():
        refuse_existing(path)
    with contextlib.ExitStack() as stack:
        streams = {
            label: stack.enter_context(stack.enter_context(staged_file(path)).open("w", encoding="utf-8"))
            for label, path in paths.items()
        }
        for batch in read_batches(dataset_dir, ["label", "n_particles", "jets"]):
            for event in batch.to_pylist():
                streams[event["label"]].write(_to_line(event))
    return list(paths.values())


def read_dataset(dataset_dir: Path) -> dict[str, Any]:
    """The manifest of a dataset that is to be exported, whole; raises `NotThere` or `BadInput` otherwise."""
    return read_verified(dataset_dir, what=f"dataset {dataset_dir.name}", remedy="Run `lhcq cluster` first.")


def refuse_existing(path: Path) -> None:
    """Raise `NameTaken` where there is something at `path`: an export overwrites nothing."""
    if path.exists():
        raise NameTaken(f"{path}: exists already. Remove it or choose another directory.")


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


def read_schema(dataset_dir: Path) -> pa.Schema:
    """The columns of a dataset's events."""
    with _opened(dataset_dir) as file:
        return file.schema_arrow


def names_of_jet(schema: pa.Schema) -> list[str]:
    """The columns that each jet has."""
    jet = schema.field("jets").type.value_type
    return [jet.field(index).name for index in range(jet.num_fields)]


def read_batches(
    dataset_dir: Path, columns: Sequence[str] | None = None, *, size: int = BATCH
) -> Iterator[pa.RecordBatch]:
    """The events in order of row, at most `size` at a time; `jets.list.element.pt` is one column of the jets."""
    with _opened(dataset_dir) as file:
        try:
            yield from file.iter_batches(batch_size=size, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(dataset_dir, error) from error


def _opened(dataset_dir: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(dataset_dir / EVENTS_FILE)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(dataset_dir, error) from error


def _unreadable(dataset_dir: Path, error: Exception) -> BadInput:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return BadInput(f"{dataset_dir / EVENTS_FILE}: cannot be read ({reason}). Make {dataset_dir.name} again.")


def _to_line(event: dict[str, Any]) -> str:
    jets = [{"px": jet["px"], "py": jet["py"], "pz": jet["pz"], "E": jet["e"]} for jet in event["jets"]]
    record = {"type": _CLASSES[event["label"]], "jets": jets, "num_particles": event["n_particles"]}
    return json.dumps(record) + "\n"
