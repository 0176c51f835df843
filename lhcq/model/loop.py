"""The training loop: from one checkpoint to the next, exactly as if the run had never been cut.

Everything that a step depends on is a function of its number: its rows, its rate, and the random numbers of its
dropout. So a checkpoint needs no generator state, and a run in segments equals an uncut run bit for bit on the
CPU. That holds among processes with the same number of torch threads, which is left at the process's default.
"""

import contextlib
import dataclasses
import heapq
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lhcq.config import Frozen, TrainConfig
from lhcq.errors import BadInput, Diverged, PermanentError
from lhcq.model.adapter import Adapter, attach_lora, load_adapter, reset_adapter
from lhcq.model.base import Base
from lhcq.model.checkpoint import recorded_rows, verified_step
from lhcq.model.labels import label_ids
from lhcq.model.optimizer import load_optimizer, make_optimizer
from lhcq.model.passes import Batch, PassSize, choose_pass, cut_step, run_pass
from lhcq.model.plan import balanced_rows, class_weights, learning_rate_at, plan_run, step_rows
from lhcq.model.score import score_attached

_LONGEST_READ = 256
_PROBED = 4
"""Prompts that the end of a segment is tried on."""


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
    size: PassSize
    """How each step was cut into passes."""

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
    after_step: int | None = None,
    rate_factor: float = 1.0,
) -> TrainState:
    """Train from `checkpoint` (None: from the seeded start) until `until_step` optimizer steps are done.

    `labels` are label bits, one a prompt; `config.learning_rate` must be resolved. `on_step` is told of each step
    and returns False to stop. A run that goes back to an earlier checkpoint counts on all the same: `after_step` is
    the last step that it has done, and `rate_factor` makes the learning rate lower than planned.

    Raises `BadInput` for unusable prompts and labels, and `Diverged` when loss, gradient or weights are no numbers
    any more.
    """
    if config.learning_rate is None:
        raise ValueError("the learning rate must be resolved before training")
    if label_ids(base.encode, prompts[0]) != base.label_tokens:
        raise BadInput(f"After prompts such as {prompts[0][-20:]!r} this model's labels are other tokens.")
    plan, peak = plan_run(len(prompts), config), config.learning_rate * rate_factor
    data = _Data(base=base, prompts=prompts, labels=labels, config=config)
    adapter = attach_lora(base, config)
    optimizer = make_optimizer(adapter, config)
    start = _restore(adapter, optimizer, checkpoint, config, after_step)
    base.peft.train()
    with _explained_memory():
        size = choose_pass(base, config, longest=data.longest, wanted=recorded_rows(checkpoint))
    state = TrainState(base=base, optimizer=optimizer, step=start, stopped=False, uses=base.uses, size=size)
    began = time.perf_counter()
    upcoming = data.step(start + 1, size)
    for step in range(start + 1, until_step + 1):
        current = upcoming
        with _seeded_dropout(base.device, config.seed, step), _explained_memory():
            share = _accumulate(base, adapter, current, size)
        # A GPU works on while the next step's prompts are encoded; the first number asked of it waits for it.
        upcoming = data.step(step + 1, size) if step < until_step else current
        loss = float(share)
        norm = _clip(adapter, config.max_grad_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise _diverged(f"at step {step}: loss {loss}, gradient norm {norm}", checkpoint)
        optimizer.param_groups[0]["lr"] = learning_rate_at(step, plan, config, peak)
        optimizer.step()
        state.step = step
        ended = time.perf_counter()
        record = StepRecord(
            step=step,
            loss=loss,
            learning_rate=optimizer.param_groups[0]["lr"],
            grad_norm=norm,
            samples_per_second=current.rows / (ended - began),
            tokens=current.tokens,
        )
        began = ended
        if not on_step(record):
            state.stopped = True
            break
    if not state.stopped:
        # The last step's own weights have answered nothing yet: nobody would see that they cannot.
        probed = score_attached(base, prompts[:_PROBED], config.max_tokens, batch_size=_PROBED)
        if not np.isfinite(probed.p_signal).all():
            raise _diverged(f"at step {state.step}: its answers are no numbers", checkpoint)
    return state


class _Step(NamedTuple):
    batches: list[Batch]
    rows: int
    tokens: int


@dataclasses.dataclass(kw_only=True)
class _Data:
    """The training part, read a step at a time."""

    base: Base
    prompts: Sequence[str]
    labels: NDArray[np.integer]
    config: TrainConfig

    def __post_init__(self) -> None:
        self.balanced = self.config.sampling == "balanced"
        weighted = self.config.class_weighted and not self.balanced
        self.class_weights = class_weights(self.labels) if weighted else (1.0, 1.0)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt, as far as the longest in characters tell."""
        longest = heapq.nlargest(_LONGEST_READ, self.prompts, key=len)
        return min(max(map(len, self.base.encode(longest))), self.config.max_tokens)

    def step(self, step: int, size: PassSize) -> _Step:
        if self.balanced:
            rows = balanced_rows(step, self.labels, self.config)
        else:
            rows = step_rows(step, len(self.prompts), self.config)
        token_ids = self.base.encode([self.prompts[row] for row in rows])
        _refuse_long(token_ids, rows, self.config.max_tokens)
        bits = [int(self.labels[row]) for row in rows]
        # Over the number of rows, not of their weights: the weights count also where a pass holds one row.
        shares = [self.class_weights[bit] / len(rows) for bit in bits]
        batches = cut_step(token_ids, bits, shares, base=self.base, rows=size.rows)
        return _Step(batches=batches, rows=len(rows), tokens=sum(map(len, token_ids)))


def _restore(
    adapter: Adapter, optimizer: Any, checkpoint: Path | None, config: TrainConfig, after_step: int | None
) -> int:
    """Set adapter and optimizer to the checkpoint, or to the start; the number of steps done."""
    if checkpoint is None:
        reset_adapter(adapter, config.seed)
        return 0
    step = verified_step(checkpoint)
    step = step if after_step is None else after_step
    load_adapter(adapter, checkpoint)
    load_optimizer(optimizer, adapter, checkpoint, step=step)
    return step


def _accumulate(base: Base, adapter: Adapter, current: _Step, size: PassSize) -> torch.Tensor:
    """Leave the gradient of one optimizer step in the adapter; its loss, on the device."""
    adapter.flat.grad.zero_()
    adapter.refresh()
    return torch.stack([run_pass(base, batch, size) for batch in current.batches]).sum()


def _clip(adapter: Adapter, limit: float) -> float:
    """Scale the gradient down to norm `limit` where it is above; the norm before."""
    gradient = adapter.flat.grad
    norm = float(torch.linalg.vector_norm(gradient))
    if norm > limit:
        gradient.mul_(limit / norm)
    return norm


def _diverged(what: str, checkpoint: Path | None) -> Diverged:
    good = "There is no good checkpoint yet"
    if checkpoint is not None:
        good = f"The last good checkpoint is step {checkpoint.name.lstrip('0')}"
    return Diverged(f"Training diverged {what}. {good}. Start a run with a lower learning rate.")


def _refuse_long(token_ids: list[list[int]], rows: NDArray[np.int64], limit: int) -> None:
    for ids, row in zip(token_ids, rows, strict=True):
        if not 0 < len(ids) <= limit:
            raise BadInput(
                f"Training prompt {row} has {len(ids)} tokens, allowed are 1 to {limit} (max_tokens)."
            )


@contextlib.contextmanager
def _explained_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PermanentError(
            "The GPU's memory ran out in training: something else takes more of it than at the start. Free it and "
            "resume the run, or start one with a smaller --max-memory."
        ) from error


@contextlib.contextmanager
def _seeded_dropout(device: torch.device, seed: int, step: int) -> Iterator[None]:
    """Random numbers that depend on `seed` and `step` alone; the process's own generators stay as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]))
        yield
