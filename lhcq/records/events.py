"""The events of a dataset, clustered or imported: what the columns are, who writes them, and how they are read."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lhcq.config import FeatureSet
from lhcq.manifests import read_manifest
from lhcq.records import parquet
from lhcq.records.commits import read_verified

_FILE = "events.parquet"

# Rows in a row group, whatever the chunks were.
ROW_GROUP = 16_384
BATCH = 8192
"""Events that a reader holds at a time; row groups are a multiple of it."""

# Everything about the bytes that does not come from the table, fixed. The writer signs with its version, which
# is part of the fingerprint. Dictionaries would not pay: hardly any float occurs twice.
WRITER_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "version": "2.6",
    "data_page_version": "1.0",
    "data_page_size": 1 << 20,
    "use_dictionary": False,
    "write_statistics": True,
}


def _floats(*names: str, nullable: bool = False) -> list[pa.Field]:
    return [pa.field(name, pa.float64(), nullable=nullable) for name in names]


# GeV except for eta and phi. `m` is 0.0 where rounding makes m^2 negative; px, py, pz, e stay as they are.
KINEMATICS = _floats("pt", "eta", "phi", "m", "px", "py", "pz", "e")
CONSTITUENTS = [pa.field("n_constituents", pa.int32(), nullable=False), *_floats("pt_lead")]

# What `lhcq.jets.substructure` defines, for the two leading jets; null for the others of the list.
SUBSTRUCTURE = _floats(
    "tau1", "tau2", "tau3", "tau4", "m_sd", "z_g", "width", "z1", "z2", "c2", "d2", nullable=True
)

# What `lhcq.jets.constituents` defines. In single precision, which is finer than any detector.
CONSTITUENT = pa.struct(
    [pa.field(name, pa.float32(), nullable=False) for name in ("pt", "delta_eta", "delta_phi")]
)
LISTED_CONSTITUENTS = pa.field(
    "constituents",
    pa.list_(pa.field("element", pa.list_(pa.field("element", CONSTITUENT, nullable=False)), nullable=False)),
    nullable=False,
)
"""Of each event a list of the leading jets of its list, two at most, each a list of its hardest constituents."""

JET = pa.struct([*KINEMATICS, *CONSTITUENTS])
FULL_JET = pa.struct([*KINEMATICS, *CONSTITUENTS, *SUBSTRUCTURE])


def schema_of(features: FeatureSet, *, constituents: bool = False) -> pa.Schema:
    """The schema of the records that `features` asks for, with or without `LISTED_CONSTITUENTS`.

    `n_jets` counts every jet above `pt_min`, also those that `max_jets` keeps out of the list. `mjj` (GeV, the
    invariant mass), `delta_r` (in eta and phi) and `delta_eta` (not negative) belong to the two leading jets; null
    where there are fewer. `h_t` (GeV) is the sum of the pt of every jet above `pt_min`.
    """
    jet = FULL_JET if features == "full" else JET
    fields = [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("label", pa.int8()),
        pa.field("n_particles", pa.int32(), nullable=False),
        pa.field("n_jets", pa.int32(), nullable=False),
        pa.field("jets", pa.list_(pa.field("element", jet, nullable=False)), nullable=False),
        *_floats("mjj", "delta_r", nullable=True),
    ]
    if features == "full":
        fields += [*_floats("delta_eta", nullable=True), *_floats("h_t")]
    if constituents:
        fields.append(LISTED_CONSTITUENTS)
    return pa.schema(fields)


SCHEMA = schema_of("jets")

AXES_KEY = "lhcq.axes"
"""In the metadata of a column of tau_N, and of a features file that lhcq wrote: about which axes it is."""
_TAU = re.compile(r"(j\d+_)?tau\d+")


def with_axes(schema: pa.Schema, axes: str | None) -> pa.Schema:
    """The same columns; those of tau_N, of the jets in a list too, say about which axes they are. None: unchanged."""
    return pa.schema([_with_axes(field, axes) for field in schema]) if axes else schema


def _with_axes(field: pa.Field, axes: str) -> pa.Field:
    if pa.types.is_list(field.type):
        return field.with_type(pa.list_(_with_axes(field.type.value_field, axes)))
    if pa.types.is_struct(field.type):
        return field.with_type(pa.struct([_with_axes(part, axes) for part in field.type]))
    return field.with_metadata({AXES_KEY: axes}) if _TAU.fullmatch(field.name) else field


def events_writer(directory: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Writes the events of a dataset that is being made in `directory`, in row groups of `ROW_GROUP`."""
    return pq.ParquetWriter(directory / _FILE, schema, **WRITER_OPTIONS)


_REMEDY = "Make it with `lhcq cluster` or `lhcq import`."


def find_dataset(dataset_dir: Path) -> dict[str, Any]:
    """The manifest of a dataset, whose files are not looked at; `NotThere` without it."""
    return read_manifest(dataset_dir, what=f"dataset {dataset_dir.name!r}", remedy=_REMEDY)


def read_dataset(dataset_dir: Path, *, remedy: str = _REMEDY) -> dict[str, Any]:
    """The manifest of a dataset whose files are still those that it was written for; `NotThere` without it."""
    return read_verified(dataset_dir, what=f"dataset {dataset_dir.name!r}", remedy=remedy)


def events_sha256(manifest: Mapping[str, Any]) -> str:
    """What tells the events of a dataset from any others, by its manifest."""
    sha256: str = manifest["files"][_FILE]["sha256"]
    return sha256


def kept_constituents(manifest: Mapping[str, Any]) -> int | None:
    """How many constituents of a leading jet a dataset keeps at most, by its manifest; None: it does not say."""
    kept: int | None = (manifest.get("config") or {}).get("constituents")
    return kept


def jets_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a dataset's manifest says of how its jets were found and what its tau_N are about."""
    return {name: manifest[name] for name in ("config", "tau_axes") if name in manifest}


def read_schema(dataset_dir: Path) -> pa.Schema:
    """The columns of a dataset's events; raises `BadInput` where they cannot be read, as all readers here do."""
    return parquet.read_schema(dataset_dir / _FILE)


def names_of_jet(schema: pa.Schema) -> list[str]:
    """The columns that each jet has."""
    jet = schema.field("jets").type.value_type
    return [jet.field(index).name for index in range(jet.num_fields)]


def read_events(dataset_dir: Path, columns: Sequence[str]) -> pa.Table:
    """These columns of all events, in order of row."""
    return parquet.read_columns(dataset_dir / _FILE, columns)


def read_event_batches(
    dataset_dir: Path, columns: Sequence[str] | None = None, *, size: int = BATCH
) -> Iterator[pa.RecordBatch]:
    """The events in order of row, at most `size` at a time; `jets.list.element.pt` is one column of the jets."""
    return parquet.read_batches(dataset_dir / _FILE, columns, size=size)


def read_event_stretch(dataset_dir: Path, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
    """The events at the positions [start, stop)."""
    return parquet.read_stretch(dataset_dir / _FILE, start, stop, columns)
