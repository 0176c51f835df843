"""The weights of a small model's layers behind each other, so that a step changes all of them by a few kernels.

Where a model is small, a GPU takes as long to begin a kernel as to run it, and waits for what a step does once for
each layer. Here LoRA is added to the weights of all layers by one product for each kind of layer, once a step: first
to what rounding had cut off them, then to them, so that what is learnt is not rounded back (`lhcq.model.joint`). What
a pass finds for A and B goes into one float32 tensor, and from there at once to the gradient of all weights.
"""

import math
from typing import NamedTuple

import torch

from lhcq.model.joint import Joint, Kept
from lhcq.model.kernels.linear import UNPACKED
from lhcq.model.kernels.triton import unpack


class _Kind(NamedTuple):
    """The joints of one place in all layers."""

    weight: torch.Tensor
    """`(layers, out, in)`, as `rest` and `merged`."""
    rest: torch.Tensor
    """What NF4's values are beside `weight`, which is rounded."""
    b: torch.Tensor
    a: torch.Tensor
    merged: torch.Tensor


class Stacks:
    """What the joints of a decoder multiply with, and where they leave their gradients; call `refresh` each step."""

    @staticmethod
    def fit(kinds: list[list[Joint]], flat: torch.nn.Parameter) -> bool:
        """Whether the layers keep their weights, and the adapter has no others."""
        joints = [joint for kind in kinds for joint in kind]
        trained = sum(weight.numel() for joint in joints for weight in joint.trained)
        return trained == flat.numel() and all(
            hasattr(base, UNPACKED) for one in joints for base in one.bases
        )

    def __init__(self, kinds: list[list[Joint]], flat: torch.nn.Parameter) -> None:
        """`kinds` are the joints of all layers by their place in a layer, the one that is first there first."""
        self._flat = flat
        device, dtype = flat.device, kinds[0][0].dtype
        size = sum(joint.a.numel() + joint.b.numel() for joints in kinds for joint in joints)
        self._copies = torch.zeros(size, dtype=dtype, device=device)
        self._grads = torch.zeros(size, dtype=torch.float32, device=device)
        self._scale = kinds[0][0].scale
        places = torch.full((flat.numel(),), -1)
        self._kinds: list[_Kind] = []
        start = 0
        for joints in kinds:
            start = self._stack(joints, start, places)
        self._places = places.to(device)
        kinds[0][0].on_last = self._give

    def _stack(self, joints: list[Joint], start: int, places: torch.Tensor) -> int:
        """Give the joints their stretch from `start` on, and note its `places` by the order of weights; its end."""
        shape_a, shape_b = ((len(joints), *one.shape) for one in (joints[0].a, joints[0].b))
        lengths = [math.prod(shape_a), math.prod(shape_b)]
        end: int = start + sum(lengths)
        parts = [
            one[start:end].split(lengths)
            for one in (self._copies, self._grads, torch.arange(self._copies.numel()))
        ]
        (a, b), (grads_a, grads_b), (numbers_a, numbers_b) = (
            (one.view(shape_a), other.view(shape_b)) for one, other in parts
        )
        weight = merged = None
        if not joints[0].fp8:
            weight = torch.stack(
                [torch.cat([getattr(base, UNPACKED) for base in one.bases]) for one in joints]
            )
            merged = weight
            if joints[0].members:
                merged = torch.empty_like(weight)
                rest = torch.stack([_rest(one, weight[layer]) for layer, one in enumerate(joints)])
                self._kinds.append(_Kind(weight, rest, b, a, merged))
        for layer, joint in enumerate(joints):
            joint.a, joint.b = a[layer], b[layer]
            joint.grads = grads_a[layer], grads_b[layer]
            if weight is not None and merged is not None:
                joint.kept = Kept(weight[layer], merged[layer])
                for base, rows in zip(joint.bases, joint.rows, strict=True):
                    # The same values, which need not be there twice.
                    setattr(base, UNPACKED, weight[layer, rows])
            for one in joint.members:
                for trained, number in (
                    (one.trained_a, numbers_a[layer, one.ranks]),
                    (one.trained_b, numbers_b[layer, one.outputs, one.ranks]),
                ):
                    at = trained.data.storage_offset() - self._flat.data.storage_offset()
                    places[at : at + trained.numel()] = number.flatten()
        return end

    @torch.no_grad()
    def refresh(self) -> None:
        """Let the layers see what the trained weights are now."""
        self._copies.index_copy_(0, self._places, self._flat.data.to(self._copies.dtype))
        for one in self._kinds:
            torch.baddbmm(one.rest, one.b, one.a, alpha=self._scale, out=one.merged)
            one.merged.add_(one.weight)

    def _give(self) -> None:
        """Add what a backward pass has found to the gradient of all weights."""
        self._flat.grad.add_(self._grads.index_select(0, self._places), alpha=self._scale)


def _rest(joint: Joint, weight: torch.Tensor) -> torch.Tensor:
    exact = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
    for base, rows in zip(joint.bases, joint.rows, strict=True):
        unpack(base, exact[rows], turned=False)
    return exact.sub_(weight).to(weight.dtype)
