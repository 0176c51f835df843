"""The training loop: from one checkpoint to the next, exactly as if the run had never been cut.

Everything that a step depends on is a function of its number: its rows, its rate, and the random numbers of its
dropout. So a checkpoint needs no generator state, and a run in segments equals an uncut run bit for bit on the
CPU. That holds among processes with the same number of torch threads, which a job keeps (`lhcq.records.threads`).
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lhcq.config import TrainConfig
from lhcq.errors import BadInput, Diverged
from lhcq.frozen import Frozen
from lhcq.model.adapter import Adapter, attach_lora, load_adapter, reset_adapter
from lhcq.model.base import Base
from lhcq.model.checkpoint import recorded_rows, verified_step
from lhcq.model.labels import label_ids
from lhcq.model.optimizer import load_optimizer, make_optimizer, update
from lhcq.model.passes import PassSize, are_recorded, choose_pass, replays, set_checkpointing
from lhcq.model.plan import learning_rate_at, plan_run
from lhcq.model.ranks import Ranks, Reached, resident_ranks
from lhcq.model.score import score_attached
from lhcq.model.steps import Step, StepData, accumulate, explained_memory, seeded_dropout

_PROBED = 4
"""Prompts that the end of a segment is tried on."""
_FIRST_STEPS = 2
"""Steps of a segment that ask a GPU for something for the first time: kernels, page-locked memory."""


class StepRecord(Frozen):
    """What one optimizer step did."""

    step: int
    loss: float
    """Class-weighted cross-entropy over the two labels and the step's rows, in nats."""
    answer_loss: float | None = None
    """Minus the log of the probability that the model says either label, weighted alike, in nats; None where it does
    not learn that."""
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
    ranks: int = 1,
) -> TrainState:
    """Train from `checkpoint` (None: from the seeded start) until `until_step` optimizer steps are done.

    `labels` are label bits, one a prompt; `config` must be resolved: its rate, its weight of answers. `on_step` is
    told of each step and returns False to stop. A run that goes back to an earlier checkpoint counts on all the
    same: `after_step` is the last step that it has done, and `rate_factor` makes the learning rate lower than
    planned. With several `ranks` as many processes, this one among them, take shares of each step
    (`lhcq.model.ranks`); the samples stay the same.

    Raises `BadInput` for unusable prompts and labels, `Diverged` when loss, gradient or weights are no numbers
    any more, and `TransientError` when a rank dies.
    """
    if config.learning_rate is None or config.answer_weight is None:
        raise ValueError("learning rate and weight of answers must be resolved before training")
    if label_ids(base.encode, prompts[0]) != base.label_tokens:
        raise BadInput(f"After prompts such as {prompts[0][-20:]!r} this model's labels are other tokens.")
    data = StepData(base=base, prompts=prompts, labels=labels, config=config)
    others = resident_ranks(min(ranks, config.batch_size * config.accumulation), base.device)
    with others.closed_by_failure():
        return _train(
            data,
            others,
            checkpoint=checkpoint,
            until_step=until_step,
            on_step=on_step,
            after_step=after_step,
            peak=config.learning_rate * rate_factor,
        )


def train_whole(
    base: Base,
    *,
    prompts: Sequence[str],
    labels: NDArray[np.integer],
    config: TrainConfig,
    on_step: Callable[[StepRecord], bool] = lambda _: True,
    ranks: int = 1,
) -> TrainState:
    """Train from the seeded start to the last step in one segment, as a run would that is never cut."""
    return train_segment(
        base,
        prompts=prompts,
        labels=labels,
        config=config,
        checkpoint=None,
        until_step=plan_run(len(prompts), config).total_steps,
        on_step=on_step,
        ranks=ranks,
    )


def _train(
    data: StepData,
    others: Ranks,
    *,
    checkpoint: Path | None,
    until_step: int,
    on_step: Callable[[StepRecord], bool],
    after_step: int | None,
    peak: float,
) -> TrainState:
    base, config = data.base, data.config
    plan = plan_run(len(data.prompts), config)
    if until_step > plan.total_steps:
        raise ValueError(f"step {until_step} was asked of a training that ends with step {plan.total_steps}")
    others.begin(data)
    adapter = attach_lora(base, config)
    optimizer = make_optimizer(adapter, config)
    start = _restore(base, optimizer, checkpoint, config, after_step)
    base.peft.train()
    with explained_memory():
        size = choose_pass(
            base,
            config,
            longest=data.longest,
            shared=data.shared,
            wanted=recorded_rows(checkpoint),
            ranks=others.count,
        )
    size = others.agree(size)
    set_checkpointing(base, on=size.checkpointing)
    state = TrainState(base=base, optimizer=optimizer, step=start, stopped=False, uses=base.uses, size=size)
    # What is replayed is queued before the step ahead of it is asked what it came to: a small model's GPU would wait
    # for that.
    ahead = replays(base, size)

    def begin(step: int, share: Step) -> torch.Tensor:
        waits = not (ahead and are_recorded(base, share.batches))
        others.hand_out(adapter, step=step, until=until_step, size=size, waits=waits)
        with seeded_dropout(base.device, config.seed, step), explained_memory():
            losses = accumulate(base, adapter, share, size)
        return others.sum_up(adapter, losses, share.tokens)

    began = time.perf_counter()
    current = data.step(start + 1, size)
    totals = None
    for step in range(start + 1, until_step + 1):
        if totals is None:
            totals = begin(step, current)
        # A GPU works on while the next step's prompts are encoded.
        upcoming = data.step(step + 1, size) if step < until_step else current
        optimizer.param_groups[0]["lr"] = rate = learning_rate_at(step, plan, config, peak)
        if not ahead or step <= start + _FIRST_STEPS:
            others.reach_sum(base.device)
        told = _Told(torch.cat([totals, _clip(adapter, config.max_grad_norm)[None]]))
        update(optimizer, adapter)
        totals = begin(step + 1, upcoming) if ahead and step < until_step else None
        others.reach(told.point)
        loss, missing, tokens, norm = told.values
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise _diverged(f"at step {step}: loss {loss}, gradient norm {norm}", checkpoint)
        state.step = step
        ended = time.perf_counter()
        record = StepRecord(
            step=step,
            loss=loss,
            answer_loss=missing if config.answer_weight else None,
            learning_rate=rate,
            grad_norm=norm,
            samples_per_second=current.rows / (ended - began),
            tokens=int(tokens),
        )
        began = ended
        if not on_step(record):
            state.stopped = True
            others.reach_sum(base.device)  # of the step that is queued already
            break
        current = upcoming
    if not state.stopped:
        # The last step's own weights have answered nothing yet: nobody would see that they cannot.
        probed = score_attached(base, data.prompts[:_PROBED], config.max_tokens, batch_size=_PROBED)
        if not np.isfinite(probed.p_signal).all():
            raise _diverged(f"at step {state.step}: its answers are no numbers", checkpoint)
    return state


def _restore(
    base: Base, optimizer: Any, checkpoint: Path | None, config: TrainConfig, after_step: int | None
) -> int:
    """Set adapter and optimizer to the checkpoint, or to the start; the number of steps done."""
    adapter: Adapter = base.adapter
    if checkpoint is None:
        reset_adapter(adapter, config.seed)
        return 0
    step = verified_step(checkpoint, base)
    step = step if after_step is None else after_step
    load_adapter(adapter, checkpoint)
    load_optimizer(optimizer, adapter, checkpoint, step=step)
    return step


class _Told:
    """Numbers on their way from the device: read `values` once it has come to `point`."""

    def __init__(self, numbers: torch.Tensor) -> None:
        self._numbers = numbers
        if numbers.device.type == "cuda":
            self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
        self.point = Reached(numbers.device)

    @property
    def values(self) -> list[float]:
        found: list[float] = self._numbers.tolist()
        return found


def _clip(adapter: Adapter, limit: float) -> torch.Tensor:
    """Scale the gradient down to norm `limit` where it is above; the norm before, a float64 on the device."""
    gradient = adapter.flat.grad
    norm = torch.linalg.vector_norm(gradient).double()
    # Times one where it is below, which changes nothing.
    gradient.mul_((limit / norm).clamp(max=1.0))
    return norm


def _diverged(what: str, checkpoint: Path | None) -> Diverged:
    good = "There is no good checkpoint yet"
    if checkpoint is not None:
        good = f"The last good checkpoint is step {checkpoint.name.lstrip('0')}"
    return Diverged(f"Training diverged {what}. {good}. Start a run with a lower learning rate.")
