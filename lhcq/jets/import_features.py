"""A dataset from jets that somebody else clustered: the records of `lhcq.records.events`, without what is not known.

What a features file does not say is absent from the records and not zero: there is no number of particles, of jets or
of constituents, and no pt of a constituent.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lhcq.errors import NameTaken
from lhcq.jets.vectors import Floats, FourVectors, Integers, delta_phi, offsets_of
from lhcq.manifests import read_manifest, write_manifest
from lhcq.records.duplicates import find_duplicates, hash_columns, write_duplicates
from lhcq.records.events import (
    KINEMATICS,
    ROW_GROUP,
    SUBSTRUCTURE,
    events_writer,
    names_of_jet,
    schema_of,
    with_axes,
)
from lhcq.records.labels import count_labels
from lhcq.storage import staged_directory

Block = tuple[Integers, dict[str, Floats], NDArray[np.int8] | None]
"""Rows (n,), columns (n,) each by their names in a features file, and labels (n,) where they are known."""


def imported_schema(columns: Iterable[str]) -> pa.Schema:
    """The schema of the records that can be made of these columns of a features file."""
    there = set(columns)
    if "mjj" in there:
        return _reduced_schema(there)
    taus = [field for field in SUBSTRUCTURE if {f"{field.name}j1", f"{field.name}j2"} <= there]
    jet = pa.struct([*KINEMATICS, *taus])
    full = schema_of("full")
    return pa.schema(
        [
            full.field("row"),
            full.field("label"),
            pa.field("jets", pa.list_(pa.field("element", jet, nullable=False)), nullable=False),
            *(full.field(name) for name in ("mjj", "delta_r", "delta_eta")),
        ]
    )


def build_records(block: Block, schema: pa.Schema) -> pa.Table:
    """The records of events of which at most two jets are known.

    A jet without momentum is none. Jets come in order of falling pt; a negative mass, which rounding makes, becomes
    0.0, and the energy is that of mass and momentum. `mjj` (GeV), `delta_r` and `delta_eta` are null where an event
    has fewer than two jets.
    """
    if "mjj" in block[1]:
        return _build_reduced(block, schema)
    rows, values, labels = block
    jets = [_measure_jet(values, rank, schema) for rank in (1, 2)]
    there = np.column_stack([jet["pt"] > 0 for jet in jets])
    swapped = jets[1]["pt"] > jets[0]["pt"]
    order = np.where(swapped[:, None], [1, 0], [0, 1])  # (n, 2)
    event = np.arange(len(rows))[:, None]
    columns = {name: np.column_stack([jet[name] for jet in jets])[event, order] for name in jets[0]}
    both = there.all(axis=1)
    table = {
        "row": pa.array(rows, pa.int64()),
        "label": pa.nulls(len(rows), pa.int8()) if labels is None else pa.array(labels, pa.int8()),
        "jets": _list_jets(columns, there[event, order], schema),
    } | {
        name: pa.array(np.where(both, column, 0.0), mask=~both)
        for name, column in _measure_pairs(columns).items()
    }
    return pa.table({name: table[name] for name in schema.names}, schema=schema)


def _reduced_schema(columns: set[str]) -> pa.Schema:
    """Of events of which m_jj, the masses and tau2/tau1 are known, and no momentum (`lhcq.events.reduced`)."""
    jet = pa.struct([pa.field(name, pa.float64(), nullable=False) for name in ("m", "tau21")])
    full = schema_of("full")
    return pa.schema(
        [
            full.field("row"),
            full.field("label"),
            pa.field("jets", pa.list_(pa.field("element", jet, nullable=False)), nullable=False),
            *(full.field(name) for name in ("mjj", "delta_r") if name in columns),
        ]
    )


def _build_reduced(block: Block, schema: pa.Schema) -> pa.Table:
    """Records of two jets each, the heavier one first, since their pt is not known."""
    rows, values, labels = block
    light, heavy = values["m_light"], values["m_light"] + values["m_apart"]
    columns = {
        "m": np.column_stack([heavy, light]),
        "tau21": np.column_stack([values["tau21_heavy"], values["tau21_light"]]),
    }
    table: dict[str, pa.Array] = {
        "row": pa.array(rows, pa.int64()),
        "label": pa.nulls(len(rows), pa.int8()) if labels is None else pa.array(labels, pa.int8()),
        "jets": _list_jets(columns, np.ones((len(rows), 2), bool), schema),
        **{name: pa.array(values[name]) for name in ("mjj", "delta_r") if name in values},
    }
    return pa.table({name: table[name] for name in schema.names}, schema=schema)


def write_imported(blocks: Iterable[Block], final: Path, schema: pa.Schema, **fields: Any) -> dict[str, Any]:
    """Commit the dataset directory `final` from blocks in order of row, and give its manifest.

    `fields` go into the manifest beside what is counted. Blocks are streamed, each a row group of the file, so they
    should be of `ROW_GROUP` rows. Raises `NameTaken` where somebody committed another dataset there meanwhile.
    """
    labels: Counter[int | None] = Counter()
    n_jets: Counter[int] = Counter()
    rows, contents, classes = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)], [np.zeros(0, np.int8)]
    with staged_directory(final) as directory:
        with events_writer(directory, with_axes(schema, fields.get("tau_axes"))) as writer:
            for block in blocks:
                records = build_records(block, schema)
                writer.write_table(records.combine_chunks(), row_group_size=ROW_GROUP)
                labels.update(_count(records["label"]))
                n_jets.update(_count(pc.list_value_length(records["jets"])))
                rows.append(block[0])
                contents.append(hash_columns(block[1].values()))
                classes.append(records["label"].fill_null(-1).to_numpy())
        duplicates = find_duplicates(np.concatenate(rows), np.concatenate(contents), np.concatenate(classes))
        write_duplicates(directory, duplicates)
        write_manifest(
            directory,
            **fields,
            kind="import",
            columns=schema.names,
            jet_columns=names_of_jet(schema),
            rows=labels.total(),
            labels=count_labels(labels),
            events_by_listed_jets={str(count): n_jets[count] for count in sorted(n_jets)},
            gaps=[],
            duplicates=duplicates.summary(),
        )
    manifest = read_manifest(final, what=f"dataset {final.name!r}", remedy="Import it again.")
    if any(manifest.get(name) != value for name, value in fields.items()):
        raise NameTaken(f"{final}: another dataset took this name meanwhile. Choose another name.")
    return manifest


def _count(column: pa.ChunkedArray) -> dict[Any, int]:
    return {entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist()}


def _measure_jet(values: dict[str, Floats], rank: int, schema: pa.Schema) -> dict[str, Floats]:
    """The columns of one jet of every event, (n_events,) each."""
    px, py, pz, m = (values[f"{name}j{rank}"] for name in ("px", "py", "pz", "m"))
    m = np.maximum(m, 0.0)
    e = np.sqrt(px * px + py * py + pz * pz + m * m)
    vectors = FourVectors(counts=np.ones(len(px), np.int64), px=px, py=py, pz=pz, e=e)
    known = {"pt": vectors.pt, "eta": vectors.eta, "phi": vectors.phi}
    known |= {"m": m, "px": px, "py": py, "pz": pz, "e": e}
    names = names_of_jet(schema)
    return {name: known[name] if name in known else values[f"{name}j{rank}"] for name in names}


def _measure_pairs(jets: dict[str, Floats]) -> dict[str, Floats]:
    """Invariant mass and distances of the two jets (n_events, 2), (n_events,) each."""
    px, py, pz, e = (
        column[:, 0] + column[:, 1] for column in (jets["px"], jets["py"], jets["pz"], jets["e"])
    )
    pair = FourVectors(counts=np.ones(len(px), np.int64), px=px, py=py, pz=pz, e=e)
    with np.errstate(invalid="ignore"):  # an absent jet has no eta
        along = np.abs(jets["eta"][:, 0] - jets["eta"][:, 1])
        around = delta_phi(jets["phi"][:, 0], jets["phi"][:, 1])
        return {"mjj": pair.m, "delta_r": np.sqrt(along * along + around * around), "delta_eta": along}


def _list_jets(columns: dict[str, Floats], there: NDArray[np.bool_], schema: pa.Schema) -> pa.ListArray:
    """The `jets` column from columns (n_events, 2), of which only the jets that are `there` count."""
    kind = schema.field("jets").type
    jets = pa.StructArray.from_arrays(
        [pa.array(columns[field.name][there]) for field in kind.value_type], fields=list(kind.value_type)
    )
    return pa.ListArray.from_arrays(offsets_of(there.sum(axis=1)).astype(np.int32), jets, type=kind)
