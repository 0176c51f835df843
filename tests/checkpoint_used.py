"""Made-up events, and what a run of them is made of."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner

from lhcq.cli.ask import command as ask_run
from lhcq.config import TrainConfig
from lhcq.manifests import write_manifest
from lhcq.records.events import SCHEMA
from lhcq.workspace import Workspace

N = 44


CONFIG = TrainConfig(learning_rate=3e-3, batch_size=4, dropout=0.0, rank=4, max_steps=1)


def made_up_records(n: int) -> pa.Table:
    random = np.random.default_rng(3)
    jets = [[{field.name: 1.0 for field in SCHEMA.field("jets").type.value_type}] * 2 for _ in range(n)]
    for event, (heavy, light) in zip(jets, random.integers(50, 600, (n, 2)).tolist(), strict=True):
        event[:] = [{**event[0], "m": float(heavy)}, {**event[1], "m": float(light)}]
    columns = {
        "row": np.arange(n),
        "label": np.arange(n) % 2,
        "n_particles": random.integers(50, 300, n),
        "n_jets": np.full(n, 2),
        "jets": jets,
        "mjj": [None, *random.uniform(2000, 5000, n - 1).tolist()],
        "delta_r": random.uniform(2, 4, n),
    }
    return pa.table(
        {name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()}, SCHEMA
    )


def write_dataset(place: Workspace, name: str, table: pa.Table, source: str) -> None:
    final = place.dataset(name)
    final.mkdir(parents=True)
    pq.write_table(table, final / "events.parquet", row_group_size=10)
    labels = {"signal": 0, "background": 0, "unknown": 0}
    for label in table["label"].to_pylist():
        labels[{1: "signal", 0: "background", None: "unknown"}[label]] += 1
    write_manifest(
        final, name=name, rows=table.num_rows, gaps=[], labels=labels, source_sha256=source, config=None
    )


def told(*arguments):
    """The answer of `lhcq ask`; raises what it refuses."""
    done = CliRunner().invoke(ask_run, [*map(str, arguments)], standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.stdout
