#!/usr/bin/env bash
# NumPy: a percentile of small integers may lie outside the data, where two neighbours are far apart.
#
# Between two samples `percentile` and `quantile` go linearly, and take the difference of the two in the samples' own type.
# Samples of a digitiser in int16, or bytes in int8, whose neighbours differ by more than that type holds (a baseline below
# zero and a pulse that saturates) wrap round: the 50th percentile of -20,000 and 20,000 is 32,768. Along an axis nothing
# is said; of one row alone there is a warning of an overflow. `median` is right. Cast to float64 first.
# Seen with 2.4.6: the 50th percentile of -20,000 and 20,000 in int16 is 32,768, of -100 and 100 in int8 128; by median, and
# of float64, 0.
# Source: this program; the documentation of numpy.percentile calls median equivalent to `percentile(..., 50)`.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings

import numpy as np

warnings.simplefilter("error")
print("numpy", np.__version__)
for kind, sample in (("int16", 20_000), ("int8", 100)):
    waves = np.array([[-sample, sample], [-3, 3]], dtype=kind)
    found = np.percentile(waves, 50, axis=1).tolist()
    quantile = np.quantile(waves, 0.5, axis=1).tolist()
    print(f"{kind}: 50th percentiles of {waves.tolist()} {found}, medians {np.median(waves, axis=1).tolist()}")
    assert np.median(waves, axis=1).tolist() == np.percentile(waves.astype(float), 50, axis=1).tolist() == [0, 0]
    assert found == quantile == [np.iinfo(kind).max + 1.0, 0]
try:
    np.percentile(waves[0], 50)
except RuntimeWarning as warning:
    print("of one row alone:", warning)
else:
    raise SystemExit("one row alone was taken without a warning")
PYTHON
