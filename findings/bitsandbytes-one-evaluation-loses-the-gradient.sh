#!/usr/bin/env bash
# bitsandbytes on a CPU with AVX512-BF16: after one pass in eval mode a 4-bit layer passes no gradient on, for ever.
#
# The pass in eval mode packs the weights of `Linear4bit` anew for a kernel that has no backward. Back in train mode the
# layer goes on by that kernel: the output's values are right, the gradient with respect to its input is gone. Training
# with a validation in between goes on without an error; only layers behind the last 4-bit one still learn, beside a
# warning of torch that is printed once. `layer.support_avx512bf16_for_cpu = False` before the first pass avoids it.
# Seen with 0.50.2: gradient before the evaluation of norm 6.6, after it None.
# Source: this program; bitsandbytes/nn/modules.py, Linear4bit.forward.
# Needs a CPU with AVX512-BF16 (Cooper Lake, Sapphire Rapids, Zen 4 and later). Fails if the behaviour changes.
set -euo pipefail
grep -q avx512_bf16 /proc/cpuinfo || { echo "this CPU has no AVX512-BF16: nothing can be seen here" >&2; exit 2; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0
"$place/venv/bin/pip" install --quiet bitsandbytes==0.50.2
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import warnings
from importlib.metadata import version

import bitsandbytes as bnb
import torch

warnings.simplefilter("ignore")
torch.manual_seed(0)
weights, values = torch.randn(64, 64) * 0.05, torch.randn(4, 64, dtype=torch.bfloat16)


def norm_of_gradient(evaluate, fast):
    layer = bnb.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer.weight = bnb.nn.Params4bit(weights.clone(), requires_grad=False, quant_type="nf4")
    layer.to("cpu")
    if not fast:
        layer.support_avx512bf16_for_cpu = False
    if evaluate:
        layer.eval()
        with torch.no_grad():
            layer(values)
        layer.train()
    given = values.clone().requires_grad_(True)
    layer(given).float().square().sum().backward()
    return None if given.grad is None else round(given.grad.float().norm().item(), 2)


print(f"bitsandbytes {version('bitsandbytes')}, torch {torch.__version__}")
before, after, slow = norm_of_gradient(False, True), norm_of_gradient(True, True), norm_of_gradient(True, False)
print(f"gradient of norm {before}; after one evaluation {after}; the same without the fast kernel {slow}")
assert before == slow
assert after is None
PYTHON
