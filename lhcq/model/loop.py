"""The training loop: from one checkpoint to the next, exactly as if the run had never been cut.

Everything that a step depends on is a function of its number: its rows, its rate, and the random numbers of its
dropout. So a checkpoint needs no generator state, and a run in segments equals an uncut run bit for bit on the
CPU. That holds among processes with the same number of torch threads, which is left at the process's default.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lhcq.config import Frozen, TrainConfig
from lhcq.errors import BadInput, PermanentError
from lhcq.model.adapter import Adapter, attach_lora, load_adapter, reset_adapter
from lhcq.model.base import Base
from lhcq.model.checkpoint import verified_step
from lhcq.model.labels import label_ids
from lhcq.model.loss import label_logits, last_hidden, weighted_loss
from lhcq.model.optimizer import load_optimizer, make_optimizer
from lhcq.model.plan import batch_rows, class_weights, learning_rate_at, plan_run


class StepRecord(Frozen):
    """What one optimizer step did."""

    step: int
    loss: float
    """Class-weighted cross-entropy over the step's rows, in nats."""
    learning_rate: float
    grad_norm: float
    """Before clipping."""
    samples_per_second: float
    tokens: int
    """Prompt tokens in the step, without padding."""


@dataclasses.dataclass(kw_only=True)
class TrainState:
    """A run after a step, live in the resident base: write it to a checkpoint before anything else is attached."""

    base: Base
    optimizer: Any
    step: int
    stopped: bool
    """`on_step` asked to stop before the segment's end: nothing is to be committed."""
    uses: int

    def current_adapter(self) -> Adapter:
        """The adapter, if it is still the one that was trained."""
        if self.base.uses != self.uses:
            raise RuntimeError("another adapter was attached since this training ended")
        adapter: Adapter = self.base.adapter
        return adapter


def train_segment(
    base: Base,
    *,
    prompts: Sequence[str],
    labels: NDArray[np.integer],
    config: TrainConfig,
    checkpoint: Path | None,
    until_step: int,
    on_step: Callable[[StepRecord], bool],
) -> TrainState:
    """Train from `checkpoint` (None: from the seeded start) until `until_step` optimizer steps are done.

    `labels` are label bits, one a prompt; `config.learning_rate` must be resolved. `on_step` is told of each step
    and returns False to stop. Raises `BadInput` for unusable prompts and labels, and `PermanentError` when the loss
    is no number any more.
    """
    if config.learning_rate is None:
        raise ValueError("the learning rate must be resolved before training")
    if label_ids(base.encode, prompts[0]) != base.label_ids:
        raise BadInput(f"After prompts such as {prompts[0][-20:]!r} this model's labels are other tokens.")
    plan = plan_run(len(prompts), config)
    weights = torch.tensor(class_weights(labels) if config.class_weighted else (1.0, 1.0), device=base.device)
    adapter = attach_lora(base, config)
    optimizer = make_optimizer(adapter, config)
    start = _restore(adapter, optimizer, checkpoint, config)
    base.peft.train()
    state = TrainState(base=base, optimizer=optimizer, step=start, stopped=False, uses=base.uses)
    for step in range(start + 1, until_step + 1):
        began = time.perf_counter()
        rows = batch_rows(step, len(prompts), config)
        rate = learning_rate_at(step, plan, config, config.learning_rate)
        with _seeded_dropout(base.device, config.seed, step), _explained_memory(config):
            loss, tokens = _accumulate(base, adapter, rows, prompts, labels, weights, config)
        norm = _clip(adapter, config.max_grad_norm)
        _refuse_nan(loss, norm, step=step, start=start, checkpoint=checkpoint)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        state.step = step
        record = StepRecord(
            step=step,
            loss=loss,
            learning_rate=rate,
            grad_norm=norm,
            samples_per_second=sum(map(len, rows)) / (time.perf_counter() - began),
            tokens=tokens,
        )
        if not on_step(record):
            state.stopped = True
            break
    return state


def _restore(adapter: Adapter, optimizer: Any, checkpoint: Path | None, config: TrainConfig) -> int:
    """Set adapter and optimizer to the checkpoint, or to the start; the number of steps done."""
    if checkpoint is None:
        reset_adapter(adapter, config.seed)
        return 0
    step = verified_step(checkpoint)
    load_adapter(adapter, checkpoint)
    load_optimizer(optimizer, adapter, checkpoint, step=step)
    return step


def _accumulate(
    base: Base,
    adapter: Adapter,
    rows: list[NDArray[np.int64]],
    prompts: Sequence[str],
    labels: NDArray[np.integer],
    weights: torch.Tensor,
    config: TrainConfig,
) -> tuple[float, int]:
    """Leave the gradient of one optimizer step in the adapter; its loss and its number of tokens."""
    adapter.flat.grad.zero_()
    window = sum(map(len, rows))
    total, tokens = 0.0, 0
    for batch in rows:
        token_ids = base.encode([prompts[row] for row in batch])
        _refuse_long(token_ids, batch, config.max_tokens)
        tokens += sum(map(len, token_ids))
        targets = torch.as_tensor(np.asarray(labels[batch], dtype=np.int64), device=base.device)
        with torch.autocast(
            base.device.type, base.compute_dtype, enabled=base.compute_dtype != torch.float32
        ):
            hidden = last_hidden(base, token_ids)
        loss = weighted_loss(label_logits(base, hidden), targets, weights, window=window)
        loss.backward()
        total += float(loss.detach())
    return total, tokens


def _clip(adapter: Adapter, limit: float) -> float:
    """Scale the gradient down to norm `limit` where it is above; the norm before."""
    gradient = adapter.flat.grad
    norm = float(torch.linalg.vector_norm(gradient))
    if norm > limit:
        gradient.mul_(limit / norm)
    return norm


def _refuse_nan(loss: float, norm: float, *, step: int, start: int, checkpoint: Path | None) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    good = f"The last good checkpoint is step {start}" if checkpoint else "There is no good checkpoint yet"
    raise PermanentError(
        f"Training diverged at step {step}: loss {loss}, gradient norm {norm}. {good}. Start a run with a lower "
        "learning rate."
    )


def _refuse_long(token_ids: list[list[int]], rows: NDArray[np.int64], limit: int) -> None:
    for ids, row in zip(token_ids, rows, strict=True):
        if not 0 < len(ids) <= limit:
            raise BadInput(
                f"Training prompt {row} has {len(ids)} tokens, allowed are 1 to {limit} (max_tokens)."
            )


@contextlib.contextmanager
def _explained_memory(config: TrainConfig) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PermanentError(
            f"{config.batch_size} prompts in one pass do not fit into the GPU's memory. Train with a smaller batch "
            "and as much more accumulation: the result is the same to rounding."
        ) from error


@contextlib.contextmanager
def _seeded_dropout(device: torch.device, seed: int, step: int) -> Iterator[None]:
    """Random numbers that depend on `seed` and `step` alone; the process's own generators stay as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]))
        yield
