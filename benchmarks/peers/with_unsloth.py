"""A training by Unsloth, as `benchmarks.peers` asks for it: one line of JSON."""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
from unsloth import FastLanguageModel  # isort: skip  it must be imported before transformers

from peers_loop import limit_memory, steps_of

from benchmarks.gpu_models import ALL_LINEAR

asked = json.loads(sys.argv[1])
work = Path(asked["work"])
limit_memory(asked["cap"])
model, _ = FastLanguageModel.from_pretrained(
    str(work / f"{asked['model']}-peers"),
    load_in_4bit=True,
    dtype=None,
    max_seq_length=512,
    local_files_only=True,
)
model = FastLanguageModel.get_peft_model(
    model,
    r=16,
    lora_alpha=16,
    lora_dropout=0,
    bias="none",
    target_modules=list(ALL_LINEAR),
    use_gradient_checkpointing="unsloth" if asked["checkpointing"] else False,
)
FastLanguageModel.for_training(model, use_gradient_checkpointing=asked["checkpointing"])
print(json.dumps(steps_of(model, json.loads((work / f"{asked['model']}.json").read_text()), asked["batch"])))
