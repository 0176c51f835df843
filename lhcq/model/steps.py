"""A rank's share of an optimizer step: its rows, cut into passes, and their gradient.

Which rows a step has follows from its number, and which of them a rank takes from the number of ranks. So the same
samples are seen, in the same steps, however many ranks there are.
"""

import contextlib
import dataclasses
import functools
import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lhcq.config import TrainConfig
from lhcq.errors import BadInput, PermanentError
from lhcq.model.adapter import Adapter
from lhcq.model.base import Base
from lhcq.model.loss import shared_tokens
from lhcq.model.passes import Batch, PassSize, answers_in, cut_step, run_pass
from lhcq.model.plan import balanced_rows, class_weights, step_rows

_LONGEST_READ = 256
_FEWEST_SHARED = 4
"""Tokens that are worth the trouble."""
_END_PERIODS = (4, 16)
"""Steps of which one learns that a sequence ends behind its label, which costs a token a prompt: at first, and after
`_END_LEARNT` steps, where it has only to be kept."""
_END_LEARNT = 256


class Step(NamedTuple):
    """What one rank does in a step."""

    batches: list[Batch]
    """Empty where a step has fewer rows than ranks."""
    rows: int
    """Of the whole step."""
    tokens: int
    """Of this rank's prompts, without padding."""


@dataclasses.dataclass(kw_only=True)
class StepData:
    """The training subset, read a step at a time; `labels` are label bits, one a prompt."""

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

    @functools.cached_property
    def shared(self) -> int:
        """Tokens that all prompts begin with and that a pass computes once, as far as the first in order tell.

        None with dropout, which hits other places in each row.
        """
        if self.base.device.type != "cuda" or self.base.records or self.config.dropout:
            return 0
        if self.base.adapter.decoder is None:
            return 0
        ordered = [min(self.prompts), max(self.prompts), *self.prompts[:_LONGEST_READ]]
        shared = shared_tokens(self.base.encode(ordered))
        return shared if shared >= _FEWEST_SHARED else 0

    def _shared(self, token_ids: list[list[int]]) -> int:
        """As `shared`, of the prompts of a step: the same for all steps but in the rarest case."""
        return min(self.shared, shared_tokens(token_ids)) if self.shared else 0

    def step(self, step: int, size: PassSize, rank: int = 0) -> Step:
        """The share of `rank` of a step that is cut as `size` says; `BadInput` for a prompt that is too long."""
        if self.balanced:
            rows = balanced_rows(step, self.labels, self.config)
        else:
            rows = step_rows(step, len(self.prompts), self.config)
        mine = np.array_split(rows, size.ranks)[rank]
        token_ids = self.base.encode([self.prompts[row] for row in mine])
        _refuse_long(token_ids, mine, self.config.max_tokens)
        bits = [int(self.labels[row]) for row in mine]
        # Over the number of rows, not of their weights: the weights count also where a pass holds one row.
        shares = [self.class_weights[bit] / len(rows) for bit in bits]
        batches = cut_step(
            token_ids,
            bits,
            shares,
            base=self.base,
            rows=size.rows,
            shared=self._shared(token_ids),
            answers=answers_in(self.base, self.config, ends=learns_end(step)),
        )
        return Step(batches=batches, rows=len(rows), tokens=sum(map(len, token_ids)))


def learns_end(step: int) -> bool:
    """Whether `step` (from 1) learns that the sequence ends behind the label."""
    return step % _END_PERIODS[step > _END_LEARNT] == 1


def accumulate(base: Base, adapter: Adapter, share: Step, size: PassSize) -> torch.Tensor:
    """Leave the gradient of a share in the adapter; its part of the step's losses `(2,)`, on the device."""
    adapter.flat.grad.zero_()
    adapter.refresh()
    if not share.batches:
        return torch.zeros(2, device=base.device)
    return torch.stack([run_pass(base, batch, size) for batch in share.batches]).sum(dim=0)


@contextlib.contextmanager
def seeded_dropout(device: torch.device, seed: int, step: int, rank: int = 0) -> Iterator[None]:
    """Random numbers that depend on the arguments alone; the process's own generators stay as they were.

    Rank 0 draws what a process without others draws.
    """
    entropy = [seed, step, rank] if rank else [seed, step]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
        yield


@contextlib.contextmanager
def explained_memory() -> Iterator[None]:
    """Turn a GPU that has run out of memory into an error that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PermanentError(
            "The GPU's memory ran out in training: something else takes more of it than at the start. Free it and "
            "resume the run, or start one with a smaller --max-memory."
        ) from error


def _refuse_long(token_ids: list[list[int]], rows: NDArray[np.int64], limit: int) -> None:
    for ids, row in zip(token_ids, rows, strict=True):
        if not 0 < len(ids) <= limit:
            raise BadInput(
                f"Training prompt {row} has {len(ids)} tokens, allowed are 1 to {limit} (max_tokens)."
            )
