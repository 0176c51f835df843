#!/usr/bin/env bash
# correctionlib: NaN gets the factor of the first bin, even where values outside are an error.
#
# What an event does not have (the pt of a third jet) is often NaN. In a binning with uniform edges it is put into the first
# bin, whatever `flow` says: with "error" nothing is raised, though every other value outside the axis is refused by
# name, and a default (`flow` a number) is not used. The same bins with their edges written out take NaN for above the
# axis: refused by "error", the default if there is one, and the last bin by "clamp". So which factor a missing value
# gets depends on how the edges are written. Ask `isnan` before evaluating.
# Seen with 2.9.0, on x86-64, factors 1.1, 1.2, 1.3: uniform 1.1 by error, clamp and default 5; edges written out an error,
# 1.3 and 5.
# Source: this program; the documentation of `flow` in correctionlib.schemav2.Binning says what is done with values out of
# bounds, and does not speak of NaN.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet correctionlib==2.9.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings
from importlib.metadata import version

import numpy as np
from correctionlib import schemav2 as schema

warnings.simplefilter("error")
EDGES = {"uniform": schema.UniformBinning(n=3, low=0.0, high=300.0), "written out": [0.0, 100.0, 200.0, 300.0]}


def factor(edges, flow, pt):
    correction = schema.Correction(
        name="scale",
        version=1,
        inputs=[schema.Variable(name="pt", type="real")],
        output=schema.Variable(name="weight", type="real"),
        data=schema.Binning(
            nodetype="binning", input="pt", edges=EDGES[edges], content=[1.1, 1.2, 1.3], flow=flow
        ),
    )
    try:
        return correction.to_evaluator().evaluate(np.array([pt]))[0].item()
    except RuntimeError:
        return "error"


print("correctionlib", version("correctionlib"))
found = {edges: [factor(edges, flow, np.nan) for flow in ("error", "clamp", 5.0)] for edges in EDGES}
for edges, factors in found.items():
    print(f"edges {edges}: NaN by error, clamp and default 5: {factors}")
    assert [factor(edges, flow, 1e9) for flow in ("error", "clamp", 5.0)] == ["error", 1.3, 5.0]
    assert [factor(edges, flow, -1.0) for flow in ("error", "clamp", 5.0)] == ["error", 1.1, 5.0]
assert found["uniform"] == [1.1, 1.1, 1.1]
assert found["written out"] == ["error", 1.3, 5.0]
PYTHON
