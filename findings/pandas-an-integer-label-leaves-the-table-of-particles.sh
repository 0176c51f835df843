#!/usr/bin/env bash
# pandas and readers of HDF5: a label of another type than the particles is not in block0_values any more.
#
# The files of the LHC Olympics are pandas' fixed format: 2,100 columns of particles and a label, all float64, which
# is one table, df/block0_values (n, 2101), that many programs read by h5py. Of the same frame with the label as an
# integer pandas writes two: block0_values (n, 2100) and block1_values (n, 1). Who takes the last column for the label
# then has the azimuth of the last particle, and whoever asks for 2,100 columns finds a file without labels. With a
# bool it is the same. pandas itself gives back the frame.
# Seen with 3.1.1 and tables 3.11.1: float64 (3, 2101); int64 (3, 2100) and block1_values (3, 1).
# Source: this program.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet pandas==3.1.1 tables==3.11.1 h5py==3.16.0
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import h5py
import numpy as np
import pandas as pd

print(f"pandas {version('pandas')}, tables {version('tables')}, h5py {version('h5py')}")
shapes = {}
for kind in ("float64", "int64", "bool"):
    frame = pd.DataFrame(np.arange(3 * 2101, dtype=float).reshape(3, 2101))
    frame[2100] = np.array([0, 1, 0]).astype(kind)
    frame.to_hdf(f"{kind}.h5", key="df")
    with h5py.File(f"{kind}.h5") as file:
        shapes[kind] = {name: file["df"][name].shape for name in file["df"] if name.endswith("_values")}
        print(kind, shapes[kind], "last column of block0:", file["df/block0_values"][:, -1].tolist())
    assert pd.read_hdf(f"{kind}.h5")[2100].astype(float).tolist() == [0, 1, 0]
assert shapes["float64"] == {"block0_values": (3, 2101)}
assert shapes["int64"] == shapes["bool"] == {"block0_values": (3, 2100), "block1_values": (3, 1)}
PYTHON
