"""The two-row loss: which of the two label tokens comes next, and nothing else of the vocabulary.

Where a tokenizer splits a label, the label's log-likelihood takes the place of its token's logit: the sum of the
log-probabilities of its tokens. With single tokens both are the same, since what normalises them is.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from lhcq.model.base import Base


def pad_right(token_ids: Sequence[list[int]], base: "Base") -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids `(n, longest)`, padded to the right, and each prompt's last position `(n,)`.

    A causal model needs no mask for that: what comes after a prompt's end is never looked at from inside it.
    """
    lengths = torch.tensor([len(ids) for ids in token_ids])
    padded = torch.full((len(token_ids), int(lengths.max())), base.pad_id)
    for row, ids in zip(padded, token_ids, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return padded.to(base.device), (lengths - 1).to(base.device)


def shared_tokens(token_ids: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with, each prompt's last left out; 0 of a single prompt."""
    if len(token_ids) < 2:
        return 0
    # What the first and the last in order share, all between share.
    first, last = min(token_ids), max(token_ids)
    most = min(map(len, token_ids)) - 1
    return next((at for at in range(most) if first[at] != last[at]), most)


def label_logits(base: "Base", ends: torch.Tensor) -> torch.Tensor:
    """Logits of background and signal, `(n, 2)` float32, from what the model gives at the prompts' ends."""
    if base.own_logits:
        return ends[:, list(base.label_ids)].float()
    weight, bias = base.label_rows
    with torch.autocast(base.device.type, enabled=False):
        return torch.nn.functional.linear(ends.float(), weight, bias)


def vocabulary_logits(base: "Base", ends: torch.Tensor) -> torch.Tensor:
    """Logits of the whole vocabulary, `(..., vocabulary)`, from what the model gives at some positions."""
    logits: torch.Tensor = ends if base.own_logits else base.head(ends)
    return logits


def _outputs(base: "Base", token_ids: torch.Tensor) -> torch.Tensor:
    """What logits are made of at each position: the decoder's output, or they themselves where the model has to."""
    if base.own_logits:
        logits: torch.Tensor = base.model(input_ids=token_ids, use_cache=False).logits
        return logits
    hidden: torch.Tensor = base.backbone(input_ids=token_ids, use_cache=False).last_hidden_state
    return hidden


def label_scores(
    base: "Base", token_ids: torch.Tensor, last: torch.Tensor, *, shared: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the softmax over background and signal is taken of, `(n, 2)` float32, and the output at the prompts' ends.

    `token_ids` `(n, length)` are padded to the right, `last` `(n,)` are the prompts' last positions; the output is
    `(n, hidden)`, or `(n, vocabulary)` where the model makes its own logits (`vocabulary_logits`). The first `shared`
    tokens of all prompts are the same, and no prompt's last.
    """
    if base.splits_labels:
        return _label_log_likelihoods(base, token_ids, last)
    decoder = base.adapter.decoder if base.adapter else None
    if decoder is not None:
        ends = decoder(token_ids, last, shared)
    else:
        ends = _outputs(base, token_ids)[torch.arange(len(last), device=base.device), last]
    return label_logits(base, ends), ends


def _label_log_likelihoods(
    base: "Base", token_ids: torch.Tensor, last: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `label_scores`, by one row for each prompt with each label behind it."""
    labels, there = base.label_table  # (2, longest)
    n, longest = len(last), labels.shape[1]
    rows = torch.arange(n, device=base.device)[:, None]
    before = last[:, None] + torch.arange(
        longest, device=base.device
    )  # (n, longest), of what predicts each token
    asked = torch.full((2, n, token_ids.shape[1] + longest), base.pad_id, device=base.device)
    asked[:, :, : token_ids.shape[1]] = token_ids
    asked[:, rows, before + 1] = labels[:, None, :].expand(2, n, longest)
    outputs = _outputs(base, asked.flatten(0, 1))
    at = outputs.view(2, n, *outputs.shape[1:])[:, rows, before]  # (2, n, longest, hidden)
    logits = vocabulary_logits(base, at)
    chosen = labels[:, None, :, None].expand(2, n, longest, 1)
    tokens = torch.log_softmax(logits.float(), dim=-1).gather(-1, chosen).squeeze(-1)
    return (tokens * there[:, None, :]).sum(dim=-1).t(), at[0, :, 0]


def row_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row over the two labels, `(n,)` in nats."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")
