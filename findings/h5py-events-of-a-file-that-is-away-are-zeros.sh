#!/usr/bin/env bash
# h5py: events of a file that is not where it was read as zeros, if they are read through a virtual data set.
#
# A virtual data set shows the files of a production as one table, without copying. If one of them was moved, renamed, is not
# mounted, or holds its data set by another name, nothing is raised: its rows have the fill value, 0 unless said
# otherwise. A label of 0 is background, momenta of 0 are an event without particles, and where empty slots are padded by
# zeros nothing tells them apart. By `fillvalue=nan` in `create_virtual_dataset` such rows can be seen, or ask for each
# file of `dataset.virtual_sources()` whether it is there.
# Seen with 3.16.0 and HDF5 2.0.0: labels 1 1 1 1 1 1 of two files; 1 1 1 0 0 0 with the second renamed.
# Source: this program; the docstring of `create_virtual_dataset` calls `fillvalue` the value to use where there is no
# data, and does not say that a file which is not found counts as that.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet h5py==3.16.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings
from pathlib import Path

import h5py
import numpy as np

warnings.simplefilter("error")
print("h5py", h5py.__version__, "HDF5", h5py.version.hdf5_version, "numpy", np.__version__)
NAMES = ("first.h5", "second.h5")
layout = h5py.VirtualLayout(shape=(6,), dtype="float64")
for number, name in enumerate(NAMES):
    with h5py.File(name, "w") as file:
        file["label"] = np.ones(3)
    layout[3 * number : 3 * number + 3] = h5py.VirtualSource(name, "label", shape=(3,))
for name, how in {"all.h5": {}, "told.h5": {"fillvalue": np.nan}}.items():
    with h5py.File(name, "w") as file:
        file.create_virtual_dataset("label", layout, **how)


def read(name="all.h5"):
    with h5py.File(name) as file:
        return file["label"][:].tolist()


both = read()
print("both files there:", both)
Path("second.h5").rename("moved.h5")
one, told = read(), read("told.h5")
print(f"the second renamed: {one}, with fillvalue=nan {told}")
with h5py.File("second.h5", "w") as file:
    file["labels"] = np.ones(3)
other = read()
print("the second with its data set by another name:", other)
assert both == [1.0] * 6
assert one == other == [1.0] * 3 + [0.0] * 3
assert np.array_equal(told, [1.0] * 3 + [np.nan] * 3, equal_nan=True)
PYTHON
