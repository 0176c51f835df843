#!/usr/bin/env bash
# fastjet 3.5.1.2 in Python: a slice of an awkward array of events gives the jets of other events.
#
# `ClusterSequence(events[1:], definition)` has as many lists of jets as the slice has events, but they are those of
# events[0:2]: offsets of the array are read as if they began at 0. Nothing is raised. A chunk of events cut out of a
# larger array is what every batched analysis gives. `ak.to_packed` in front, or fastjet of 3.5.1.5 and later, is right.
# Seen: leading jets of three events 112.96, 168.46, 76.83; of [1:] 112.96, 168.46 by 3.5.1.2, 168.46, 76.83 by 3.5.2.0.
# Source: this program; scikit-hep/fastjet pull request 400 mends it.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
for version in 3.5.1.2 3.5.2.0; do
    python3 -m venv "$place/$version"
    "$place/$version/bin/pip" install --quiet "fastjet==$version" awkward==2.14.0 numpy==2.4.6
done
cd "$place"
cat > slices.py <<'PYTHON'
import sys
from importlib.metadata import version

import awkward as ak
import fastjet
import numpy as np

numbers = np.random.default_rng(1)
pt, eta, phi = numbers.exponential(20, 60), numbers.normal(0, 1.5, 60), numbers.uniform(-3, 3, 60)
momenta = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta), "E": pt * np.cosh(eta)}
events = ak.unflatten(ak.Array(momenta), [20, 20, 20])


def leading(some):
    sequence = fastjet.ClusterSequence(some, fastjet.JetDefinition(fastjet.antikt_algorithm, 1.0))
    jets = sequence.inclusive_jets()
    return [round(float(pt), 2) for pt in ak.max(np.hypot(jets.px, jets.py), axis=1)]


whole, cut, packed = leading(events), leading(events[1:]), leading(ak.to_packed(events[1:]))
print(f"fastjet {version('fastjet')}: leading jets of three events {whole}; of [1:] {cut}; of [1:], packed, {packed}")
assert packed == whole[1:]
assert cut == (whole[:2] if sys.argv[1] == "wrong" else whole[1:])
PYTHON
"$place/3.5.1.2/bin/python" slices.py wrong 2>&1 | grep -v '^#'
"$place/3.5.2.0/bin/python" slices.py right 2>&1 | grep -v '^#'
