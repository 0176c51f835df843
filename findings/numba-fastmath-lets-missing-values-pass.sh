#!/usr/bin/env bash
# numba: in a function with fastmath=True nothing is NaN, and a NaN passes a cut.
#
# `fastmath=True` is recommended for speed, and known to change the order of sums. It also promises the compiler that there
# is no NaN and no infinity: `np.isnan` is False of NaN, `np.isfinite` and `x == x` True, `x > 100` may be True of it,
# and `np.nansum` gives NaN. A loop that leaves out jets which an event does not have counts them in, without a warning.
# `fastmath={"reassoc", "contract"}` has the faster sums and keeps NaN.
# Seen with 0.68.1, on x86-64, of 150, nan, 250, nan, 50: 5 are not NaN and 4 are above 100; 3 and 2 without, or with the set.
# Source: this program; LLVM's reference of fast-math flags, `nnan` and `ninf`, which numba's `fastmath` refers to.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet numba==0.68.1 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings

import numba
import numpy as np

warnings.simplefilter("error")


def jets(masses):
    there = heavy = 0
    for mass in masses:
        if not np.isnan(mass):
            there += 1
        if mass > 100.0:
            heavy += 1
    return there, heavy


print("numba", numba.__version__, "numpy", np.__version__)
masses = np.array([150.0, np.nan, 250.0, np.nan, 50.0])
found = {}
for fastmath in (False, True, ("reassoc", "contract")):
    compiled = numba.njit(fastmath=set(fastmath) if isinstance(fastmath, tuple) else fastmath)(jets)
    found[fastmath] = compiled(masses)
    print(f"fastmath {fastmath}: {found[fastmath][0]} are not NaN, {found[fastmath][1]} are above 100")
assert found[False] == found["reassoc", "contract"] == (3, 2)
assert found[True] == (5, 4)
PYTHON
