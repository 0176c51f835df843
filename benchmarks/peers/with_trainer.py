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
from peers_loop import ALL_LINEAR, GIB, STEPS, WARM_UP, batch_of, limit_memory
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainerCallback, TrainingArguments

asked = json.loads(sys.argv[1])
work, rows = Path(asked["work"]), asked["batch"]
data = json.loads((work / f"{asked['model']}.json").read_text())
limit_memory(asked["cap"])
if asked["peer"] == "liger":
    from liger_kernel.transformers import apply_liger_kernel_to_llama, apply_liger_kernel_to_mistral

    (apply_liger_kernel_to_mistral if asked["model"] == "7B" else apply_liger_kernel_to_llama)()
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
model.enable_input_require_grads()
lora = LoraConfig(r=16, lora_alpha=16, lora_dropout=0.0, target_modules=ALL_LINEAR, task_type="CAUSAL_LM")
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
    model=get_peft_model(model, lora),
    args=arguments,
    train_dataset=examples,
    data_collator=pad,
    callbacks=[Clock()],
).train()
seconds = statistics.median(after - before for before, after in itertools.pairwise(times[1:]))
peak = round(torch.cuda.max_memory_allocated() / GIB, 2)
print(json.dumps({"per_second": rows / seconds, "peak_gib": peak}))
