#!/usr/bin/env bash
# h5py: a number read, or written, as a small integer is clipped, and NaN becomes 0, without the warning of NumPy.
#
# HDF5 converts between the types of a file and of memory itself. Labels stored as floats and read by `astype("int8")`,
# or copied into a data set of int8, are 0 where they were NaN: an event without a label is background. 300 is 127, and
# -1 as uint8 is 0. NumPy's astype wraps round, and says "invalid value encountered in cast" of NaN.
# Read floats, look at them, then cast.
# Seen with 3.16.0: of 1, nan, -1, 300 h5py makes 1, 0, -1, 127 as int8 and 1, 0, 0, 255 as uint8, no warning.
# Source: this program, on x86-64.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet h5py==3.16.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings

import h5py
import numpy as np

print("h5py", h5py.__version__, "HDF5", h5py.version.hdf5_version, "numpy", np.__version__)
labels = np.array([1.0, np.nan, -1.0, 300.0])
found = {}
with h5py.File("labels.h5", "w") as file:
    file["float"] = labels
    for kind in ("int8", "uint8"):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            read = file["float"].astype(kind)[:].tolist()
            written = file.create_dataset(kind, (4,), kind)
            written[:] = labels
            assert written[:].tolist() == read
        found[kind] = read
        with warnings.catch_warnings(record=True) as of_numpy:
            warnings.simplefilter("always")
            labels.astype(kind)
        print(f"{labels.tolist()} as {kind}: {read}, warnings {len(told)}; of NumPy: {of_numpy[0].message}")
        assert not told and "invalid value" in str(of_numpy[0].message)
assert found == {"int8": [1, 0, -1, 127], "uint8": [1, 0, 0, 255]}
PYTHON
