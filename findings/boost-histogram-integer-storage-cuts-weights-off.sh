#!/usr/bin/env bash
# boost-histogram, and so hist: a histogram of whole numbers takes weights, and cuts each down to a whole number.
#
# `storage=Int64()` (in hist `.Int64()`) is for counts. Filled with `weight=`, it raises nothing: every entry adds the
# whole part of its own weight, so ten events of weight 0.9 add 0 and ten of 1.9 add 10. AtomicInt64 does the same.
# Weights below 1, such as those that scale a simulation to a luminosity, give an empty histogram.
# Seen with 1.8.1: 0, 0, 10 of ten events of weight 0.9, -0.9, 1.9; 9, -9, 19 with the storage Double.
# Source: this program.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet boost-histogram==1.8.1 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import boost_histogram as bh

WEIGHTS = (0.9, -0.9, 1.9)


def filled(storage):
    found = []
    for weight in WEIGHTS:
        histogram = bh.Histogram(bh.axis.Regular(1, 0, 4), storage=storage())
        histogram.fill([1.0] * 10, weight=[weight] * 10)
        found.append(round(float(histogram.values()[0]), 6))
    print(f"{storage.__name__:12} ten events of weight {WEIGHTS}: {found}")
    return found


print("boost-histogram", bh.__version__)
assert filled(bh.storage.Double) == [9, -9, 19]
assert filled(bh.storage.Int64) == filled(bh.storage.AtomicInt64) == [0, 0, 10]
PYTHON
