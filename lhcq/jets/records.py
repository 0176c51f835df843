"""The record that clustering writes for an event, as an Arrow schema."""

import pyarrow as pa

from lhcq.config import FeatureSet
from lhcq.duplicates import Contents

EVENTS_FILE = "events.parquet"


def _floats(*names: str, nullable: bool = False) -> list[pa.Field]:
    return [pa.field(name, pa.float64(), nullable=nullable) for name in names]


# GeV except for eta and phi. `m` is 0.0 where rounding makes m^2 negative; px, py, pz, e stay as they are.
KINEMATICS = _floats("pt", "eta", "phi", "m", "px", "py", "pz", "e")
CONSTITUENTS = [pa.field("n_constituents", pa.int32(), nullable=False), *_floats("pt_lead")]

# What `lhcq.jets.substructure` defines, for the two leading jets; null for the others of the list.
SUBSTRUCTURE = _floats(
    "tau1", "tau2", "tau3", "tau4", "m_sd", "z_g", "width", "z1", "z2", "c2", "d2", nullable=True
)

JET = pa.struct([*KINEMATICS, *CONSTITUENTS])
FULL_JET = pa.struct([*KINEMATICS, *CONSTITUENTS, *SUBSTRUCTURE])


def schema_of(features: FeatureSet) -> pa.Schema:
    """The schema of the records that `features` asks for.

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
    return pa.schema(fields)


SCHEMA = schema_of("jets")

CONTENT = pa.field("content", pa.uint64(), nullable=False)
"""What tells one event from another (`lhcq.duplicates`): parts have it behind their records, datasets do not."""


def part_schema_of(features: FeatureSet) -> pa.Schema:
    """The schema of the records in a part, each with the content of its event."""
    return schema_of(features).append(CONTENT)


def with_contents(records: pa.Table, contents: Contents) -> pa.Table:
    """Records as a part has them, from those of `schema_of` and the content of each event."""
    return records.append_column(CONTENT, pa.array(contents, CONTENT.type))
