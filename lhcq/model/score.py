"""P(signal) of events from a checkpoint, in one forward pass each, and what it answers in words."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lhcq.config import TrainConfig
from lhcq.errors import BadInput
from lhcq.model.adapter import attach_lora, load_adapter
from lhcq.model.answers import read_and_keep, remembers, say_answers
from lhcq.model.base import Base
from lhcq.model.checkpoint import verified_step
from lhcq.model.compute import has_fp8
from lhcq.model.loss import label_logits, label_scores, pad_right, shared_tokens
from lhcq.model.passes import limit_memory

log = logging.getLogger(__name__)

_GPU_TOKENS = 16_384
"""Tokens that keep a GPU busy; twice as many bring no more events a second."""
_LAUNCHING = 4
"""Times as many of a small model, of which a pass takes as long as its kernels' launches."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """What the model says of each prompt, in the order of the prompts."""

    p_signal: NDArray[np.float64]
    """(n,) the softmax over the two labels, at signal."""
    answers: NDArray[np.int8]
    """(n,) what free generation says: 1 signal, 0 background, -1 neither."""


def score_prompts(
    base: Base,
    *,
    checkpoint: Path,
    config: TrainConfig,
    prompts: Sequence[str],
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> Scores:
    """Score `prompts` with the adapter in `checkpoint`, which `config` trained, in 8 bits if that did and can be.

    `on_batch` is told how many prompts are done. Raises `BadInput` for a damaged checkpoint and a prompt longer
    than `config.max_tokens`.
    """
    verified_step(checkpoint, base)
    if base.device.type == "cuda":
        limit_memory(config.max_memory)
    if config.compute == "fp8" and not has_fp8(base):
        log.info("%s was trained in 8 bits; it is scored in %s here", checkpoint.name, base.compute_dtype)
        config = config.model_copy(update={"compute": "auto"})
    load_adapter(attach_lora(base, config), checkpoint)
    return score_attached(base, prompts, config.max_tokens, batch_size=batch_size, on_batch=on_batch)


def score_attached(
    base: Base,
    prompts: Sequence[str],
    max_tokens: int,
    *,
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> Scores:
    """Score `prompts` with the adapter that is attached."""
    token_ids = base.encode(list(prompts))
    lengths = np.array([len(ids) for ids in token_ids], dtype=np.int64)
    bad = np.flatnonzero((lengths < 1) | (lengths > max_tokens))
    if len(bad):
        raise BadInput(
            f"Prompt {bad[0]} has {lengths[bad[0]]} tokens, allowed are 1 to {max_tokens} (max_tokens)."
        )
    margin = np.zeros(len(prompts), dtype=np.float64)
    answers = np.full(len(prompts), -1, dtype=np.int8)
    # Prompts of like length share a batch, so that little of it is padding.
    order = np.argsort(lengths, kind="stable")
    base.peft.eval()
    base.adapter.refresh()
    at = 0
    size = _batch_rows(base, batch_size, int(lengths.max(initial=1)))
    while at < len(order):
        rows = order[at : at + size]
        try:
            margin[rows], answers[rows] = _score_batch(base, [token_ids[row] for row in rows])
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size = -(-size // 2)
            continue
        at += len(rows)
        if on_batch is not None:
            on_batch(at)
    return Scores(p_signal=_sigmoid(margin), answers=answers)


def _batch_rows(base: Base, batch_size: int, longest: int) -> int:
    """Prompts in a pass: more than `batch_size` where a GPU would be idle with those."""
    if base.device.type != "cuda":
        return batch_size
    return max(batch_size, _GPU_TOKENS * (_LAUNCHING if base.records else 1) // longest)


@torch.inference_mode()
def _score_batch(base: Base, token_ids: list[list[int]]) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """l_signal - l_background, and the answers, for one batch."""
    padded, last = pad_right(token_ids, base)
    kept = None
    if not base.splits_labels and remembers(base):
        ends, kept = read_and_keep(base, padded, last)
        scores = label_logits(base, ends)
    else:
        scores, ends = label_scores(base, padded, last, shared=shared_tokens(token_ids))
    logits = scores.double()
    margin = (logits[:, 1] - logits[:, 0]).cpu().numpy()
    return margin, say_answers(base, token_ids, ends, last, kept)


def _sigmoid(margin: NDArray[np.float64]) -> NDArray[np.float64]:
    small = np.exp(-np.abs(margin))
    result: NDArray[np.float64] = np.where(margin >= 0, 1.0, small) / (1.0 + small)
    return result
