#!/usr/bin/env bash
# fastjet in Python: the strategy given to JetDefinition behind the recombination scheme is taken as the scheme.
#
# In C++ `JetDefinition(antikt_algorithm, R, E_scheme, Best)` means the E scheme by the strategy Best. The Python class
# has the enumerations as plain integers, and the call reaches the overload (algorithm, R, extra parameter, scheme):
# E_scheme (0) becomes the extra parameter and Best (1) the scheme pt_scheme. The E scheme that was written is lost
# without a word, and jets have other momenta: massless particles give massless jets of a scalar sum of pt.
# NlnN (2) gives pt2_scheme. Those with negative numbers (N2Plain, N2Tiled) do raise.
# Seen with 3.5.2.0: leading jet of pt 559.44 and mass 242.63 by E_scheme, of 600.0 and 0 by E_scheme and Best.
# Source: this program; the overloads are those of fastjet/JetDefinition.hh, which the wheel ships.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet fastjet==3.5.2.0 awkward==2.14.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON' 2>&1 | grep -v '^#'
from importlib.metadata import version
from math import cos, cosh, sin, sinh

import fastjet

particles = [
    fastjet.PseudoJet(pt * cos(phi), pt * sin(phi), pt * sinh(eta), pt * cosh(eta))
    for pt, eta, phi in ((300.0, 0.2, 0.1), (200.0, -0.2, 0.6), (100.0, 0.1, -0.5))
]


def leading(*definition):
    jets = fastjet.JetDefinition(fastjet.antikt_algorithm, 1.0, *definition)
    jet = fastjet.sorted_by_pt(fastjet.ClusterSequence(particles, jets).inclusive_jets())[0]
    return jets.description().rpartition(" and ")[2], round(jet.pt(), 2), round(jet.m(), 2)


meant = leading(fastjet.E_scheme)
best = leading(fastjet.E_scheme, fastjet.Best)
nlnn = leading(fastjet.E_scheme, fastjet.NlnN)
print("fastjet", version("fastjet"))
print("E_scheme                 :", *meant)
print("E_scheme and Best        :", *best)
print("E_scheme and NlnN        :", *nlnn)
assert meant[0] == "E scheme recombination" and meant[2] > 100
assert best == leading(fastjet.pt_scheme) and best[0] == "pt scheme recombination" and best[2] < 1e-3
assert nlnn[0] == "pt2 scheme recombination"
PYTHON
