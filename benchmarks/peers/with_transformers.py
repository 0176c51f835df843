"""Scoring by transformers' forward pass and PEFT, as `benchmarks.peers` asks for it: one line of JSON."""

import json
import sys
import time
from pathlib import Path

import torch
from peers_loop import ALL_LINEAR, GIB, SCORED, limit_memory
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

asked = json.loads(sys.argv[1])
work, rows = Path(asked["work"]), asked["batch"]
data = json.loads((work / f"{asked['model']}.json").read_text())
limit_memory(asked["cap"])
quantization = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.bfloat16,
)
model = AutoModelForCausalLM.from_pretrained(
    work / f"{asked['model']}-peers",
    quantization_config=quantization,
    dtype=torch.bfloat16,
    device_map={"": 0},
)
lora = LoraConfig(r=16, lora_alpha=16, lora_dropout=0.0, target_modules=ALL_LINEAR, task_type="CAUSAL_LM")
model = get_peft_model(model, lora).eval()
# Prompts of like length together, padded on the left, so that the last position is each one's end.
some = sorted(data["token_ids"][:SCORED], key=len)
batches = []
for at in range(0, len(some), rows):
    ids = some[at : at + rows]
    longest = max(map(len, ids))
    padded = torch.tensor([[0] * (longest - len(one)) + one for one in ids])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in ids])
    batches.append((padded, mask))
seconds = []
for _ in range(3):
    torch.cuda.synchronize()
    began = time.perf_counter()
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
        logits = [
            model(
                input_ids=padded.cuda(), attention_mask=mask.cuda(), logits_to_keep=1, use_cache=False
            ).logits
            for padded, mask in batches
        ]
        scores = torch.softmax(torch.cat(logits)[:, -1, data["labels"]].double(), dim=1).cpu()
    seconds.append(time.perf_counter() - began)
assert len(scores) == len(some)
peak = round(torch.cuda.max_memory_allocated() / GIB, 2)
print(json.dumps({"per_second": len(some) / min(seconds[1:]), "peak_gib": peak, "seconds": seconds}))
