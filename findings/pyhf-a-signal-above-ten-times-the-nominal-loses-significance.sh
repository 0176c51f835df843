#!/usr/bin/env bash
# pyhf: the signal strength cannot be above 10 unless told so, and a discovery is then reported with too large a p-value.
#
# A normfactor has bounds (0, 10). Where the signal's template is small (a model with a cross section of 1 fb, a bump
# hunt in arbitrary units) the best strength is larger: the fit ends at 10, pulls the background's parameters to take
# the rest, and returns that as its result. The test of discovery divides by this likelihood, so that five sigma become
# four. Nothing is said; only a hypothesis above 10 raises. The bounds are right in `suggested_bounds()`; give
# `par_bounds`, or scale the template so that about 1 is expected.
# Seen with 0.7.6: best strength 10 and background factors 1.09, 1.16; by bounds up to 100, 25.0, 1.00 and 1.00. p-value
# of no signal 1.9e-5 (4.1 sigma) against 1.7e-7 (5.1 sigma).
# Source: this program; pyhf/modifiers/normfactor.py has the bounds.
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
from scipy.stats import norm

model = pyhf.simplemodels.uncorrelated_background(signal=[1.0, 2.0], bkg=[50.0, 60.0], bkg_uncertainty=[5.0, 6.0])
data = [50.0 + 25.0, 60.0 + 50.0, *model.config.auxdata]  # 25 times the signal
usual = model.config.suggested_bounds()
print("pyhf", pyhf.__version__, "bounds", usual)

warnings.simplefilter("error")
found = {}
for name, bounds in (("usual", usual), ("up to 100", [(0, 100), *usual[1:]])):
    fitted = np.round(pyhf.infer.mle.fit(data, model, par_bounds=bounds), 2).tolist()
    p_value = float(pyhf.infer.hypotest(0.0, data, model, par_bounds=bounds, test_stat="q0"))
    found[name] = fitted[0], norm.isf(p_value)
    print(f"bounds {name}: strength {fitted[0]}, backgrounds {fitted[1:]}, p {p_value:.1e}, {found[name][1]:.2f} sigma")
assert np.allclose(pyhf.infer.mle.fit(data, model)[0], 10.0, atol=1e-3)
assert pyhf.infer.hypotest(0.0, data, model, test_stat="q0") > 1e-5
assert found["usual"][0] == 10.0 and round(found["up to 100"][0], 1) == 25.0
assert round(found["usual"][1], 1) == 4.1 and round(found["up to 100"][1], 1) == 5.1
PYTHON
