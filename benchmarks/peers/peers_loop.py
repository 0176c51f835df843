"""What a user writes around a peer's model: batches, the loss at the label, 8-bit AdamW. Imports nothing of lhcq."""

import itertools
import statistics
import time
from typing import Any

import torch

IGNORED = -100
WARM_UP, STEPS = 2, 4
SCORED = 1000
GIB = 1 << 30


def limit_memory(cap: int | None) -> None:
    """Hold the process to so many bytes of the GPU."""
    if cap is not None:
        torch.cuda.set_per_process_memory_fraction(cap / torch.cuda.mem_get_info()[1])


def batch_of(data: dict[str, Any], step: int, rows: int) -> dict[str, torch.Tensor]:
    """Prompts with their label behind, padded to the right; the loss is at the label alone."""
    places = [(step * rows + row) % len(data["token_ids"]) for row in range(rows)]
    ids = [[*data["token_ids"][place], data["labels"][place % 2]] for place in places]
    longest = max(map(len, ids))
    padded = torch.zeros((rows, longest), dtype=torch.long)
    labels = torch.full((rows, longest), IGNORED)
    mask = torch.zeros((rows, longest), dtype=torch.long)
    for row, tokens in enumerate(ids):
        padded[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        labels[row, len(tokens) - 1] = tokens[-1]
    return {"input_ids": padded, "attention_mask": mask, "labels": labels}


def steps_of(model: Any, data: dict[str, Any], rows: int) -> dict[str, Any]:
    """Samples a second by the median step, and the peak of memory."""
    from bitsandbytes.optim import AdamW8bit

    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = AdamW8bit(trained, lr=2e-4)
    times = []
    for step in range(WARM_UP + STEPS):
        batch = {name: tensor.cuda() for name, tensor in batch_of(data, step, rows).items()}
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        times.append(time.perf_counter())
    seconds = statistics.median(after - before for before, after in itertools.pairwise(times[1:]))
    return {
        "per_second": rows / seconds,
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),
        "loss": float(loss),
    }
