"""The subsets of a split: one parquet file each, with prompts and features; no two of them share an event."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lhcq.config import SplitConfig
from lhcq.errors import BadInput
from lhcq.records import parquet
from lhcq.records.commits import digests_of, read_verified

SUBSETS = ("train", "validation", "calibration", "test")
"""What trees and model learn from; what chooses a checkpoint; what probabilities and p-values are fitted on; and what
is looked at once."""

ROW_GROUP = 65_536
_WRITER_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "version": "2.6",
    "data_page_version": "1.0",
    "use_dictionary": False,
}


def split_schema(features: Sequence[str], *, prompt: pa.DataType | None = None) -> pa.Schema:
    """The columns of a subset: source row, label, prompt, and the features that its dataset has."""
    return pa.schema(
        [
            pa.field("row", pa.int64(), nullable=False),
            pa.field("label", pa.int8(), nullable=False),
            pa.field("prompt", prompt or pa.string(), nullable=False),
            *(pa.field(name, pa.float64(), nullable=False) for name in features),
        ]
    )


def subset_file(split_dir: Path, subset: str) -> Path:
    """The file of a subset."""
    return split_dir / _name(subset)


def write_subset(directory: Path, subset: str, groups: Iterable[pa.Table], features: Sequence[str]) -> None:
    """Write a subset of a split that is being made in `directory`, from tables of at most `ROW_GROUP` rows."""
    schema = split_schema(features)
    with pq.ParquetWriter(subset_file(directory, subset), schema, **_WRITER_OPTIONS) as writer:
        for group in groups:
            writer.write_table(group.cast(schema).combine_chunks(), row_group_size=ROW_GROUP)


def read_subset(split_dir: Path, subset: str, columns: Sequence[str]) -> pa.Table:
    """These columns of all events of a subset; raises `BadInput` where it cannot be read, as all readers here do."""
    return parquet.read_columns(subset_file(split_dir, subset), columns)


def read_subset_stretch(
    split_dir: Path, subset: str, start: int, stop: int, columns: Sequence[str]
) -> pa.Table:
    """The events of a subset at the positions [start, stop)."""
    return parquet.read_stretch(subset_file(split_dir, subset), start, stop, columns)


def first_prompts(split_dir: Path, subset: str, n: int) -> list[str]:
    """The first `n` prompts of a subset, or as many as it has."""
    batches = parquet.read_batches(subset_file(split_dir, subset), ["prompt"], size=n)
    prompts: list[str] = next(batches)["prompt"].to_pylist()
    return prompts


def rows_of_subsets(split_dir: Path) -> dict[str, NDArray[np.int64]]:
    """The source rows of each subset."""
    return {subset: read_subset(split_dir, subset, ["row"])["row"].to_numpy() for subset in SUBSETS}


def training_prompts(manifest: Mapping[str, Any]) -> int:
    """Prompts in the training subset of a split, by its manifest: its events, each as often as there are copies."""
    n_events: int = sum(manifest["counts"]["train"].values())
    return n_events * SplitConfig.checked(**manifest["config"]).copies


def match_rows(
    split_dir: Path, subset: str, rows: NDArray[np.int64], columns: Sequence[str]
) -> dict[str, NDArray[np.float64]] | None:
    """These columns of events of a subset, in the order of their `rows` (n,); None where it lacks one of them."""
    if not subset_file(split_dir, subset).is_file():
        return None
    table = read_subset(split_dir, subset, ["row", *columns])
    there = table["row"].to_numpy()
    order = np.argsort(there, kind="stable")
    found = order[np.searchsorted(there, rows, sorter=order).clip(max=max(order.size - 1, 0))]
    if not np.array_equal(there[found], rows):
        return None
    return {name: table[name].to_numpy()[found].astype(np.float64) for name in columns}


def read_split(split_dir: Path, *, remedy: str = "Make it with `lhcq prepare`.") -> dict[str, Any]:
    """The manifest of a split whose files are still those that it was written for; `NotThere` without it."""
    return read_verified(split_dir, what=f"split {split_dir.name!r}", remedy=remedy)


def split_of_run(split_dir: Path, run: str, digests: Mapping[str, str]) -> dict[str, Any]:
    """The manifest of the split that a run was made of, by the `digests` that its spec has.

    Raises `NotThere` without the split, and `BadInput` where another stands under its name, or it is damaged.
    """
    manifest = read_split(split_dir, remedy="Make it again with the same `lhcq prepare`.")
    if digests_of(manifest) != digests:
        raise BadInput(
            f"{split_dir}: is not the split that run {run!r} began with. Train under another name."
        )
    return manifest


def subset_sha256(manifest: Mapping[str, Any], subset: str) -> str:
    """What tells a subset from any other, by its split's manifest."""
    sha256: str = manifest["files"][_name(subset)]["sha256"]
    return sha256


def count_events(manifest: Mapping[str, Any], subset: str) -> int:
    """Events of a subset, by its split's manifest; of `train` there may be several prompts each."""
    return sum(manifest["counts"][subset].values())


def _name(subset: str) -> str:
    return f"{subset}.parquet"


def hash_rows(rows: NDArray[np.int64], key: str) -> NDArray[np.uint64]:
    """A keyed 64-bit hash of each row: the finalizer of splitmix64, which maps distinct rows to distinct hashes.

    What decides by it where an event goes (a subset, a fold) does not depend on what else there is.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    offset = np.frombuffer(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "<u8")
    state = (rows.astype(np.uint64) + offset) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(state ^ (state >> np.uint64(31)), dtype=np.uint64)
