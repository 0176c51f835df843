#!/usr/bin/env bash
# vector: momenta of a small type are squared in that type: 300 GeV in float16 have pt inf, 50 GeV in MeV a wrong one.
#
# float16 holds up to 65,504, enough for any momentum in GeV, and data sets for networks are stored in it; but pt is the
# root of px*px + py*py in the array's own type, so from 256 GeV on it is inf. Whole MeV in int32 wrap round above
# 46 GeV: 50 GeV in x and in y give a pt of 26.6 GeV, and |p| can be nan. There is no warning, in float16 neither.
# The same numbers in `vector.obj`, which holds Python's own, are right. Cast to float64 before making vectors.
# Seen with 1.9.0: pt inf of px = py = 300 in float16; 26552.45 of px = py = 50,000 in int32, where 70710.68 is right.
# Source: this program; vector/_compute/planar/rho.py.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet vector==1.9.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings
from importlib.metadata import version

import numpy as np
import vector


def stored(kind, momentum):
    columns = {name: np.array([momentum], kind) for name in ("px", "py", "pz")}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        held = vector.array(columns)
        found = round(held.pt[0].item(), 2), round(held.p[0].item(), 2)
    print(f"{kind}, px = py = pz = {momentum}: pt {found[0]}, p {found[1]}, warnings {len(told)}")
    return (*found, len(told))


print("vector", version("vector"), "numpy", np.__version__)
half, exact = stored("float16", 300), stored("float64", 300)
whole, right = stored("int32", 50_000), stored("float64", 50_000)
assert half[:2] == (np.inf, np.inf) and half[2] == 0
assert whole[0] == 26552.45 and np.isnan(whole[1]) and whole[2] == 0
assert exact[0] == 424.26 and right[0] == 70710.68
assert right[0] == round(vector.obj(px=50_000, py=50_000, pz=50_000).pt, 2)
PYTHON
