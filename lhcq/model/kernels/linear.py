"""4-bit linear layers with LoRA, in one autograd node those that read the same input; NF4 unpacked once if it fits.

bitsandbytes unpacks a layer's weights at every pass, and PEFT spreads a LoRA layer over some thirty small kernels:
a third of a training step of a small model, on two cores as on a GPU. Here each layer keeps the values that its NF4
codes stand for, as long as all of them together stay below `UNPACKED_LIMIT_BYTES`; a larger model unpacks as it goes.
The values are exactly those that bitsandbytes would multiply with.

Layers that read the same input (query, key and value; gate and up) share what PEFT does once for each: one dropout
of the input, one product with their A's, one gradient of the input.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from lhcq.model.copies import Copies

UNPACKED_LIMIT_BYTES = 2 << 30
UNPACKED = "lhcq_unpacked"
"""The attribute of a layer that keeps its weights unpacked."""
# Children of one module that read the same input in the decoders of transformers. Where a model's do not, each is
# computed with its own input all the same, only slower.
_READ_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def unpack_once(layers: list[Any], dtype: torch.dtype) -> bool:
    """Let every `Linear4bit` of `layers` multiply with weights unpacked now to `dtype`, if all of them fit."""
    unpacked = dtype.itemsize * sum(layer.in_features * layer.out_features for layer in layers)
    if unpacked > UNPACKED_LIMIT_BYTES:
        return False
    for layer in layers:
        setattr(layer, UNPACKED, _unpack(layer))
        layer.forward = functools.partial(_forward, layer)
    return True


def fuse_lora(model: Any, adapter: str, dtype: torch.dtype) -> "FusedLora":
    """Compute the layers that `adapter` changes by groups, in `dtype`, and leave PEFT's way to all others.

    The trained weights are float32 and their gradients, which must be there, are added to in place. Call
    `FusedLora.refresh` whenever the trained weights have changed, and before the first pass.
    """
    groups = []
    for members in _members(model, adapter):
        group = _Group(members, adapter, dtype)
        for index, layer in enumerate(members):
            layer.forward = functools.partial(group.forward, index)
        groups.append(group)
    return FusedLora(groups, dtype)


class FusedLora(Copies):
    """The groups of an adapter's layers, and the copies of its weights that they multiply with."""

    def __init__(self, groups: list["_Group"], dtype: torch.dtype) -> None:
        self._groups = groups
        self.dtype = dtype
        super().__init__(pair for group in groups for pair in group.copies())

    def let_go(self) -> None:
        """Forget what a pass that failed has left: a share that nobody took holds the pass's whole graph."""
        for group in self._groups:
            group.waiting = None


def _members(model: Any, adapter: str) -> Iterator[list[Any]]:
    """The LoRA layers that `adapter` changes, those together that read the same input; all are PEFT's from now on."""
    from peft.tuners.lora.bnb import Linear4bit

    for parent in model.modules():
        lora = {name: child for name, child in parent.named_children() if isinstance(child, Linear4bit)}
        for layer in lora.values():
            layer.__dict__.pop("forward", None)
        changed = {name: layer for name, layer in lora.items() if adapter in layer.lora_A}
        for together in _READ_TOGETHER:
            members = [changed.pop(name) for name in together if name in changed]
            if members:
                yield members
        yield from ([layer] for layer in changed.values())


def _unpack(layer: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    weight: torch.Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return weight


def _weight(layer: Any) -> torch.Tensor:
    """The weight of a `Linear4bit` in its compute type, `(out_features, in_features)`."""
    kept: torch.Tensor | None = getattr(layer, UNPACKED, None)
    return _unpack(layer) if kept is None else kept


def _forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(x, _weight(layer), layer.bias)


class _Member(NamedTuple):
    """One layer of a group."""

    base: Any
    """The frozen `Linear4bit`."""
    rows: slice
    """Where its rank is among those of the group."""
    b: torch.Tensor
    """`(out, rank)` in the compute type."""
    trained_a: torch.nn.Parameter
    trained_b: torch.nn.Parameter


class _Waiting(NamedTuple):
    """What a group computed for an input, until its layers have taken their shares."""

    x: torch.Tensor
    shares: dict[int, torch.Tensor]


class _Group:
    """LoRA layers that read the same input: the first to be called computes for all, the others take their shares."""

    def __init__(self, layers: list[Any], adapter: str, dtype: torch.dtype) -> None:
        self.layers = layers
        self.scale = layers[0].scaling[adapter]
        # PEFT puts an Identity where nothing is dropped.
        self.dropout = getattr(layers[0].lora_dropout[adapter], "p", 0.0)
        self.keeps_dropped = hasattr(layers[0].base_layer, UNPACKED)
        self.waiting: _Waiting | None = None
        self.members = []
        end = 0
        for layer in layers:
            a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
            rows = slice(end, end + a.shape[0])
            copy = torch.empty_like(b, dtype=dtype, requires_grad=False)
            self.members.append(_Member(layer.base_layer, rows, copy, a, b))
            end = rows.stop
        self.a = torch.empty(end, a.shape[1], dtype=dtype, device=a.device)  # (sum of ranks, in)
        self.trained = [weight for member in self.members for weight in (member.trained_a, member.trained_b)]

    def copies(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each tensor that is multiplied with, and the trained one that it is a copy of."""
        for member in self.members:
            yield self.a[member.rows], member.trained_a
            yield member.b, member.trained_b

    def forward(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """The output of layer `index` for `x`."""
        if self.waiting is None or self.waiting.x is not x or index not in self.waiting.shares:
            self.waiting = None
            self.waiting = _Waiting(x, dict(enumerate(self._compute(x))))
        share = self.waiting.shares.pop(index)
        if not self.waiting.shares:
            self.waiting = None
        return share

    def _compute(self, x: torch.Tensor) -> list[torch.Tensor]:
        share = self.dropout if self.layers[0].training else 0.0
        rows = x.reshape(-1, x.shape[-1])
        if torch.is_grad_enabled():
            outputs = _LoraLinears.apply(rows, self, share, *self.trained)
        else:
            dropped, _ = drop(rows, share)
            outputs = self.outputs(rows, self.inner(dropped))
        return [y.view(*x.shape[:-1], y.shape[-1]) for y in outputs]

    def inner(self, dropped: torch.Tensor) -> torch.Tensor:
        """The scaled product with all A's, `(rows, sum of ranks)`."""
        return (dropped @ self.a.t()).mul_(self.scale)

    def outputs(self, x: torch.Tensor, inner: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Each layer's `(rows, out)`; the large product adds to the small one, which saves a pass over memory."""
        outputs = []
        for member in self.members:
            part, b, bias = inner[:, member.rows], member.b.t(), member.base.bias
            y = part @ b if bias is None else torch.addmm(bias, part, b)
            outputs.append(y.addmm_(x, _weight(member.base).t()))
        return tuple(outputs)


def drop(x: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`x` with a `share` of its places zero and the rest scaled up, and the mask of what was kept."""
    if share == 0.0:
        return x, None
    if x.device.type == "cuda":
        dropped, mask = torch.native_dropout(x, share, True)
        return dropped, mask
    mask = _keep_mask(x.shape[0], x.shape[1], share)
    return apply_mask(x, mask, share), mask


def apply_mask(x: torch.Tensor, mask: torch.Tensor, share: float) -> torch.Tensor:
    """`x` as `drop` would drop it with this mask."""
    if x.device.type == "cuda":
        return torch.ops.aten.native_dropout_backward(x, mask, 1.0 / (1.0 - share))
    return (x * mask).mul_(1.0 / (1.0 - share))


def _keep_mask(rows: int, columns: int, share: float) -> torch.Tensor:
    """Ones and, for a `share` of all places, zeros.

    The bits come from a fast generator seeded by torch's own, which takes eight times as long to draw them.
    """
    n = rows * columns
    raw = np.random.SFC64(int(torch.randint(2**62, ()))).random_raw((n + 3) // 4)
    keep = raw.view(np.uint16)[:n] >= np.uint16(round(share * 2**16))
    return torch.from_numpy(keep.astype(np.float32)).view(rows, columns)


class _LoraLinears(torch.autograd.Function):
    """y_i = x W_i^T + bias_i + scale drop(x) A_i^T B_i^T for the layers i of a group, where the W_i are frozen.

    The gradients of A and B are added to where they are kept, without a copy of each on the way.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x, group, share, *trained
    ) -> tuple[torch.Tensor, ...]:
        dropped, mask = drop(x, share)
        inner = group.inner(dropped)
        # A large model keeps x, which its norm keeps anyway, and makes what was dropped from it again.
        ctx.save_for_backward(dropped if group.keeps_dropped else x, mask, inner)
        ctx.group, ctx.share = group, share
        ctx.set_materialize_grads(False)
        outputs: tuple[torch.Tensor, ...] = group.outputs(x, inner)
        return outputs

    @staticmethod
    def backward(  # type: ignore[no-untyped-def]
        ctx, *grads
    ) -> tuple[torch.Tensor | None, ...]:
        kept, mask, inner = ctx.saved_tensors
        group = ctx.group
        used = [(member, grad) for member, grad in zip(group.members, grads, strict=True) if grad is not None]
        grad_inner = torch.empty_like(inner) if len(used) == len(grads) else torch.zeros_like(inner)
        for member, grad in used:
            # With beta=0 what is there is not read.
            grad_inner[:, member.rows].addmm_(grad, member.b, beta=0, alpha=group.scale)
            member.trained_b.grad.add_(grad.t() @ inner[:, member.rows])
        dropped = kept if mask is None or group.keeps_dropped else apply_mask(kept, mask, ctx.share)
        grad_a = grad_inner.t() @ dropped
        for member, _ in used:
            member.trained_a.grad.add_(grad_a[member.rows])
        if not ctx.needs_input_grad[0]:
            return (None,) * (3 + len(group.trained))
        del kept, dropped
        grad_x = grad_inner @ group.a
        if mask is not None:
            grad_x = apply_mask(grad_x, mask, ctx.share)
        for member, grad in used:
            grad_x.addmm_(grad, _weight(member.base))
        return (grad_x, *(None,) * (2 + len(group.trained)))
