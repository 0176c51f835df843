"""Copies of trained weights, in the type and the order that layers multiply with."""

from collections.abc import Iterable

import torch


class Copies:
    """Pairs of a copy and the weight that it is of."""

    def __init__(self, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
        pairs = list(pairs)
        self._copies = [pair[0] for pair in pairs]
        self._trained = [pair[1] for pair in pairs]

    @torch.no_grad()
    def refresh(self) -> None:
        """Let the layers see what the trained weights are now."""
        if self._copies:
            torch._foreach_copy_(self._copies, self._trained)
