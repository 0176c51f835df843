"""The two-row loss: which of the two label tokens comes next; and what it costs a model to answer in words at all.

Where a tokenizer splits a label, the label's log-likelihood takes the place of its token's logit: the sum of the
log-probabilities of its tokens. With single tokens both are the same, since what normalises them is.

The choice between the labels says nothing of the rest of the vocabulary, which a model could like better. So the
probability of both together is learnt too, and the end of the sequence behind the label.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

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


class Outputs(NamedTuple):
    """What a model gives for a batch of `n` prompts; outputs are `(n, hidden)`, or `(n, vocabulary)` where it makes
    its own logits (`vocabulary_logits`)."""

    labels: torch.Tensor
    """What the softmax over background and signal is taken of, `(n, 2)` float32."""
    ends: torch.Tensor
    """The output at the prompts' ends."""
    after: torch.Tensor | None
    """The output behind each prompt and its label, where that was asked for."""


def label_scores(
    base: "Base", token_ids: torch.Tensor, last: torch.Tensor, *, shared: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first two of `read_outputs`."""
    outputs = read_outputs(base, token_ids, last, shared=shared)
    return outputs.labels, outputs.ends


def read_outputs(
    base: "Base",
    token_ids: torch.Tensor,
    last: torch.Tensor,
    *,
    shared: int = 0,
    answers: torch.Tensor | None = None,
) -> Outputs:
    """Run the model over prompts.

    `token_ids` `(n, length)` are padded to the right, `last` `(n,)` are the prompts' last positions. The first
    `shared` tokens of all prompts are the same, and no prompt's last. With label bits `answers` `(n,)`, the output
    behind each prompt's label is given too; there must be room for a token behind each prompt.
    """
    if base.splits_labels:
        return _read_split_labels(base, token_ids, last, answers)
    at = last[:, None]
    if answers is not None:
        labels = torch.tensor(base.label_ids, device=base.device)
        token_ids = token_ids.scatter(1, at + 1, labels[answers][:, None])
        at = torch.cat([at, at + 1], dim=1)
    read = read_at(base, token_ids, at, shared=shared)
    ends = read[:, 0]
    return Outputs(label_logits(base, ends), ends, None if answers is None else read[:, 1])


def read_at(base: "Base", token_ids: torch.Tensor, at: torch.Tensor, *, shared: int = 0) -> torch.Tensor:
    """The outputs at positions `at` `(n, k)` of rows of tokens, `(n, k, hidden)`, or `(n, k, vocabulary)`."""
    decoder = base.adapter.decoder if base.adapter else None
    if decoder is not None:
        outputs: torch.Tensor = decoder(token_ids, at, shared)
        return outputs
    return _outputs(base, token_ids)[torch.arange(len(at), device=base.device)[:, None], at]


def _read_split_labels(
    base: "Base", token_ids: torch.Tensor, last: torch.Tensor, answers: torch.Tensor | None
) -> Outputs:
    """As `read_outputs`, by one row for each prompt with each label behind it."""
    labels, there = base.label_table  # (2, longest)
    n, longest = len(last), labels.shape[1]
    rows = torch.arange(n, device=base.device)[:, None]
    # (n, longest), of what predicts each token
    before = last[:, None] + torch.arange(longest, device=base.device)
    asked = torch.full((2, n, token_ids.shape[1] + longest), base.pad_id, device=base.device)
    asked[:, :, : token_ids.shape[1]] = token_ids
    asked[:, rows, before + 1] = labels[:, None, :].expand(2, n, longest)
    outputs = _outputs(base, asked.flatten(0, 1))
    outputs = outputs.view(2, n, *outputs.shape[1:])
    at = outputs[:, rows, before]  # (2, n, longest, hidden)
    logits = vocabulary_logits(base, at)
    chosen = labels[:, None, :, None].expand(2, n, longest, 1)
    tokens = torch.log_softmax(logits.float(), dim=-1).gather(-1, chosen).squeeze(-1)
    after = None
    if answers is not None:
        long = there.sum(dim=-1).long()  # (2,)
        after = outputs[answers, rows[:, 0], last + long[answers]]
    return Outputs((tokens * there[:, None, :]).sum(dim=-1).t(), at[0, :, 0], after)


def row_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row over the two labels, `(n,)` in nats."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def missing_losses(base: "Base", outputs: Outputs) -> torch.Tensor:
    """Minus the log of the probability that the model says either label, `(n,)` nats, of all that it could say."""
    if base.splits_labels:
        return -outputs.labels.logsumexp(dim=-1)
    logits = vocabulary_logits(base, outputs.ends).float()
    return logits.logsumexp(dim=-1) - logits[:, list(base.label_ids)].logsumexp(dim=-1)


def end_losses(base: "Base", outputs: Outputs) -> torch.Tensor:
    """Minus the log of the probability that the sequence ends behind the label, `(n,)` nats."""
    if outputs.after is None:
        raise ValueError("what comes behind the labels was not asked for")
    logits = vocabulary_logits(base, outputs.after).float()
    end = torch.full((len(logits),), base.end_ids[0], device=logits.device)
    return torch.nn.functional.cross_entropy(logits, end, reduction="none")
