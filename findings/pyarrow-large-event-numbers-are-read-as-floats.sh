#!/usr/bin/env bash
# pyarrow: event numbers above 2^63 are read from CSV, or JSON, as floats, and neighbours become the same event.
#
# Numbers of events, and identifiers made by hashing, are often unsigned 64-bit integers. Without a type told, the
# reader tries int64 and then float64, never uint64: one number of 2^63 or more in a column makes all of them
# floats, which have 53 bits, small ones of the same column included. Two events are then equal, a join by the number
# matches wrong rows, and nothing is said. pandas reads the column as uint64. Tell the type:
# `ConvertOptions(column_types={"event": pa.uint64()})`.
# Seen with 26.0.1: of 9007199254740993, 9223372036854775809 and 9223372036854775811 two are left, and the first is ...992.
# Source: this program; the documentation of the CSV reader lists the types that are tried.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet pyarrow==26.0.1 pandas==3.1.1
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import io
import warnings

import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.json as json

warnings.simplefilter("error")
EVENTS = [2**53 + 1, 2**63 + 1, 2**63 + 3]
rows = "".join(f"{event},1.5\n" for event in EVENTS)
text = f"event,mass\n{rows}".encode()
lines = "".join(f'{{"event": {event}}}\n' for event in EVENTS).encode()

print("pyarrow", pa.__version__, "pandas", pd.__version__)
print("written:        ", EVENTS)
for name, table in (("CSV", csv.read_csv(io.BytesIO(text))), ("JSON", json.read_json(io.BytesIO(lines)))):
    read = [int(event) for event in table["event"].to_pylist()]
    print(f"{name}, {table['event'].type}: {read}")
    assert table["event"].type == pa.float64()
    assert read == [2**53, 2**63, 2**63]
by_pandas = pd.read_csv(io.BytesIO(text))["event"]
told = csv.read_csv(io.BytesIO(text), convert_options=csv.ConvertOptions(column_types={"event": pa.uint64()}))
print(f"by pandas, {by_pandas.dtype}: {by_pandas.tolist()}")
assert by_pandas.dtype == "uint64" and by_pandas.tolist() == told["event"].to_pylist() == EVENTS
small = csv.read_csv(io.BytesIO(b"event\n9007199254740993\n"))["event"]
assert small.type == pa.int64() and small.to_pylist() == [2**53 + 1]
PYTHON
