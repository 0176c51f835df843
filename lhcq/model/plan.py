"""What a run will do, as pure functions of its size and configuration: steps, checkpoints, rates, batches.

Steps count from 1: step `s` is the `s`-th optimizer step, and checkpoint `s` is what stands after it. The training
rows are one endless stream, a fresh seeded permutation an epoch, and step `s` reads a fixed stretch of it, so that
a resumed run needs to know nothing but its step.
"""

import itertools
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lhcq.config import ANSWER_WEIGHT, TrainConfig
from lhcq.errors import BadInput
from lhcq.frozen import Frozen
from lhcq.model.weights import count_parameters


class RunPlan(Frozen):
    """The shape of a training run."""

    total_steps: int
    checkpoint_steps: tuple[int, ...]
    """Rising; the last one is `total_steps`."""
    warmup_steps: int


_STEPS_TO_SPEAK = 150
"""Within as many, at `ANSWER_WEIGHT` each, trainings learnt to answer (docs/results.md)."""
_LEAST_ANSWER_WEIGHT = 0.01
"""In trainings of 938 steps all of 60,000 answers were words with it."""


def plan_run(n_train: int, config: TrainConfig) -> RunPlan:
    """Plan a run over `n_train` prompts: its steps, and after which of them it commits a checkpoint."""
    if n_train < 1:
        raise BadInput("There is no prompt to train on. Prepare a split with more events.")
    window = config.batch_size * config.accumulation
    total = math.ceil(_stream_length(n_train, config) / window)
    total = min(total, config.max_steps or total)
    return RunPlan(
        total_steps=total,
        checkpoint_steps=_checkpoint_steps(total, config),
        warmup_steps=min(math.ceil(config.warmup_fraction * total), total - 1),
    )


def learning_rate_at(step: int, plan: RunPlan, config: TrainConfig, peak: float) -> float:
    """The rate of `step` (from 1): a linear rise to `peak`, then constant or half a cosine towards zero.

    No step has rate zero: the rise starts above it and the cosine would reach it one step after the last.
    """
    if step <= plan.warmup_steps:
        return peak * step / (plan.warmup_steps + 1)
    if config.schedule == "constant":
        return peak
    progress = (step - 1 - plan.warmup_steps) / (plan.total_steps - plan.warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))


def step_rows(step: int, n_train: int, config: TrainConfig) -> NDArray[np.int64]:
    """The rows of `step` (from 1), at most `batch_size * accumulation` of them.

    Over the run every row comes once an epoch. Only the last step may be short.
    """
    window = config.batch_size * config.accumulation
    start = (step - 1) * window
    stop = min(step * window, _stream_length(n_train, config))
    return np.concatenate(
        [
            _epoch_order(epoch, n_train, config.seed)[
                max(start - epoch * n_train, 0) : stop - epoch * n_train
            ]
            for epoch in range(start // n_train, (stop - 1) // n_train + 1)
        ]
    )


def balanced_rows(step: int, labels: NDArray[np.integer], config: TrainConfig) -> NDArray[np.int64]:
    """The rows of `step` (from 1) where both classes take turns; as many as `step_rows` gives.

    Each class is an endless stream of its own, a fresh seeded permutation each time that it is through. Raises
    `BadInput` when a class is missing.
    """
    class_weights(labels)  # which refuses such labels
    window = config.batch_size * config.accumulation
    places = np.arange((step - 1) * window, min(step * window, _stream_length(len(labels), config)))
    rows = np.empty(len(places), dtype=np.int64)
    for bit in (0, 1):
        members = np.flatnonzero(labels == bit)
        epochs, turns = np.divmod(places[places % 2 == bit] // 2, len(members))
        orders = {
            epoch: _epoch_order(epoch, len(members), config.seed, bit) for epoch in set(epochs.tolist())
        }
        rows[places % 2 == bit] = [
            members[orders[epoch][turn]] for epoch, turn in zip(epochs, turns, strict=True)
        ]
    return rows


def class_weights(labels: NDArray[np.integer]) -> tuple[float, float]:
    """Weights of background and signal, inverse to their shares, so that the mean over the samples is 1.

    Raises `BadInput` when a class is missing.
    """
    counts = np.bincount(labels, minlength=2)
    if len(counts) > 2 or counts.min() == 0:
        raise BadInput(
            f"Training needs both classes, but has {counts[0]} background and {counts[1]} signal prompts. "
            "Prepare a split with both."
        )
    weights = len(labels) / (2.0 * counts)
    return float(weights[0]), float(weights[1])


def recommended_learning_rate(model_dir: Path) -> float:
    """Peak rate of LoRA on all linear layers: small models take, and need, a larger one."""
    return 1e-3 if count_parameters(model_dir) < 1_000_000_000 else 2e-4


def recommended_answer_weight(total_steps: int) -> float:
    """The weight of answers in a run of so many steps: in all of them together as much as makes a short one speak.

    What a longer run gives to the words beyond that is missing from the choice between them.
    """
    return max(_LEAST_ANSWER_WEIGHT, ANSWER_WEIGHT * min(1.0, _STEPS_TO_SPEAK / total_steps))


def _stream_length(n_train: int, config: TrainConfig) -> int:
    # Rounded first: 0.1 + 0.2 epochs of ten prompts are three prompts, not four.
    return max(1, math.ceil(round(config.epochs * n_train, 6)))


def _checkpoint_steps(total: int, config: TrainConfig) -> tuple[int, ...]:
    if config.checkpoint_every is not None:
        inner = range(config.checkpoint_every, total, config.checkpoint_every)
        return (*inner, total)
    count = min(config.checkpoints, total)
    return tuple(round(total * k / count) for k in range(1, count + 1))


def _epoch_order(epoch: int, n_train: int, seed: int, *stream: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.PCG64([seed, epoch, *stream])).permutation(n_train)


def checkpoints_after(step: int, plan: RunPlan) -> tuple[int, ...]:
    """The checkpoints that are still to come after `step`."""
    return tuple(itertools.dropwhile(lambda at: at <= step, plan.checkpoint_steps))
