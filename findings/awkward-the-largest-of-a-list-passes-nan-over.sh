#!/usr/bin/env bash
# awkward: the largest of a list passes NaN over, the largest of the whole array is NaN, and argmax depends on the order.
#
# `ak.max(x, axis=1)` is said to be what NumPy's amax is where lists are of one length, and amax gives NaN of a row that
# holds one. awkward compares one after the other by `>`, so NaN is left out, as `ak.nanmax` would; a list of
# nothing else has -inf, or inf for its least, which is no missing value. With `axis=None` NumPy does it, and the answer is NaN.
# `ak.argmax` starts from the first value: if that is NaN it stays, and the jet with the highest b-tag is one without
# a tag; anywhere else NaN is passed over. So `x[argmax]` and `max` differ by the order of the jets.
# `ak.nan_to_none` in front makes NaN missing for all of them.
# Seen with 2.14.0: of [nan, 2] and [2, nan] max 2 and 2, argmax 0 and 0, of [nan] max -inf; of all max nan.
# Source: this program; the documentation of ak.max, and of ak.nanmax, "treating NaN values as missing".
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet awkward==2.14.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings

import awkward as ak
import numpy as np

warnings.simplefilter("error")
nan, inf = np.nan, np.inf
print("awkward", ak.__version__, "numpy", np.__version__)
tags = ak.Array([[nan, 2.0], [2.0, nan], [1.0, nan, 3.0], [nan]])
largest, least = ak.max(tags, axis=1).tolist(), ak.min(tags, axis=1).tolist()
first = ak.argmax(tags, axis=1).tolist()
chosen = ak.flatten(tags[ak.argmax(tags, axis=1, keepdims=True)]).tolist()
whole = float(ak.max(tags, axis=None))
print(f"{tags.tolist()}: max {largest}, min {least}, argmax {first}, which is {chosen}; of all of them {whole}")
assert largest == [2.0, 2.0, 3.0, -inf] and least == [2.0, 2.0, 1.0, inf]
assert first == [0, 0, 2, 0] and np.array_equal(chosen, [nan, 2.0, 3.0, nan], equal_nan=True)
assert np.isnan(whole)

regular = np.array([[nan, 2.0], [2.0, nan]])
print(f"of one length: by awkward {ak.max(ak.Array(regular), axis=1).tolist()}, by NumPy {np.amax(regular, axis=1).tolist()}")
assert ak.max(ak.Array(regular), axis=1).tolist() == [2.0, 2.0]
assert np.isnan(np.amax(regular, axis=1)).all()
missing = ak.nan_to_none(tags)
assert ak.max(missing, axis=1).tolist() == [2.0, 2.0, 3.0, None] and ak.max(missing, axis=None) == 3.0
assert ak.argmax(missing, axis=1).tolist() == [1, 0, 2, None]
PYTHON
