#!/usr/bin/env bash
# EnergyFlow: a jet that lies across phi = pi is torn apart where it should be centred.
#
# `center_ptyphims` subtracts the jet's axis from the azimuths of its particles, and does not bring the differences back
# to [-pi, pi]. Of a jet at phi = pi, with azimuths in [-pi, pi] as most programs give them, one half is then 6.2 from
# the other: outside of a jet image, and far away for `emd`, whose `periodic_phi` is False unless told. The sum of the
# momenta, from which the axis is made, is right, so the axis looks well. Of jets of R = 0.4 at all azimuths 1 in 8 lies that
# near. Pass phi through `phi_fix(phis, phi_ref)` first.
# Seen with 1.4.0: particles at 3.1 and -3.1 are centred to -0.0416 and -6.2416; moved by 1 in phi to -0.0416 and 0.0416.
# Source: this program; the documentation of `center_ptyphims`: "positions centered around the origin".
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet energyflow==1.4.0 wasserstein==1.1.0 numpy==1.26.4
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings
from importlib.metadata import version

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import energyflow as ef

warnings.simplefilter("error")
pi = np.pi
print("energyflow", version("energyflow"), "numpy", np.__version__)


def centred(phis):
    """The azimuths of two particles of 10 GeV when their jet is centred, and the jet's own."""
    jet = np.array([[10.0, 0.0, phi] for phi in phis])
    return ef.center_ptyphims(jet)[:, 2], ef.sum_ptyphims(jet)[2]


across, axis = centred([3.1, -3.1])
turned, _ = centred([3.1 - 1.0, 2 * pi - 3.1 - 1.0])
fixed, _ = centred(ef.phi_fix(np.array([3.1, -3.1]), 3.1))
print(f"at 3.1 and -3.1, axis {axis:.4f}: {np.round(across, 4).tolist()}")
print(f"the same jet, turned by 1: {np.round(turned, 4).tolist()}; with phi_fix first: {np.round(fixed, 4).tolist()}")
assert np.allclose(np.abs(axis), pi)
assert np.isclose(np.ptp(across), 6.2) and np.isclose(np.ptp(turned), 2 * pi - 6.2)
assert np.allclose(fixed, turned)
PYTHON
