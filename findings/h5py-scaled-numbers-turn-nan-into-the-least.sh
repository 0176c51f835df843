#!/usr/bin/env bash
# h5py: with the filter scaleoffset a NaN is read back as the least value of its chunk.
#
# `scaleoffset=3` keeps three decimals of floats, which suits momenta, and is known to round. A chunk with NaN in it (the
# mass of a jet that an event does not have) is packed all the same: what was NaN is the smallest number of the chunk
# when it is read, a value like any other, and another one in the next chunk. There is no warning, neither in writing nor in
# reading. Keep such columns with gzip and shuffle, or put a number for what is missing.
# Seen with 3.16.0 and HDF5 2.0.0, on x86-64: 120.5 nan 85.25 91 is read as 120.5 85.25 85.25 91.
# Source: this program; h5py's documentation calls the filter lossy for floats.
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

warnings.simplefilter("error")
nan = np.nan
print("h5py", h5py.__version__, "HDF5", h5py.version.hdf5_version, "numpy", np.__version__)


def read_back(masses, kind, **packed):
    with h5py.File("masses.h5", "w") as file:
        file.create_dataset("mass", data=np.array(masses, kind), chunks=(4,), **packed)
    with h5py.File("masses.h5") as file:
        return file["mass"][:].tolist()


for kind in ("float32", "float64"):
    masses = [120.5, nan, 85.25, 91.0]
    scaled = read_back(masses, kind, scaleoffset=3)
    packed = read_back(masses, kind, compression="gzip", shuffle=True)
    print(f"{kind}: {masses} is read as {scaled}, by gzip {packed}")
    assert np.allclose(scaled, [120.5, 85.25, 85.25, 91.0], rtol=0, atol=1e-3)
    assert np.array_equal(packed, masses, equal_nan=True)
    two_chunks = read_back([*masses, 30.0, nan, 45.0, 60.0], kind, scaleoffset=3)
    assert np.allclose(two_chunks, [120.5, 85.25, 85.25, 91.0, 30.0, 30.0, 45.0, 60.0], rtol=0, atol=1e-3)
PYTHON
