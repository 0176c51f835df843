"""A dataset in the columns of the released `*.features.h5` files, so that code written for those runs unchanged.

Columns: pxj1 pyj1 pzj1 mj1 tau1j1 tau2j1 tau3j1, the same for j2, all in GeV, then label (1.0 signal, 0.0
background). Jets are in order of falling pt, and an event with fewer than two has zeros for the others. tau_N is not
normalised (`lhcq.jets.substructure`). The row is that of the dataset, which is the source's unless the manifest lists
gaps. Source of the layout: Zenodo record 6466204.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lhcq.errors import BadInput
from lhcq.jets.export import check_columns
from lhcq.jets.export_table import nth_jet
from lhcq.records.events import BATCH, read_dataset, read_event_batches

OF_JET = {"px": "px", "py": "py", "pz": "pz", "m": "m", "tau1": "tau1", "tau2": "tau2", "tau3": "tau3"}
N_JETS = 2


@dataclass(frozen=True, kw_only=True)
class LhcoFeatures:
    """The table of a features file, its rows still to be read."""

    columns: tuple[str, ...]
    """15, or 14 without labels."""
    n_events: int
    blocks: Iterator[NDArray[np.float64]]
    """(k, n_columns) each, in order of row; may be gone through once."""


def read_lhco_features(dataset_dir: Path, *, size: int = BATCH) -> LhcoFeatures:
    """The features of a dataset whose jets have tau1 to tau3, in the released columns, `size` events at a time.

    The column `label` is absent where no event has a label. Raises `BadInput` where only some have one (the file
    has no way to say so), where the jets have no tau, and where the dataset keeps one jet an event.
    """
    manifest = read_dataset(dataset_dir)
    name = dataset_dir.name
    labels, rows = manifest["labels"], manifest["rows"]
    if rows == 0:
        raise BadInput(f"{name}: holds no events.")
    if 0 < labels["unknown"] < rows:
        raise BadInput(
            f"{name}: {labels['unknown']:,} of {rows:,} events have no label, which a features file cannot say. "
            "Export to csv or parquet."
        )
    check_columns(
        dataset_dir,
        of_event=["label"],
        of_jet=list(OF_JET),
        remedy="Cluster again with `--features full`.",
    )
    if (manifest.get("config") or {}).get("max_jets") == 1:
        raise BadInput(f"{name}: keeps one jet an event, and a features file has two. Cluster with more.")
    labelled = labels["unknown"] == 0
    columns = [f"{column}j{rank}" for rank in range(1, N_JETS + 1) for column in OF_JET]
    wanted = ["label", *(f"jets.list.element.{column}" for column in OF_JET)]
    return LhcoFeatures(
        columns=(*columns, "label") if labelled else tuple(columns),
        n_events=rows,
        blocks=(
            _to_block(batch, labelled=labelled)
            for batch in read_event_batches(dataset_dir, wanted, size=size)
        ),
    )


def _to_block(batch: pa.RecordBatch, *, labelled: bool) -> NDArray[np.float64]:
    jets = [nth_jet(batch["jets"], rank) for rank in range(N_JETS)]
    columns = [pc.fill_null(pc.struct_field(jet, name), 0.0) for jet in jets for name in OF_JET]
    if labelled:
        columns.append(batch["label"].cast(pa.float64()))
    return np.column_stack([column.to_numpy() for column in columns])
