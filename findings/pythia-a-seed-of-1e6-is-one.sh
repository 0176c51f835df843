#!/usr/bin/env bash
# Pythia 8: of a setting's value the front is read that makes a number, and the rest is dropped without a word.
#
# Of a whole number in powers of ten that is what stands before the e: `Random:seed = 1e6` and `Random:seed = 1e7` are both
# the seed 1. `Main:numberOfEvents = 100,000` is 100. `Beams:eCM = 13 TeV`, or 13,000, is 13 GeV, and
# `32:m0 = 3.5 TeV` a particle of 3.5 GeV. `readString` returns True. Only a value of which nothing is a number, a name that
# is not known and a value out of range are refused. Have Python make the number, and ask the settings what they took.
# Seen with pythia8mc 8.317.2: seeds 1 and 1 of 1e6 and 1e7; 100 events of 100,000; 13 of "13 TeV" and of "13,000.".
# Source: this program; the manual's page "Settings Scheme", which says what is done with names that do not exist and with
# values out of range, and does not speak of values that are more than a number.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet pythia8mc==8.317.2
cd "$place"
"$place/venv/bin/python" - > told 2>&1 <<'PYTHON' || { cat told; exit 1; }
from importlib.metadata import version

import pythia8mc

GIVEN = {
    "Random:seed = 1e6": ("mode", 1),
    "Random:seed = 1e7": ("mode", 1),
    "Main:numberOfEvents = 100,000": ("mode", 100),
    "Beams:eCM = 13 TeV": ("parm", 13.0),
    "Beams:eCM = 13,000.": ("parm", 13.0),
}
print("pythia8mc", version("pythia8mc"))
pythia = pythia8mc.Pythia("", False)
for line, (kind, expected) in GIVEN.items():
    taken = pythia.readString(line)
    found = getattr(pythia.settings, kind)(line.split(" = ")[0])
    print(f"{line!r}: readString {taken}, the value is {found}")
    assert taken and found == expected
assert pythia.readString("32:m0 = 3.5 TeV") and pythia.particleData.m0(32) == 3.5
print("'32:m0 = 3.5 TeV': the mass is", pythia.particleData.m0(32))
assert not pythia.readString("Beams:eCM = much", False) and not pythia.readString("Beams:eMC = 13000.", False)
PYTHON
cat told
if grep -E "Error|Warning" told; then echo "Pythia said something" >&2; exit 1; fi
