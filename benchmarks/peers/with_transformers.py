"""Scoring by transformers' forward pass and PEFT, as `benchmarks.peers` asks for it: one line of JSON."""

import json
import sys
import time
from pathlib import Path

import torch
from peers_loop import GIB, SCORED, limit_memory

from benchmarks.gpu_models import ALL_LINEAR
from benchmarks.gpu_reference import load

asked = json.loads(sys.argv[1])
work, rows = Path(asked["work"]), asked["batch"]
data = json.loads((work / f"{asked['model']}.json").read_text())
limit_memory(asked["cap"])
directory = work / f"{asked['model']}-peers"
model = load(directory, rank=16, alpha=16, dropout=0.0, targets=ALL_LINEAR).eval()
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
