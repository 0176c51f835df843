"""Datasets to write prompts of, and the splits that are read back."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lhcq.manifests import write_manifest
from lhcq.storage import staged_directory

FLOATS = ("pt", "eta", "phi", "m", "px", "py", "pz", "e", "pt_lead")


JET = pa.struct({**dict.fromkeys(FLOATS, pa.float64()), "n_constituents": pa.int32()})


SCHEMA = pa.schema(
    {
        "row": pa.int64(),
        "label": pa.int8(),
        "n_particles": pa.int32(),
        "n_jets": pa.int32(),
        "jets": pa.list_(JET),
        "mjj": pa.float64(),
        "delta_r": pa.float64(),
    }
)


def make_dataset(directory: Path, *, n_events: int = 400, unlabelled: int = 0) -> Path:
    """A dataset with one signal event in five, every tenth event with one jet, every twentieth with none."""
    rng = np.random.default_rng(1)
    records = []
    for row in range(n_events):
        n_jets = 0 if row % 20 == 3 else 1 if row % 10 == 3 else 2
        jets = [
            {name: float(rng.normal(100, 5)) for name in FLOATS}
            | {"n_constituents": int(rng.integers(1, 99))}
            for _ in range(n_jets)
        ]
        label = None if row < unlabelled else int(row % 5 == 0)
        values = {"mjj": float(rng.normal(3000, 100)), "delta_r": 3.1} if n_jets == 2 else {}
        records.append(
            {"row": row, "label": label, "n_particles": 50 + row, "n_jets": n_jets, "jets": jets, **values}
        )
    directory.mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pylist(records, schema=SCHEMA), directory / "events.parquet", row_group_size=128
    )
    write_manifest(directory, source_sha256="ab" * 32, labels={"unknown": unlabelled}, rows=n_events)
    return directory


def encode(prompts: list[str]) -> list[list[int]]:
    return [list(prompt.encode()) for prompt in prompts]


def read_part(split: Path, name: str) -> list[dict]:
    return pq.read_table(split / f"{name}.parquet").to_pylist()


def write_two_digits(
    split: Path,
    parts: Mapping[str, int],
    label_of: Callable[[int, random.Random], int],
    *,
    train_label: int | None = None,
) -> None:
    """A split of prompts of two digits, labelled by `label_of` the first, or in training by `train_label`."""
    draw = random.Random(3)
    row = 0
    with staged_directory(split) as directory:
        for part, n in parts.items():
            first = [draw.randrange(10) for _ in range(n)]
            labels = [label_of(digit, draw) for digit in first]
            if part == "train" and train_label is not None:
                labels = [train_label] * n
            columns = {
                "row": np.arange(row, row + n),
                "label": np.array(labels, dtype=np.int8),
                "prompt": [f"{digit}{draw.randrange(10)}:" for digit in first],
                **{name: np.ones(n) for name in ("mjj", "m_heavy", "m_light")},
            }
            pq.write_table(pa.table(columns), directory / f"{part}.parquet")
            row += n
        write_manifest(directory, features=["mjj"])
