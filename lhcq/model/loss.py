"""The two-row loss: which of the two label tokens comes next, and nothing else of the vocabulary."""

from collections.abc import Sequence

import torch

from lhcq.model.base import Base


def pad_right(token_ids: Sequence[list[int]], base: Base) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids `(n, longest)`, padded to the right, and each prompt's last position `(n,)`.

    A causal model needs no mask for that: what comes after a prompt's end is never looked at from inside it.
    """
    lengths = torch.tensor([len(ids) for ids in token_ids])
    padded = torch.full((len(token_ids), int(lengths.max())), base.pad_id)
    for row, ids in zip(padded, token_ids, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return padded.to(base.device), (lengths - 1).to(base.device)


def last_hidden(base: Base, token_ids: Sequence[list[int]]) -> torch.Tensor:
    """The backbone's output at each prompt's last position, `(n, hidden)`."""
    padded, last = pad_right(token_ids, base)
    hidden: torch.Tensor = base.backbone(input_ids=padded, use_cache=False).last_hidden_state
    return hidden[torch.arange(len(last), device=base.device), last]


def label_logits(base: Base, hidden: torch.Tensor) -> torch.Tensor:
    """Logits of background and signal, `(n, 2)` float32, from `last_hidden`."""
    weight, bias = base.label_rows
    with torch.autocast(base.device.type, enabled=False):
        return torch.nn.functional.linear(hidden.float(), weight, bias)


def row_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row over the two labels, `(n,)` in nats."""
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")
