#!/usr/bin/env bash
# fastjet in Python: njettiness takes a name of axes, or of a measure, that it does not know, and uses kt axes.
#
# `axes_definition="WTA_KT"` (the name is WTA_KT_Axes) raises nothing and gives tau of the plain kt axes, not even of
# the default, which is OnePass_KT_Axes. A measure that is not known is NormalizedMeasure. tau_N of one kind of axes is
# another quantity than tau_N of another: here they differ in the second digit.
# Seen with 3.5.2.0: tau1 to tau3 of WTA_KT_Axes 0.288 0.226 0.164; of "WTA_KT" and of KT_Axes 0.274 0.224 0.175.
# Source: this program.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet fastjet==3.5.2.0 awkward==2.14.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON' 2>&1 | grep -v '^#'
from importlib.metadata import version

import awkward as ak
import fastjet
import numpy as np

numbers = np.random.default_rng(1)
pt, eta, phi = numbers.exponential(20, 40) + 0.5, numbers.normal(0, 0.3, 40), numbers.normal(0, 0.3, 40)
momenta = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta), "E": pt * np.cosh(eta)}
jets = ak.unflatten(ak.Array(momenta), [40])
sequence = fastjet.ClusterSequence(jets, fastjet.JetDefinition(fastjet.cambridge_algorithm, 1000.0))


def tau(axes, measure="NormalizedMeasure"):
    values = sequence.njettiness(measure_definition=measure, axes_definition=axes, njets=[1, 2, 3], R0=1.0)
    return np.round(ak.to_numpy(values)[0], 6).tolist()


print("fastjet", version("fastjet"))
for name in ("WTA_KT_Axes", "OnePass_KT_Axes", "KT_Axes", "WTA_KT", "no such axes"):
    print(f"{name:16}", *tau(name))
assert tau("WTA_KT") == tau("no such axes") == tau("KT_Axes")
assert tau("WTA_KT") != tau("WTA_KT_Axes")
assert tau("WTA_KT") != tau("OnePass_KT_Axes")
assert tau("KT_Axes", "no such measure") == tau("KT_Axes")
PYTHON
