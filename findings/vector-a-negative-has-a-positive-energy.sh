#!/usr/bin/env bash
# vector: p - q and p + (-q) are different momenta where q is given by its mass.
#
# `-q`, and `q * -1`, turn the three-momentum of a vector of (pt, phi, eta, mass) round and leave its mass, so that its
# energy stays positive: it is a particle that flies the other way, not the negative of the four-momentum. The same
# vector in (px, py, pz, E) changes the sign of its energy too. Nothing is raised; a momentum transfer or a missing
# momentum made with signs has another mass, by the coordinates in which the file was written. `neg4D` is said to be
# the same as multiplying by -1, and is. `p - q` is right in all coordinates.
# Seen with 1.9.0: mass -57.11 (spacelike) by p - q, 66.42 by p + (-q), -57.11 by p + (-q.to_xyzt()).
# Source: this program; vector/_compute/lorentz/scale.py. ROOT documents the same of its vectors by mass.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet vector==1.9.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import vector

one = {"pt": 50.0, "phi": 0.1, "eta": 0.5, "mass": 5.0}
other = {"pt": 30.0, "phi": -1.0, "eta": -0.5, "mass": 2.0}
print("vector", version("vector"))
for make in (lambda of: vector.obj(**of), lambda of: vector.array({name: np.array([x]) for name, x in of.items()})):
    p, q = make(one), make(other)
    masses = {
        "p - q": p - q,
        "p + (-q)": p + (-q),
        "p + (-1) * q": p + (-1) * q,
        "p + q.neg4D": p + q.neg4D,
        "p + (-q.to_xyzt())": p + (-q.to_xyzt()),
    }
    masses = {name: round(np.asarray(momentum.mass).item(), 2) for name, momentum in masses.items()}
    print(type(p).__name__, masses)
    assert masses["p - q"] == masses["p + (-q.to_xyzt())"] == -57.11
    assert masses["p + (-q)"] == masses["p + (-1) * q"] == masses["p + q.neg4D"] == 66.42
    assert np.all((-q).E > 0) and np.all((-q.to_xyzt()).E < 0)
PYTHON
