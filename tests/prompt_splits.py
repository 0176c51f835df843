"""Datasets to write prompts of, and the splits that are read back."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lhcq.manifests import write_manifest

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
