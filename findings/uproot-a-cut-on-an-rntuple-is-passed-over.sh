#!/usr/bin/env bash
# uproot: of an RNTuple, which has taken the place of the tree, a cut is not applied, and all events come back.
#
# `arrays`, `iterate` and `concatenate` of an RNTuple take `cut` and `aliases` as those of a TTree do, and pass them over
# without an error or a warning; an expression such as "2 * pt" gives records without fields, as many as there are
# events. A program that selects by `cut="pt > 30"` goes on working when its input becomes an RNTuple, and selects
# nothing. Such a file is easily had: `file["events"] = {...}` writes an RNTuple now, where it wrote a tree before 5.7;
# `mktree` writes a tree. Read, and select by awkward, or refuse what is no TTree.
# Seen with uproot 5.7.7, of pt 10, 40 and 50: the tree gives 40 and 50, the RNTuple 10, 40 and 50, by all three; "2 * pt" of
# the tree 20, 80, 100, of the RNTuple three records without fields.
# Source: this program; uproot/behaviors/RNTuple.py, where both arguments are described and "(Not implemented yet.)" follows.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet uproot==5.7.7 awkward==2.14.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings

import awkward as ak
import numpy as np
import uproot

warnings.simplefilter("error")
columns = {"pt": np.array([10.0, 40.0, 50.0])}
with uproot.recreate("events.root") as file:
    file.mktree("tree", {"pt": "float64"})
    file["tree"].extend(columns)
    file["events"] = columns


def read(name):
    """The pt that pass a cut of 30 GeV, by the three ways, and 2 * pt of all events."""
    with uproot.open("events.root") as file:
        events = file[name]
        found = {
            "arrays": events.arrays(["pt"], cut="pt > 30")["pt"].tolist(),
            "iterate": ak.concatenate([step["pt"] for step in events.iterate(["pt"], cut="pt > 30")]).tolist(),
            "concatenate": uproot.concatenate(f"events.root:{name}", ["pt"], cut="pt > 30")["pt"].tolist(),
        }
        twice = events.arrays(["2 * pt"])
        twice = twice["2 * pt"].tolist() if twice.fields else twice.tolist()
        print(f"{type(events).__name__}: {found}; 2 * pt: {twice}")
        return type(events).__name__, list(found.values()), twice


print("uproot", uproot.__version__)
tree, selected, twice = read("tree")
assert tree == "Model_TTree_v20" and selected == [[40.0, 50.0]] * 3 and twice == [20.0, 80.0, 100.0]
tuples, all_of_them, without_fields = read("events")
assert tuples == "Model_ROOT_3a3a_RNTuple" and all_of_them == [[10.0, 40.0, 50.0]] * 3 and without_fields == [{}, {}, {}]
PYTHON
