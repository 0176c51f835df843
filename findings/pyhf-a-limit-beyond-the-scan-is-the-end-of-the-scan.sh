#!/usr/bin/env bash
# pyhf: an upper limit that lies above the scanned strengths is returned as the largest of them.
#
# `upper_limit(data, model, scan)` looks for CLs = 0.05 among the results by a linear interpolation that holds its last
# value outside. If no strength of the scan is excluded, its end comes back as a limit at 95%, observed or expected,
# though CLs there is far above 0.05: the shorter the scan, the stronger the limit. Nothing is said. Without `scan` the
# root is searched for, and right. Look at the results (`return_results=True`) before believing a limit.
# Seen with 0.7.6: observed limit 2.66 by the search; 2, 1.5 and 1 by scans up to 2, 1.5 and 1, at CLs 0.15, 0.28 and 0.48.
# Source: this program; pyhf/infer/intervals/upper_limits.py, linear_grid_scan, whose documentation does not speak of it.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet pyhf==0.7.6 scipy==1.17.1 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np
import pyhf

upper_limit = pyhf.infer.intervals.upper_limits.upper_limit
model = pyhf.simplemodels.uncorrelated_background(signal=[5.0, 6.0], bkg=[50.0, 60.0], bkg_uncertainty=[5.0, 6.0])
data = [52.0, 62.0, *model.config.auxdata]
warnings.simplefilter("error")
right, _ = upper_limit(data, model)
print(f"pyhf {pyhf.__version__}: observed limit by search {float(right):.2f}")
for end in (2.0, 1.5, 1.0):
    limit, expected, (_, results) = upper_limit(data, model, np.linspace(0.0, end, 7), return_results=True)
    at_end = float(results[-1][0])
    print(f"scan up to {end}: limit {float(limit):.2f}, CLs there {at_end:.2f}; expected {np.round(expected, 2)}")
    assert float(limit) == end < float(right)
    assert at_end > 0.1
wide, _ = upper_limit(data, model, np.linspace(0.0, 8.0, 81))
print(f"scan up to 8: limit {float(wide):.2f}")
assert abs(wide - right) < 0.05
PYTHON
