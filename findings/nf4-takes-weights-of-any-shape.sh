#!/usr/bin/env bash
# transformers with bitsandbytes in 4 bits: weights of another shape than the configuration says are taken without a word.
#
# In full precision `from_pretrained` refuses them, or, with `ignore_mismatched_sizes=True`, names them in the loading
# report. With `load_in_4bit` the same directory loads, the report's mismatched_keys stay empty, and the layer keeps the
# stored shape beside the `out_features` of the configuration. A model whose config.json went with other weights is
# thus loaded as if it were whole, and says so only when a product fails, or never.
# Source: this program; `transformers/quantizers/quantizer_bnb_4bit.py` replaces the parameter without comparing shapes.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet torch==2.13.0
"$place/venv/bin/pip" install --quiet transformers==5.23.0 bitsandbytes==0.50.2 accelerate
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import json
import logging
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)
print(f"transformers {version('transformers')}, bitsandbytes {version('bitsandbytes')}, torch {torch.__version__}")

torch.manual_seed(1)
shape = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4}
LlamaForCausalLM(LlamaConfig(**shape, intermediate_size=128, vocab_size=100)).save_pretrained("model")
path = Path("model/config.json")
path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 256}))  # the weights have 128


def mismatched(**how):
    _, report = AutoModelForCausalLM.from_pretrained(
        "model", ignore_mismatched_sizes=True, output_loading_info=True, **how
    )
    return sorted(entry[0] for entry in report["mismatched_keys"])


full = mismatched()
print("full precision reports:", [name.rpartition("mlp.")[2] for name in full])
four = mismatched(quantization_config=BitsAndBytesConfig(load_in_4bit=True))
print("4 bits reports:", four)
model = AutoModelForCausalLM.from_pretrained(
    "model", quantization_config=BitsAndBytesConfig(load_in_4bit=True)
)
layer = model.model.layers[0].mlp.up_proj
print(f"out_features {layer.out_features}, stored {tuple(layer.weight.quant_state.shape)}, and no error")
assert len(full) == 3
assert four == []
assert layer.out_features == 256
assert tuple(layer.weight.quant_state.shape) == (128, 64)
PYTHON
