#!/usr/bin/env bash
# safetensors 0.8.0 for NumPy: an array that is not stored row by row is written with its values in other places.
#
# A transposed matrix, every second column of an array, what `np.linalg` or a table of columns (pandas, HDF5) gives in
# Fortran's order: `save_file` takes the memory as it lies and the shape as it is said. What is loaded has the right
# shape and type, and values in the wrong rows, of a view values that it does not even hold. Nothing is raised;
# `safetensors.torch` refuses such tensors. Write `np.ascontiguousarray(array)`. 0.7.0 wrote them right.
# Seen: [[0 1 2] [3 4 5]] in columns is [[0 3 1] [4 2 5]] by 0.8.0; columns 0 and 2 are [[0 1] [2 3]].
# Source: this program; safetensors/safetensors issue 825.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
cd "$place"
cat > orders.py <<'PYTHON'
import sys
import warnings
from importlib.metadata import version

import numpy as np
from safetensors.numpy import load, load_file, save, save_file

warnings.simplefilter("error")
rows = np.arange(6, dtype=np.float32).reshape(2, 3)
print("safetensors", version("safetensors"), "numpy", np.__version__)
found = {}
for name, array in {"rows": rows, "columns": np.asfortranarray(rows), "view": rows[:, ::2]}.items():
    save_file({"array": array}, "array.safetensors")
    read = load_file("array.safetensors")["array"]
    assert read.shape == array.shape and read.dtype == array.dtype
    assert np.array_equal(read, load(save({"array": array}))["array"])
    found[name] = read.tolist()
    print(f"{name}: {array.tolist()} is read as {found[name]}")
assert found["rows"] == rows.tolist()
if sys.argv[1] == "right":
    assert found["columns"] == rows.tolist() and found["view"] == rows[:, ::2].tolist()
else:
    assert found["columns"] == [[0, 3, 1], [4, 2, 5]]
    assert found["view"] == [[0, 1], [2, 3]]
PYTHON
"$place/venv/bin/pip" install --quiet safetensors==0.7.0 numpy==2.4.6
"$place/venv/bin/python" orders.py right
"$place/venv/bin/pip" install --quiet safetensors==0.8.0
"$place/venv/bin/python" orders.py wrong
