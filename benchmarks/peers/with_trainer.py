"""A training by transformers.Trainer and PEFT, with Liger's kernels if wanted, as `benchmarks.peers` asks for it.

One line of JSON.
"""

import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peers_loop import GIB, STEPS, WARM_UP, batch_of, limit_memory
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.gpu_models import ALL_LINEAR
from benchmarks.gpu_reference import load

asked = json.loads(sys.argv[1])
work, rows = Path(asked["work"]), asked["batch"]
data = json.loads((work / f"{asked['model']}.json").read_text())
limit_memory(asked["cap"])
if asked["peer"] == "liger":
    from liger_kernel.transformers import apply_liger_kernel_to_llama, apply_liger_kernel_to_mistral

    (apply_liger_kernel_to_mistral if asked["model"] == "7B" else apply_liger_kernel_to_llama)()
directory = work / f"{asked['model']}-peers"
model = load(directory, rank=16, alpha=16, dropout=0.0, targets=ALL_LINEAR)
model.enable_input_require_grads()
times: list[float] = []


class Clock(TrainerCallback):
    """When each step ended."""

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        """Wait for the GPU."""
        torch.cuda.synchronize()
        times.append(time.perf_counter())


batches = [batch_of(data, step, rows) for step in range(WARM_UP + STEPS)]
examples = [{name: one[row] for name, one in batch.items()} for batch in batches for row in range(rows)]


def pad(few: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Rows of one batch, which are padded alike."""
    return {name: torch.stack([one[name] for one in few]) for name in few[0]}


class InOrder(Trainer):
    """As the others read them."""

    def _get_train_sampler(self, *arguments: Any) -> Any:
        return torch.utils.data.SequentialSampler(examples)


arguments = TrainingArguments(
    output_dir=str(work / "out"),
    per_device_train_batch_size=rows,
    max_steps=WARM_UP + STEPS,
    bf16=True,
    optim="adamw_8bit",
    learning_rate=2e-4,
    max_grad_norm=1.0,
    gradient_checkpointing=asked["checkpointing"],
    gradient_checkpointing_kwargs={"use_reentrant": False} if asked["checkpointing"] else None,
    report_to=[],
    save_strategy="no",
    logging_strategy="no",
    remove_unused_columns=False,
)
InOrder(
    model=model,
    args=arguments,
    train_dataset=examples,
    data_collator=pad,
    callbacks=[Clock()],
).train()
seconds = statistics.median(after - before for before, after in itertools.pairwise(times[1:]))
peak = round(torch.cuda.max_memory_allocated() / GIB, 2)
print(json.dumps({"per_second": rows / seconds, "peak_gib": peak}))
