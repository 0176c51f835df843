#!/usr/bin/env bash
# formulate: ROOT's && of two counts is translated into a bitwise &, so an event with two jets and one muon fails.
#
# In a cut of ROOT a number that is not 0 is true: `nJet && nMuon` asks for both, `!nMuon` for none. `from_root` makes of &&
# and || the operators & and | for numexpr and for Python, without making its operands true or false. 2 & 1 is 0, and
# `pt > 30 && nMuon` keeps odd numbers of muons alone. The veto `!nMuon && pt > 30` becomes ~nMuon for numexpr, which
# lets events with two muons pass; for Python it is right (logical_not). Nothing is raised, of columns of whole
# numbers. Compare counts in the cut itself (`nJet > 0 && nMuon > 0`), and all three say the same.
# Seen with formulate 1.1.0 and numexpr 2.14.2, of events with 0, 1, 2 and 3 muons: `nJet && nMuon` passes 1 and 3 muons beside
# one jet, 2 and 3 beside two, where 1, 2 and 3 are right; `!nMuon && pt > 30` passes 0 and 2, where 0 is right.
# Source: this program; formulate/identifiers.py, whose comment says that numexpr's ~ knows booleans alone and fails loudly;
# formulate's page on PyPI says that it knows where the languages disagree "such as && and &".
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet formulate==1.1.0 numexpr==2.14.2 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings
from importlib.metadata import version

import formulate
import numexpr
import numpy as np

warnings.simplefilter("error")
muons, momenta = np.arange(4), np.full(4, 50.0)
print("formulate", version("formulate"), "numexpr", numexpr.__version__)


def passing(cut, jets=1):
    """The events that pass a cut of ROOT, by numexpr and by Python."""
    columns = {"nJet": np.full(4, jets), "nMuon": muons, "pt": momenta}
    parsed = formulate.from_root(cut)
    by_numexpr = numexpr.evaluate(parsed.to_numexpr(), columns)
    by_python = eval(parsed.to_python(), {"np": np, **columns})
    found = [np.flatnonzero(by).tolist() for by in (by_numexpr, by_python)]
    print(f"{cut} with {jets} jets: events {found[0]} by numexpr, {parsed.to_numexpr()}, {found[1]} by Python")
    return found


assert passing("nJet && nMuon", jets=1) == [[1, 3], [1, 3]]
assert passing("nJet && nMuon", jets=2) == [[2, 3], [2, 3]]
assert passing("pt > 30 && nMuon") == [[1, 3], [1, 3]]
assert passing("!nMuon && pt > 30") == [[0, 2], [0]]
assert passing("nJet > 0 && nMuon > 0", jets=2) == [[1, 2, 3], [1, 2, 3]]
assert passing("nMuon == 0 && pt > 30") == [[0], [0]]
PYTHON
