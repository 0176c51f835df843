#!/usr/bin/env bash
# uproot with hist: a weighted histogram of the usual storage is written as one of counts, with errors that are wrong.
#
# `Double`, which hist and boost-histogram take unless told otherwise, keeps no sum of squared weights; `variances()`
# of such a histogram, filled with weights, is None. In a ROOT file that uproot writes from it nothing says so: there is
# no Sumw2, which is how ROOT marks plain counts, and whoever reads it gets the contents for variances. Fill a storage
# `Weight`, and the errors arrive.
# Seen with uproot 5.7.7 and hist 2.12.1: of weights 2, 2 and 3 variances 4 and 3 are read back; 8 and 9 are right.
# Source: this program.
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
axis = Hist.new.Reg(2, 0, 2, name="x")
made = {
    "Double": axis.Double().fill([0.5, 0.5, 1.5], weight=[2, 2, 3]),
    "Weight": axis.Weight().fill([0.5, 0.5, 1.5], weight=[2, 2, 3]),
}
with uproot.recreate("written.root") as file:
    for name, histogram in made.items():
        file[name] = histogram
read = {}
with uproot.open("written.root") as file:
    for name, histogram in made.items():
        read[name] = file[name].variances().tolist()
        print(f"{name}: contents {file[name].values()}, variances {histogram.variances()}, read back {read[name]}")
        assert file[name].values().tolist() == [4, 3]
assert made["Double"].variances() is None and read["Double"] == [4, 3]
assert read["Weight"] == [8, 9]
PYTHON
