"""lhcq's own training or scoring, as `benchmarks.peers` asks for it: one line of JSON."""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.gpu import ALL_LINEAR, GIB, SMALL, Trained
from benchmarks.peers.peers_loop import SCORED
from lhcq.model.base import load_base
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.score import score_prompts

asked = json.loads(sys.argv[1])
work = Path(asked["work"])
data = json.loads((work / f"{asked['model']}.json").read_text())
config = (ALL_LINEAR if asked["model"] == "7B" else SMALL).model_copy(
    update={
        "dropout": 0.0,
        "batch_size": asked["batch"],
        "compute": asked["compute"],
        "max_memory": asked["cap"],
    }
)
base = load_base(work / asked["model"])
if not asked["scores"]:
    trained = Trained(base, data["prompts"], config, steps=4 if asked["model"] == "7B" else 12)
    said = {"per_second": trained.per_second, "mean_per_second": trained.mean_per_second, **trained.facts}
else:
    prompts, seconds = data["prompts"][:SCORED], []
    with tempfile.TemporaryDirectory() as place:
        checkpoint = Path(place) / "00000003"
        write_checkpoint(checkpoint, Trained(base, prompts, config, steps=1).state, config_hash="peers")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            began = time.perf_counter()
            score_prompts(
                base, checkpoint=checkpoint, config=config, prompts=prompts, batch_size=asked["batch"]
            )
            seconds.append(time.perf_counter() - began)
    peak = round(torch.cuda.max_memory_allocated() / GIB, 2)
    said = {"per_second": SCORED / min(seconds[1:]), "peak_gib": peak, "seconds": seconds}
print(json.dumps(said))
