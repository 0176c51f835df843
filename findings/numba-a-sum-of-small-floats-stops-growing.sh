#!/usr/bin/env bash
# numba: the sum of float32 ends at 16,777,216, and the mean is of that; NumPy's is right.
#
# `weights.sum()` inside @njit adds one by one in the array's own type. From 2^24 on adding 1 to a float32 changes nothing,
# so twenty million events of weight 1 are 16,777,216, and their `mean()` is 0.84. Sums of other weights are wrong long
# before: five million of 0.1 give 478,275. NumPy adds in pairs and is exact to the last digits. The same line of code
# gives the one inside a compiled function and the other outside. Write `weights.astype(np.float64).sum()`, or
# start a loop's total at np.float64(0).
# Seen with 0.68.1: sum 16777216, mean 0.8389 of 20,000,000 ones; sum 478274.8 of 5,000,000 times 0.1.
# Source: this program; numba/np/arraymath.py, array_sum. Its documentation lists `sum` and `mean` as supported.
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


@numba.njit
def sum_and_mean(weights):
    return weights.sum(), weights.mean()


@numba.njit
def exact(weights):
    return weights.astype(np.float64).sum()


print("numba", numba.__version__, "numpy", np.__version__)
found = {}
for events, weight in ((20_000_000, 1.0), (5_000_000, 0.1)):
    weights = np.full(events, weight, np.float32)
    compiled, by_numpy, in_double = sum_and_mean(weights), weights.sum(), exact(weights)
    found[weight] = round(float(compiled[0]), 1), round(float(compiled[1]), 4)
    print(f"{events} of {weight}: sum {found[weight][0]}, mean {found[weight][1]}; by NumPy {by_numpy:.1f}, "
          f"compiled in float64 {in_double:.1f}")
    assert abs(by_numpy / (events * weight) - 1) < 1e-6 and abs(in_double / (events * weight) - 1) < 1e-6
assert found == {1.0: (16777216.0, 0.8389), 0.1: (478274.8, 0.0957)}
PYTHON
