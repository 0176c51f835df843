"""lhcq's own training, as `benchmarks.peers` asks for it: one line of JSON."""

import json
import sys
from pathlib import Path

from benchmarks.gpu import ALL_LINEAR, Trained
from lhcq.model.base import load_base

asked = json.loads(sys.argv[1])
work = Path(asked["work"])
data = json.loads((work / "data.json").read_text())
config = ALL_LINEAR.model_copy(
    update={
        "dropout": 0.0,
        "batch_size": asked["batch"],
        "compute": asked["compute"],
        "max_memory": asked["cap"],
    }
)
trained = Trained(load_base(work / "7B"), data["prompts"], config, steps=4)
print(json.dumps({"per_second": trained.per_second, **trained.facts}))
