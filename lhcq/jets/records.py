"""The record that clustering writes for an event, as an Arrow schema."""

import pyarrow as pa

EVENTS_FILE = "events.parquet"

# GeV except for eta and phi. `m` is 0.0 where rounding makes m^2 negative; px, py, pz, e stay as they are.
JET = pa.struct(
    [
        pa.field("pt", pa.float64(), nullable=False),
        pa.field("eta", pa.float64(), nullable=False),
        pa.field("phi", pa.float64(), nullable=False),
        pa.field("m", pa.float64(), nullable=False),
        pa.field("px", pa.float64(), nullable=False),
        pa.field("py", pa.float64(), nullable=False),
        pa.field("pz", pa.float64(), nullable=False),
        pa.field("e", pa.float64(), nullable=False),
        pa.field("n_constituents", pa.int32(), nullable=False),
        pa.field("pt_lead", pa.float64(), nullable=False),
    ]
)

# `n_jets` counts every jet above `pt_min`, also those that `max_jets` keeps out of the list. `mjj` (GeV, the
# invariant mass) and `delta_r` (in eta and phi) belong to the two leading jets; null where there are fewer.
SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("label", pa.int8()),
        pa.field("n_particles", pa.int32(), nullable=False),
        pa.field("n_jets", pa.int32(), nullable=False),
        pa.field("jets", pa.list_(pa.field("element", JET, nullable=False)), nullable=False),
        pa.field("mjj", pa.float64()),
        pa.field("delta_r", pa.float64()),
    ]
)
