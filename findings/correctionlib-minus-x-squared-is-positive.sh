#!/usr/bin/env bash
# correctionlib: in a formula, -x^2 is the square of -x, so that exp(-x^2/2) grows.
#
# A correction's formulas are said to be in ROOT's TFormula, and there, as in Python and Fortran, a power comes before a
# sign: -x^2 at 2 is -4. correctionlib takes the sign first and gives 4. A fit of an efficiency or a resolution that
# is copied into a correction evaluates without an error to another curve; a Gaussian becomes its inverse. After another
# operand the sign is right (0-x^2, a-x^2), and wrong again after * (2*-x^2). Write -(x^2) or -1*x^2.
# Seen with 2.9.0, at 2: -x^2 4, exp(-x^2/2) 7.39, 2*-x^2 8; -(x^2) -4, exp(-(x^2)/2) 0.135, 0-x^2 -4, -1*x^2 -4.
# Source: this program; correctionlib.schemav2.Formula names the parser TFormula; in ROOT hist/hist/src/TFormula.cxx,
# HandleExponentiation, ends what is raised at the next operator, and a sign is one.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet correctionlib==2.9.0 numpy==2.4.6
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import math
import warnings
from importlib.metadata import version

from correctionlib import schemav2 as schema

warnings.simplefilter("error")


def at_2(expression):
    correction = schema.Correction(
        name="scale",
        version=1,
        inputs=[schema.Variable(name="x", type="real")],
        output=schema.Variable(name="weight", type="real"),
        data=schema.Formula(nodetype="formula", parser="TFormula", expression=expression, variables=["x"]),
    )
    value = correction.to_evaluator().evaluate(2.0)
    print(f"{expression:14} at 2: {value:.4g}")
    return value


print("correctionlib", version("correctionlib"))
assert at_2("-x^2") == 4 and at_2("2*-x^2") == 8 and at_2("-x^2+1") == 5
assert at_2("-(x^2)") == at_2("0-x^2") == at_2("-1*x^2") == -4
assert math.isclose(at_2("exp(-x^2/2)"), math.exp(2))
assert math.isclose(at_2("exp(-(x^2)/2)"), math.exp(-2))
PYTHON
