"""The forward and backward passes of an optimizer step: how many prompts each takes, and how it is run.

A step's rows are sorted by length and cut into passes of like lengths, so that little of a pass is padding. How they
are cut follows from the rows and the size of a pass alone, and changes the result by rounding only (and which places
dropout hits), since each row carries its own share of the step's loss.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from lhcq.config import TrainConfig
from lhcq.errors import PermanentError
from lhcq.frozen import Frozen
from lhcq.model.adapter import Adapter
from lhcq.model.base import Base
from lhcq.model.loss import end_losses, missing_losses, read_outputs, row_losses

# Lengths are rounded up to this where passes are recorded, so that a few shapes serve all.
LENGTH_STEP = 2
# With fewer tokens in a pass, the GPU waits for more than checkpointing's second forward pass costs.
ENOUGH_TOKENS = 2048
# More tokens in a pass of a model that does not stay unpacked bring no more speed, and take memory that others could
# use.
BUSY_TOKENS = 10_240
# The share of the memory that is aimed at, and that is taken: the rest is for the allocator's gaps and the optimizer.
_USABLE = 0.92
_ACCEPTED = 0.94

log = logging.getLogger(__name__)


class PassSize(Frozen):
    """How an optimizer step is cut; stored with each checkpoint."""

    rows: int
    """Prompts in one pass, at most."""
    checkpointing: bool = False
    """Whether the layers' activations are computed a second time instead of kept."""
    ranks: int = 1
    """Processes among which the step's rows are cut first."""


class Answers(NamedTuple):
    """What of answering in words a pass learns, beside the choice between the labels."""

    weight: float
    """Of the term in the loss."""
    ends: bool
    """Whether the end of the sequence behind the label is learnt too, which takes a token more."""


@dataclasses.dataclass(kw_only=True)
class Batch:
    """One pass, on the device: token ids `(rows, length)`, and one value a row."""

    token_ids: torch.Tensor
    last: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    """The row's share of the step's loss: its class weight over the rows of the step; 0 where a row is padding."""
    shared: int = 0
    """Tokens that all rows begin with, where they are computed once."""
    answers: Answers | None = None
    """None: the choice alone."""

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Its values on the device."""
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}

    @property
    def shape(self) -> tuple[Any, ...]:
        """What a recorded pass is known by."""
        return (*self.token_ids.shape, self.shared, self.answers)


def cut_step(
    token_ids: Sequence[list[int]],
    labels: Sequence[int],
    weights: Sequence[float],
    *,
    base: Base,
    rows: int,
    shared: int = 0,
    answers: Answers | None = None,
) -> list[Batch]:
    """The passes of a step over these prompts, the shortest prompts first; `weights` are the rows' shares.

    All prompts begin with the same `shared` tokens, which may be computed once. `answers` says what of answering in
    words is learnt.
    """
    if not token_ids:
        return []
    order = sorted(range(len(token_ids)), key=lambda row: len(token_ids[row]))
    # Passes of one size: a rest of three prompts would cost almost as much as a full pass.
    n_passes = -(-len(order) // rows)
    size = -(-len(order) // n_passes)
    parts = [order[at : at + size] for at in range(0, len(order), size)]
    fill = size if base.device.type == "cuda" else 0
    return [
        _batch(part, token_ids, labels, weights, base=base, fill=fill, shared=shared, answers=answers)
        for part in parts
    ]


def _batch(
    part: list[int],
    token_ids: Sequence[list[int]],
    labels: Sequence[int],
    weights: Sequence[float],
    *,
    base: Base,
    fill: int,
    shared: int,
    answers: Answers | None,
) -> Batch:
    n = max(len(part), fill)
    longest = _length(base, max(len(token_ids[row]) for row in part), answers)
    ids = np.full((n, longest), base.pad_id, dtype=np.int64)
    ids[:, :shared] = token_ids[part[0]][:shared]
    last, bits, shares = np.full(n, shared, np.int64), np.zeros(n, np.int64), np.zeros(n, np.float32)
    for at, row in enumerate(part):
        ids[at, : len(token_ids[row])] = token_ids[row]
        last[at], bits[at], shares[at] = len(token_ids[row]) - 1, labels[row], weights[row]
    on_device = (_sent(torch.from_numpy(array), base.device) for array in (ids, last, bits, shares))
    return Batch(
        **dict(zip(("token_ids", "last", "labels", "weights"), on_device, strict=True)),
        shared=shared,
        answers=answers,
    )


def _sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The values on a device; what a GPU has still to do is not waited for."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def _length(base: Base, longest: int, answers: Answers | None) -> int:
    """Tokens of a pass over prompts of up to `longest`, with room for the label behind each where that is learnt."""
    longest += answers is not None and answers.ends
    recorded = base.device.type == "cuda" and base.records
    return -(-longest // LENGTH_STEP) * LENGTH_STEP if recorded else longest


def run_pass(base: Base, batch: Batch, size: PassSize) -> torch.Tensor:
    """Add the pass's gradient to the adapter's; its shares of the step's losses `(2,)`, on the device.

    The first is of the choice between the labels, the second of saying either, 0 where that is not learnt.
    """
    return _replay(base, batch) if replays(base, size) else _eager(base, batch)


def replays(base: Base, size: PassSize) -> bool:
    """Whether passes are recorded once and replayed."""
    return base.records and not size.checkpointing


def are_recorded(base: Base, batches: Sequence[Batch]) -> bool:
    """Whether there is a record of each of these passes."""
    return all(batch.shape in base.adapter.graphs for batch in batches)


def _eager(base: Base, batch: Batch) -> torch.Tensor:
    try:
        losses, loss = _losses_of(base, batch)
        loss.backward()
    except BaseException:
        # A pass that found too little memory must not keep what it had.
        base.adapter.let_go()
        raise
    return losses


def _losses_of(base: Base, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """What `run_pass` tells, and what is learnt by."""
    asked = batch.answers
    outputs = read_outputs(
        base,
        batch.token_ids,
        batch.last,
        shared=batch.shared,
        answers=batch.labels if asked and asked.ends else None,
    )
    choice = (row_losses(outputs.labels, batch.labels) * batch.weights).sum()
    if asked is None:
        return torch.stack([choice.detach(), torch.zeros_like(choice)]), choice
    missing = (missing_losses(base, outputs) * batch.weights).sum()
    words = missing
    if asked.ends:
        words = words + (end_losses(base, outputs) * batch.weights).sum()
    return torch.stack([choice, missing]).detach(), choice + asked.weight * words


def _replay(base: Base, batch: Batch) -> torch.Tensor:
    """As `_eager`, from a recorded graph of this shape: a small model is otherwise bound by launching kernels."""
    adapter: Adapter = base.adapter
    if batch.shape not in adapter.graphs:
        recorded = _record(base, batch)
        if recorded is None:
            return _eager(base, batch)
        adapter.graphs[batch.shape] = recorded
    graph, inputs, losses = adapter.graphs[batch.shape]
    for name, tensor in batch.tensors.items():
        getattr(inputs, name).copy_(tensor)
    graph.replay()
    result: torch.Tensor = losses.clone()
    return result


def _record(base: Base, batch: Batch) -> tuple[Any, Batch, torch.Tensor] | None:
    """The graph of a pass, its inputs and its losses; None for a model that does what no graph can hold."""
    # What is drawn in rehearsing must not move the random numbers of the step.
    with torch.random.fork_rng(devices=[base.device]):
        return _rehearse_and_record(base, batch)


def _rehearse_and_record(base: Base, batch: Batch) -> tuple[Any, Batch, torch.Tensor] | None:
    adapter: Adapter = base.adapter
    kept, before = adapter.flat.grad.clone(), torch.cuda.current_stream()
    inputs = dataclasses.replace(batch, **{name: tensor.clone() for name, tensor in batch.tensors.items()})
    side = torch.cuda.Stream()
    side.wait_stream(before)
    with torch.cuda.stream(side):
        _eager(base, inputs)  # what libraries set up, or try out, for a shape that is new to them
    before.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    pool = (
        next((found[0].pool() for found in adapter.graphs.values()), None) or torch.cuda.graph_pool_handle()
    )
    try:
        with torch.cuda.graph(graph, pool=pool):
            losses = _eager(base, inputs)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        log.warning("the training pass cannot be recorded as a CUDA graph (%s): it runs slower", error)
        _end_broken_capture(base, pool, before)
        return None
    finally:
        adapter.flat.grad.copy_(kept)
    return graph, inputs, losses


def _end_broken_capture(base: Base, pool: Any, before: Any) -> None:
    """Undo what torch leaves when a capture breaks off, and record nothing any more.

    It stays on the capture's stream, goes on to allocate there in the graph's pool, and its generator still waits for
    the capture's end, which every dropout then takes for an error.
    """
    base.records = False
    base.adapter.graphs.clear()  # they draw from the generator that is replaced
    torch.cuda.set_stream(before)
    with contextlib.suppress(AttributeError, RuntimeError):  # no more than memory is at stake
        torch._C._cuda_endAllocateToPool(before.device_index, pool)
    generator = torch.cuda.default_generators[before.device_index]
    generator.graphsafe_set_state(generator.clone_state())


def set_checkpointing(base: Base, *, on: bool) -> None:
    """Let the layers keep their activations, or compute them again."""
    model = base.model
    if base.adapter is not None and base.adapter.decoder is not None:
        base.adapter.decoder.checkpointing = on
    name = (
        "activation_checkpointing"
        if hasattr(model, "activation_checkpointing_enable")
        else "gradient_checkpointing"
    )
    if on != bool(getattr(model, f"is_{name}")):
        if on:
            getattr(model, f"{name}_enable")(**{f"{name}_kwargs": {"use_reentrant": False}})
            # It lets the embeddings' output want a gradient, for the reentrant way, and never takes that back.
            model.disable_input_require_grads()
        else:
            getattr(model, f"{name}_disable")()


def choose_pass(
    base: Base,
    config: TrainConfig,
    *,
    longest: int,
    shared: int = 0,
    wanted: int | None = None,
    ranks: int = 1,
) -> PassSize:
    """The size of a pass over prompts of up to `longest` tokens, and the layers set accordingly.

    On a CPU `config.batch_size`, so that its results are the same everywhere. On a GPU as many of a step's prompts
    as its memory (`config.max_memory`) takes and keep it busy, tried with the longest; with checkpointing only where
    too few fit otherwise. All prompts begin with the same `shared` tokens. `wanted` is what the run had so far,
    `ranks` how many processes take a share of each step. Raises `PermanentError` when not even one prompt fits.
    """
    if base.device.type != "cuda":
        return PassSize(rows=config.batch_size, ranks=ranks)
    window = -(-config.batch_size * config.accumulation // ranks)
    room = limit_memory(config.max_memory)
    # The largest pass is one that learns the end as well.
    answers = answers_in(base, config, ends=True)
    longest = _length(base, longest, answers)
    if not base.records:
        # Rather passes alike than one of a rest.
        most = max(1, BUSY_TOKENS // (longest - shared))
        window = -(-window // -(-window // most))
    key = (base.adapter.name, longest, shared, window, room, answers)
    if key not in base.passes:
        trial = _Trial(longest=longest, shared=shared, answers=answers)
        base.passes[key] = _probe_sizes(base, trial, window=window, room=room)
    size: PassSize = base.passes[key]
    size = size.model_copy(update={"rows": min(size.rows, wanted or size.rows), "ranks": ranks})
    set_checkpointing(base, on=size.checkpointing)
    return size


def limit_memory(max_memory: int | None) -> int:
    """Hold this process to `max_memory` bytes of the GPU, or to all of it; the bytes that it may allocate."""
    free, total = map(int, torch.cuda.mem_get_info())
    room: int = min(max_memory or total, free + int(torch.cuda.memory_reserved()))
    torch.cuda.set_per_process_memory_fraction(min(1.0, (max_memory or total) / total))
    return room


def answers_in(base: Base, config: TrainConfig, *, ends: bool) -> Answers | None:
    """What of answering in words a pass of this training learns; the end only where the model knows one."""
    if not config.answer_weight:
        return None
    return Answers(config.answer_weight, ends and bool(base.end_ids))


class _Trial(NamedTuple):
    """A pass but for its rows."""

    longest: int
    """Tokens of a row."""
    shared: int
    answers: Answers | None


def _probe_sizes(base: Base, trial: _Trial, *, window: int, room: int) -> PassSize:
    for checkpointing in (False, True):
        set_checkpointing(base, on=checkpointing)
        rows = _largest(base, trial, window=window, room=room)
        if rows == window or rows * trial.longest >= ENOUGH_TOKENS or (rows and checkpointing):
            return PassSize(rows=rows, checkpointing=checkpointing)
    raise PermanentError(
        f"One prompt of {trial.longest} tokens does not fit into {room / 2**30:.1f} GiB of GPU memory. Give more by "
        "--max-memory, free the GPU, or train a smaller model or shorter prompts (template compact)."
    )


def _largest(base: Base, trial: _Trial, *, window: int, room: int) -> int:
    """The most rows of a pass that fit, by the peaks of two small passes, then tried; 0 when one does not."""
    one = _peak(base, 1, trial)
    if one is None:
        return 0
    two = _peak(base, 2, trial) if window > 1 else None
    if two is None:
        return 1
    rows = max(1, min(window, 1 + int((_USABLE * room - one) // max(two - one, 1))))
    while rows > 1:
        peak = _peak(base, rows, trial)
        if peak is not None and peak <= _ACCEPTED * room:
            break
        # What is largest in a small pass, unpacked weights, is not in a large one: its peak rises faster.
        rest = (_USABLE * room - one) / (peak - one) if peak is not None else 0.8
        rows = max(1, min(rows - 1, int(rows * rest)))
    return rows


def _peak(base: Base, rows: int, trial: _Trial) -> int | None:
    """Bytes allocated at the peak of one pass of this shape; None when there are too few."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    behind = trial.answers is not None and trial.answers.ends
    batch = Batch(
        token_ids=torch.full((rows, trial.longest), base.pad_id, device=base.device),
        last=torch.full((rows,), trial.longest - 1 - behind, device=base.device),
        labels=torch.zeros(rows, dtype=torch.int64, device=base.device),
        weights=torch.full((rows,), 1.0 / rows, device=base.device),
        shared=trial.shared,
        answers=trial.answers,
    )
    try:
        _eager(base, batch)
        torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return None
    finally:
        base.adapter.flat.grad.zero_()
    return int(torch.cuda.max_memory_allocated())
