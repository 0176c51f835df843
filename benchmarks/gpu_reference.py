"""What lhcq is measured against: the reference study's loop and a plain eager loop, by transformers and PEFT."""

import itertools
import statistics
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

IGNORED = -100


def load_nf4(directory: Path, *, dtype: torch.dtype, device: Any) -> Any:
    """The model in NF4 with double quantization, by transformers alone."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return AutoModelForCausalLM.from_pretrained(
        directory, quantization_config=quantization, dtype=dtype, device_map={"": device}
    )


def load(directory: Path, *, rank: int, alpha: float, dropout: float, targets: Sequence[str]) -> Any:
    """NF4 with double quantization and a fresh LoRA, by PEFT's own means."""
    from peft import LoraConfig, get_peft_model

    model = load_nf4(directory, dtype=torch.bfloat16, device="cuda")
    lora = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets), task_type="CAUSAL_LM"
    )
    return get_peft_model(model, lora)


def as_the_study(model: Any) -> Any:
    """float32 norms, embeddings and head, and activation checkpointing: `prepare_model_for_kbit_training`."""
    from peft import prepare_model_for_kbit_training

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        prepare_model_for_kbit_training(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return model


def study_training(model: Any, token_ids: list[list[int]], label: int, *, steps: int) -> float:
    """Samples a second: batch 1, 16 accumulated, the loss over the vocabulary; one step of warm-up."""
    from bitsandbytes.optim import AdamW8bit

    optimizer = AdamW8bit([p for p in model.parameters() if p.requires_grad], lr=3e-5)
    model.train()
    rows = iter(token_ids * (1 + 16 * (steps + 1) // len(token_ids)))
    began = 0.0
    for step in range(steps + 1):
        if step == 1:
            torch.cuda.synchronize()
            began = time.perf_counter()
        for _ in range(16):
            ids = torch.tensor([[*next(rows), label]], device="cuda")
            targets = torch.full_like(ids, IGNORED)
            targets[:, -1] = label
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(input_ids=ids, labels=targets).loss / 16
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    torch.cuda.synchronize()
    return 16 * steps / (time.perf_counter() - began)


def generate_scores(model: Any, token_ids: list[list[int]]) -> float:
    """Events a second by generating three tokens, one event at a time, by the median; two events of warm-up.

    It is bound by launching kernels: by the host's processor, whose single events vary by a quarter.
    """
    model.eval()
    times = []
    for ids in token_ids:
        torch.cuda.synchronize()
        times.append(time.perf_counter())
        prompt = torch.tensor([ids], device="cuda")
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=3,
                min_new_tokens=3,
                do_sample=False,
                pad_token_id=2,
            )
    torch.cuda.synchronize()
    times.append(time.perf_counter())
    return 1.0 / statistics.median(end - start for start, end in itertools.pairwise(times[2:]))


def plain_training(
    model: Any, token_ids: list[list[int]], labels: tuple[int, int], *, batch: int, steps: int
) -> float:
    """Samples a second of an eager loop in bfloat16 with the loss at the label only; two steps of warm-up."""
    from bitsandbytes.optim import AdamW8bit

    optimizer = AdamW8bit([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    head = model.get_base_model().get_output_embeddings().weight
    backbone = model.get_base_model().base_model
    model.train()
    began = 0.0
    for step in range(steps + 2):
        if step == 2:
            torch.cuda.synchronize()
            began = time.perf_counter()
        rows = [token_ids[(step * batch + at) % len(token_ids)] for at in range(batch)]
        last = torch.tensor([len(ids) - 1 for ids in rows])
        padded = torch.zeros((batch, int(last.max()) + 1), dtype=torch.long)
        for row, ids in zip(padded, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        targets = torch.arange(batch, device="cuda") % 2
        with torch.autocast("cuda", torch.bfloat16):
            hidden = backbone(input_ids=padded.cuda(), use_cache=False).last_hidden_state
            logits = hidden[torch.arange(batch), last] @ head[list(labels)].t()
        torch.nn.functional.cross_entropy(logits.float(), targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    torch.cuda.synchronize()
    return batch * steps / (time.perf_counter() - began)
