"""Made-up events for searches: a falling spectrum, and a resonance whose jets are heavy and have few constituents."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lhcq.manifests import write_manifest
from lhcq.records.events import FULL_JET, events_writer, schema_of
from lhcq.records.labels import count_labels
from lhcq.storage import staged_directory

MASS = 3500.0
FEW: dict[str, Any] = {
    "regions": (3300.0, 3900.0, 400.0),
    "folds": 2,
    "selections": (0.1,),
    "shuffles": 1,
    "pseudo_experiments": 20,
}
"""A search that takes seconds."""


def write_events(
    final: Path, n_background: int, n_signal: int = 0, *, seed: int = 1, labelled: bool = True
) -> Path:
    """Commit a dataset of so many events, mixed; signal is at `MASS` GeV."""
    random = np.random.default_rng(seed)
    n = n_background + n_signal
    signal = random.permutation(np.arange(n) < n_signal)
    mjj = np.where(signal, random.normal(MASS, 80.0, n), 2600.0 + random.exponential(450.0, n))
    schema = schema_of("full")
    jets = {FULL_JET.field(at).name: np.zeros(2 * n) for at in range(FULL_JET.num_fields)}
    of_signal = np.repeat(signal, 2)
    jets["pt"] = np.tile([1400.0, 1300.0], n)
    heavy, light = np.tile([500.0, 100.0], n), random.exponential(80.0, 2 * n) + 20
    jets["m"] = np.where(of_signal, heavy * random.normal(1, 0.05, 2 * n), light)
    jets["m_sd"] = jets["m"] * random.uniform(0.8, 1.0, 2 * n)
    jets["n_constituents"] = np.where(of_signal, random.poisson(40, 2 * n), random.poisson(60, 2 * n))
    jets["tau1"], jets["tau2"] = np.full(2 * n, 1.0), random.uniform(0.2, 0.9, 2 * n)
    structs = pa.StructArray.from_arrays(
        [pa.array(values).cast(FULL_JET.field(name).type) for name, values in jets.items()],
        fields=[FULL_JET.field(name) for name in jets],
    )
    columns = {
        "row": np.arange(n),
        "label": pa.array(signal.astype(np.int8), mask=np.full(n, not labelled)),
        "n_particles": np.full(n, 170, np.int32),
        "n_jets": np.full(n, 2, np.int32),
        "jets": pa.ListArray.from_arrays(
            pa.array(2 * np.arange(n + 1), pa.int32()), structs, type=schema.field("jets").type
        ),
        "mjj": mjj,
        "delta_r": np.full(n, 3.1),
        "delta_eta": np.full(n, 0.3),
        "h_t": np.full(n, 2700.0),
    }
    with staged_directory(final) as directory:
        with events_writer(directory, schema) as writer:
            writer.write_table(pa.table(columns, schema=schema))
        write_manifest(
            directory,
            name=final.name,
            source=f"{final.name}.h5",
            source_sha256=f"{seed:064x}",
            labels_sha256=None,
            config={"radius": 1.0},
            rows=n,
            labels=count_labels({1: n_signal, 0: n_background} if labelled else {None: n}),
            gaps=[],
            duplicates={"rows": 0},
        )
    return final
