#!/usr/bin/env bash
# FastJet: whether a jet of exactly ptmin is kept depends on its azimuth.
#
# `inclusive_jets(ptmin)` compares px*px + py*py with ptmin*ptmin, and rounding decides: of one particle of pt 20 at 32
# azimuths, some are jets at ptmin 20 and some are not, though `jet.pt()` of those left out can be 20.0 to the last bit.
# Files with pt rounded to GeV, and thresholds that are whole numbers, meet this; a selection by `jet.pt() >= 20` written
# by hand keeps other jets.
# Seen with 3.5.2.0: 23 of 32 are jets; left out though pt() == 20.0 at phi 0.2, 0.3, 1.4, 1.6, 1.8, 3.0, 3.1.
# Source: this program; ClusterSequence::inclusive_jets.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet fastjet==3.5.2.0 awkward==2.14.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON' 2>&1 | grep -v '^#'
from importlib.metadata import version
from math import cos, sin

import fastjet

definition = fastjet.JetDefinition(fastjet.antikt_algorithm, 1.0)
kept, lost_of_exactly_20 = [], []
for tenth in range(32):
    phi = tenth / 10
    particle = fastjet.PseudoJet(20.0 * cos(phi), 20.0 * sin(phi), 0.0, 20.0)
    sequence = fastjet.ClusterSequence([particle], definition)
    if len(sequence.inclusive_jets(20.0)):
        kept.append(phi)
    elif sequence.inclusive_jets(0.0)[0].pt() == 20.0:
        lost_of_exactly_20.append(phi)
print("fastjet", version("fastjet"))
print(f"of 32 particles of pt 20, {len(kept)} are jets at ptmin 20")
print("left out though pt() == 20.0, at phi", lost_of_exactly_20)
assert 0 < len(kept) < 32
assert lost_of_exactly_20
PYTHON
