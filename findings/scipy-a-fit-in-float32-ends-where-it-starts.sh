#!/usr/bin/env bash
# scipy: `minimize` of a function computed in float32 ends where it started, and says that it succeeded.
#
# A likelihood of float32 events and Python's numbers is a float32, as is one by JAX or by a network. Without a gradient,
# BFGS, L-BFGS-B, CG, SLSQP and TNC take it by a step of about 1e-8, the root of the precision of float64; a
# float32 does not change by so little, so that the gradient is 0 and the start is the minimum. `success` is True,
# and the "fitted" values are the guess. Nelder-Mead and Powell, which take no gradient, arrive.
# Cast the events to float64 first, or give the option `eps`, of 1e-3 or so.
# Seen with 1.17.1: mean of 1,000 events about 3, started at 1: float64 2.946 by all seven; float32 1.0 by the five, success.
# Source: this program; scipy/optimize/_optimize.py, `_epsilon`; documented of `eps` is the size of the step alone.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet scipy==1.17.1 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import scipy
from scipy.optimize import minimize

warnings.simplefilter("error")
BY_GRADIENT = ("BFGS", "L-BFGS-B", "CG", "SLSQP", "TNC")
events = np.random.default_rng(1).normal(3.0, 1.0, 1000)


def fitted(kind, method, **options):
    held = events.astype(kind)

    def negative_log_likelihood(parameters):
        mean = float(parameters[0])
        return 0.5 * np.sum((held - mean) ** 2)

    result = minimize(negative_log_likelihood, [1.0], method=method, options=options)
    return bool(result.success), round(float(result.x[0]), 3)


print("scipy", scipy.__version__, "numpy", np.__version__, "mean of the events", round(events.mean(), 3))
for method in (*BY_GRADIENT, "Nelder-Mead", "Powell"):
    double, single = fitted("float64", method), fitted("float32", method)
    print(f"{method:12} (success, mean) of float64 {double}, of float32 {single}")
    assert double == (True, 2.946)
    assert single == ((True, 1.0) if method in BY_GRADIENT else (True, 2.946))
print("BFGS of float32 by steps of 1e-3:", fitted("float32", "BFGS", eps=1e-3))
assert abs(fitted("float32", "BFGS", eps=1e-3)[1] - 2.946) < 0.005
PYTHON
