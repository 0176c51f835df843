"""The weights of a small model's layers behind each other, so that a step changes all of them by a few kernels.

Where a model is small, a GPU takes as long to begin a kernel as to run it, and waits for what a step does once for
each layer. Here LoRA is added to the weights of all layers by one product for each kind of layer, once a step: to the
values that bitsandbytes would multiply with, in float32, rounded once. What a pass finds for A and B goes into one
float32 tensor, and from there at once to the gradient of all weights.
"""

import math
from typing import NamedTuple

import torch

from lhcq.model.joint import Joint, Kept
from lhcq.model.kernels.linear import UNPACKED


class _Kind(NamedTuple):
    """The joints of one place in all layers."""

    weight: torch.Tensor
    """`(layers, out, in)`, as `merged`."""
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
        sizes = [len(joints) * (joints[0].a.numel() + joints[0].b.numel()) for joints in kinds]
        self._copies = torch.zeros(sum(sizes), dtype=dtype, device=device)
        self._grads = torch.zeros(sum(sizes), dtype=torch.float32, device=device)
        self._scale = kinds[0][0].scale
        places = torch.full((flat.numel(),), -1)
        self._kinds: list[_Kind] = []
        for joints, end in zip(kinds, torch.tensor(sizes).cumsum(0).tolist(), strict=True):
            start = end - len(joints) * (joints[0].a.numel() + joints[0].b.numel())
            self._stack(joints, start, places)
        self._places = places.to(device)
        kinds[0][0].on_last = self._give

    def _stack(self, joints: list[Joint], start: int, places: torch.Tensor) -> None:
        shapes = [(len(joints), *one.shape) for one in (joints[0].a, joints[0].b)]
        middle = start + math.prod(shapes[0])
        (a, b), (grads_a, grads_b) = (
            (
                whole[start:middle].view(shapes[0]),
                whole[middle : middle + math.prod(shapes[1])].view(shapes[1]),
            )
            for whole in (self._copies, self._grads)
        )
        numbers = torch.arange(start, middle + math.prod(shapes[1]))
        numbers_a, numbers_b = (
            numbers[: middle - start].view(shapes[0]),
            numbers[middle - start :].view(shapes[1]),
        )
        weight = merged = None
        if not joints[0].fp8:
            weight = torch.stack(
                [torch.cat([getattr(base, UNPACKED) for base in one.bases]) for one in joints]
            )
            merged = torch.empty_like(weight) if joints[0].members else weight
            self._kinds.append(_Kind(weight, b, a, merged))
        for layer, joint in enumerate(joints):
            joint.a, joint.b = a[layer], b[layer]
            joint.grads = grads_a[layer], grads_b[layer]
            if weight is not None and merged is not None:
                joint.kept = Kept(weight[layer], merged[layer])
                for base, rows in zip(joint.bases, joint.rows, strict=True):
                    setattr(
                        base, UNPACKED, weight[layer, rows]
                    )  # the same values, which need not be there twice
            for one in joint.members:
                for trained, number in (
                    (one.trained_a, numbers_a[layer, one.ranks]),
                    (one.trained_b, numbers_b[layer, one.outputs, one.ranks]),
                ):
                    at = trained.data.storage_offset() - self._flat.data.storage_offset()
                    places[at : at + trained.numel()] = number.flatten()

    @torch.no_grad()
    def refresh(self) -> None:
        """Let the layers see what the trained weights are now."""
        self._copies.index_copy_(0, self._places, self._flat.data.to(self._copies.dtype))
        for one in self._kinds:
            if one.merged is not one.weight:
                torch.baddbmm(one.weight, one.b, one.a, alpha=self._scale, out=one.merged)

    def _give(self) -> None:
        """Add what a backward pass has found to the gradient of all weights."""
        self._flat.grad.add_(self._grads.index_select(0, self._places), alpha=self._scale)
