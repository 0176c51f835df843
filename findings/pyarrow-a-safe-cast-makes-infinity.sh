#!/usr/bin/env bash
# pyarrow: a safe cast to a smaller floating type makes infinity of what does not fit.
#
# `cast` is safe unless told otherwise, which by its documentation is a check for overflow, and between other types is one:
# 100,000 as int8, 2^24 + 1 as float32 and NaN as int32 are refused. From a float to a smaller float nothing is checked.
# Momenta in MeV, or squared masses in GeV^2, put into float16 to save room are inf from 65,520 on: those of 70 GeV, or
# of a jet of mass 256 GeV. Tables cast by a schema are no different. Compare `is_finite` before and after.
# Seen with 26.0.1: of 30,000, 65,519, 65,520 and 70,000 as float16 30,000, 65,504, inf, inf; 1e39 as float32 inf.
# Source: this program; the documentation of pyarrow.Array.cast and of pyarrow.compute.CastOptions.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet pyarrow==26.0.1 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings

import pyarrow as pa

warnings.simplefilter("error")
inf = float("inf")
print("pyarrow", pa.__version__)
momenta = pa.array([30_000.0, 65_519.0, 65_520.0, 70_000.0])
small = [float(one) for one in momenta.cast(pa.float16(), safe=True).to_pylist()]
print(f"as float16: {momenta.to_pylist()} are {small}")
assert small == [30_000.0, 65_504.0, inf, inf]
table = pa.table({"pt": momenta}).cast(pa.schema({"pt": pa.float16()}))
assert [float(one) for one in table["pt"].to_pylist()] == small
assert pa.array([1e39]).cast(pa.float32()).to_pylist() == [inf]
for values, kind in (([1e5], pa.int8()), ([float("nan")], pa.int32()), ([2**24 + 1], pa.float32())):
    try:
        pa.array(values).cast(kind)
    except pa.ArrowInvalid as error:
        print(f"as {kind}: {error}")
    else:
        raise SystemExit(f"{values} was taken as {kind}")
PYTHON
