#!/usr/bin/env bash
# uproot with hist: if an axis has no underflow bin, what is in its overflow bin is not written to the ROOT file.
#
# An axis of pt or mass, which is never negative, is often made with `underflow=False`. A histogram of ROOT always has
# both bins; uproot writes 0 for the one that is missing, and for the overflow, which was there, 0 too. The number of
# events, and every normalisation by it, is short of those above the axis. One axis of several is enough: beside a
# `StrCategory`, which never has an underflow, the mass loses its overflow too. Axes with both bins are written whole.
# Seen with uproot 5.7.7 and hist 2.12.1: of 4 events, one above the axis, 3 are in the file, and 4 of an axis with both;
# beside a category 3.
# Source: this program; uproot/writing/identify.py takes the flow bins only where every axis has two.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet uproot==5.7.7 hist==2.12.1 boost-histogram==1.8.1 awkward==2.14.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings
from importlib.metadata import version

import uproot
from hist import Hist

print("uproot", version("uproot"), "hist", version("hist"))
warnings.simplefilter("error")
VALUES = [0.5, 1.5, 2.5, 9.0]
made = {
    "both": Hist.new.Reg(3, 0, 3, name="pt").Double().fill(VALUES),
    "no_underflow": Hist.new.Reg(3, 0, 3, name="pt", underflow=False).Double().fill(VALUES),
    "by_process": Hist.new.StrCat(["signal"], name="process").Reg(3, 0, 3, name="pt").Double().fill("signal", VALUES),
}
with uproot.recreate("written.root") as file:
    for name, histogram in made.items():
        file[name] = histogram
read = {}
with uproot.open("written.root") as file:
    for name, histogram in made.items():
        read[name] = file[name].values(flow=True).tolist()
        print(f"{name}: {histogram.values(flow=True)} is in the file {read[name]}")
    assert histogram.sum(flow=True) == 4
assert read["both"] == [0, 1, 1, 1, 1]
assert read["no_underflow"] == [0, 1, 1, 1, 0]
assert read["by_process"][1] == [0, 1, 1, 1, 0]  # bin 0 of a ROOT axis is its underflow
PYTHON
