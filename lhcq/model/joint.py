"""Linear layers that read the same input as one product, with LoRA, in the model's type or in 8 bits.

Where nothing is dropped, LoRA is added to the weights as they are unpacked, which every pass of a large model does
anyway: in float32, rounded once, so that a weight's rounding does to a product what rounding the product does. A pass
then takes no longer than one without an adapter. A small model keeps its weights, and LoRA is added to all of them
once a step (`lhcq.model.stacks`).

In 8 bits LoRA would vanish in the weights' rounding: its products stay beside, as they do where something is dropped,
which makes theirs another input. A product takes rows of e4m3 with a scale each, of the input and of the weights, and
gives the model's type: 1.9 times the rate of bfloat16 on an H200. NF4 is unpacked straight to it. The gradient of the
input is taken of the very same 8-bit weights, whose scales go into the gradient before it is packed. LoRA's own
products, and all that is summed or kept, stay in the model's type.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from lhcq.model.kernels.linear import UNPACKED, apply_mask, drop
from lhcq.model.kernels.triton import FP8, Lora, Packed, add_lora, pack, unpack

_KEPT = "lhcq_kept"
_SCALES = "lhcq_scales"
_LARGEST = 448.0
"""Of e4m3."""


class _Member(NamedTuple):
    """A layer that the adapter changes: its outputs and its ranks among those of the group."""

    outputs: slice
    ranks: slice
    trained_a: torch.nn.Parameter
    trained_b: torch.nn.Parameter


class Kept(NamedTuple):
    """The weights of a small model, `(n_out, n_in)` in its type."""

    weight: torch.Tensor
    merged: torch.Tensor
    """With LoRA."""


class Passed(NamedTuple):
    """What a forward pass leaves for the backward one."""

    inner: torch.Tensor | None
    """The product with all A's, `(rows, ranks)`; None where LoRA is in the weights."""
    mask: torch.Tensor | None
    """Of what was kept of the input of LoRA."""


class Joint:
    """y = x W^T + scale drop(x) A^T B^T, where W is the weights of all `layers` one below the other."""

    def __init__(self, layers: list[Any], adapter: str, dtype: torch.dtype, *, fp8: bool) -> None:
        self.bases = [getattr(layer, "base_layer", layer) for layer in layers]
        self.fp8 = fp8
        self.dtype = dtype
        self.n_in: int = self.bases[0].in_features
        ends = torch.tensor([base.out_features for base in self.bases]).cumsum(0).tolist()
        self.n_out: int = ends[-1]
        self.rows = [slice(end - base.out_features, end) for base, end in zip(self.bases, ends, strict=True)]
        self.members: list[_Member] = []
        rank = 0
        for rows, layer in zip(self.rows, layers, strict=True):
            if adapter in getattr(layer, "lora_A", {}):
                a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
                self.members.append(_Member(rows, slice(rank, rank + a.shape[0]), a, b))
                rank += a.shape[0]
                self.scale = layer.scaling[adapter]
        device = self.bases[0].weight.device
        self.a = torch.zeros(rank, self.n_in, dtype=dtype, device=device)
        # Zero but for each layer's own block.
        self.b = torch.zeros(self.n_out, rank, dtype=dtype, device=device)
        self.trained = [weight for one in self.members for weight in (one.trained_a, one.trained_b)]
        self.keeps = fp8 and all(hasattr(base, UNPACKED) for base in self.bases)
        """Whether 8-bit weights stay: those of a small model."""
        self.kept: Kept | None = None
        self.grads: tuple[torch.Tensor, torch.Tensor] | None = None
        """Where gradients of `a` and `b` are left, unscaled float32; None: they are added to those of the trained."""
        self.on_last: Callable[[], None] = lambda: None
        """Called when those of this joint are there; the first layer's are there last."""

    def copies(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Each tensor that is multiplied with, and the trained one that it is a copy of."""
        return [
            pair
            for one in self.members
            for pair in ((self.a[one.ranks], one.trained_a), (self.b[one.outputs, one.ranks], one.trained_b))
        ]

    def merges(self, share: float) -> bool:
        """Whether LoRA is in the weights of a pass that drops a `share` of its input."""
        return not (self.fp8 or share)

    def forward(
        self,
        x: torch.Tensor,
        packed: Packed | None,
        share: float,
        residual: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Passed]:
        """The outputs beside each other, `(rows, n_out)`, plus the `residual`; `packed` is `x` in 8 bits."""
        if self.merges(share):
            weight = self.weight(merged=True).t()
            return x @ weight if residual is None else torch.addmm(residual, x, weight), Passed(None, None)
        inner, passed = self.inner(x, share)
        if packed is None:
            y = x @ self.weight(merged=False).t()
        else:
            y = _product(packed, self.packed_weight(turned=False), self.scales[None, :])
        if inner is not None:
            add_lora(y, inner, self.b, self.scale, residual)
        elif residual is not None:
            y.add_(residual)
        return y, passed

    def inner(self, x: torch.Tensor, share: float) -> tuple[torch.Tensor | None, Passed]:
        """LoRA's first product, and what is kept of it."""
        if not self.members or self.merges(share):
            return None, Passed(None, None)
        dropped, mask = drop(x, share)
        inner = dropped @ self.a.t()
        return inner, Passed(inner, mask)

    def pull(
        self, grad: torch.Tensor, packed: Packed | None, passed: Passed, share: float
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """The gradients of LoRA's first product, unscaled, and of the input.

        `packed` is `grad` times the weights' scales, in 8 bits.
        """
        inner = self.grad_inner(grad)
        if self.merges(share):
            return inner, grad @ self.weight(merged=True)
        if packed is None:
            result = grad @ self.weight(merged=False)
        else:
            ones = torch.ones(1, self.n_in, device=grad.device)
            result = _product(packed, self.packed_weight(turned=True), ones)
        if inner is not None and passed.mask is None:
            add_lora(result, inner, self.a.t().contiguous(), self.scale)
        elif inner is not None:
            result.add_(apply_mask(inner @ self.a, passed.mask, share), alpha=self.scale)
        return inner, result

    def learn(
        self,
        grad: torch.Tensor,
        grad_inner: torch.Tensor | None,
        x: torch.Tensor,
        passed: Passed,
        share: float,
    ) -> None:
        """Add to the gradients of A and B what follows for them."""
        if grad_inner is None:
            return
        inner = x @ self.a.t() if passed.inner is None else passed.inner
        dropped = x if passed.mask is None else apply_mask(x, passed.mask, share)
        if self.grads is not None:
            _multiply(grad_inner.t(), dropped, out=self.grads[0])
            _multiply(grad.t(), inner, out=self.grads[1])
            self.on_last()
            return
        to_b = grad.t() @ inner
        to_a = grad_inner.t() @ dropped
        for one in self.members:
            one.trained_a.grad.add_(to_a[one.ranks], alpha=self.scale)
            one.trained_b.grad.add_(to_b[one.outputs, one.ranks], alpha=self.scale)

    def grad_inner(self, grad: torch.Tensor) -> torch.Tensor | None:
        """As `pull`, where nothing wants the gradient of the input."""
        return grad @ self.b if self.members else None

    def pack_grad(self, grad: torch.Tensor) -> Packed | None:
        """A gradient of the outputs as `pull` takes it."""
        return pack(grad, self.scales) if self.fp8 else None

    def weight(self, *, merged: bool) -> torch.Tensor:
        """W in the model's type, `(n_out, n_in)`, with LoRA in it if `merged`."""
        if self.kept is not None:
            return self.kept.merged if merged else self.kept.weight
        weight = torch.empty(self.n_out, self.n_in, dtype=self.dtype, device=self.a.device)
        lora = {one.outputs.start: one.ranks for one in self.members} if merged else {}
        for base, rows in zip(self.bases, self.rows, strict=True):
            ranks = lora.get(rows.start)
            added = None if ranks is None else Lora(self.b[rows, ranks], self.a[ranks], self.scale)
            unpack(base, weight[rows], turned=False, lora=added)
        return weight

    @property
    def scales(self) -> torch.Tensor:
        """What 8-bit values of W are times, `(n_out,)` float32: the largest magnitude of a row over e4m3's."""
        first = self.bases[0]
        if not hasattr(first, _SCALES):
            setattr(first, _SCALES, torch.cat([_row_scales(base) for base in self.bases]))
        scales: torch.Tensor = getattr(first, _SCALES)
        return scales

    def packed_weight(self, *, turned: bool) -> torch.Tensor:
        """W over its scales in 8 bits, `(n_out, n_in)`, or `(n_in, n_out)` if `turned`."""
        first, name = self.bases[0], f"{_KEPT}_{'turned' if turned else 'packed'}"
        if hasattr(first, name):
            kept: torch.Tensor = getattr(first, name)
            return kept
        shape = (self.n_in, self.n_out) if turned else (self.n_out, self.n_in)
        weight = torch.empty(shape, dtype=FP8, device=self.a.device)
        for base, rows in zip(self.bases, self.rows, strict=True):
            into = weight[:, rows] if turned else weight[rows]
            unpack(base, into, turned=turned, scales=self.scales[rows])
        if self.keeps:
            setattr(first, name, weight)
        return weight


def _multiply(left: torch.Tensor, right: torch.Tensor, *, out: torch.Tensor) -> None:
    """`left` times `right`, rounded to no other type than that of `out`."""
    if left.dtype == out.dtype:
        torch.mm(left, right, out=out)
    else:
        torch.mm(left, right, out_dtype=out.dtype, out=out)


def _product(left: Packed, right: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """`left` `(rows, k)` times the rows of `right` `(n, k)`, whose `scales` are `(1, n)`."""
    y: torch.Tensor = torch._scaled_mm(
        left.values,
        right.t(),
        scale_a=left.scales,
        scale_b=scales,
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )
    return y


@torch.inference_mode(False)
@torch.no_grad()
def _row_scales(base: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_blockwise

    state = base.weight.quant_state
    # Each block of 64 has a value at its largest magnitude.
    largest = dequantize_blockwise(state.absmax, state.state2) + state.offset
    scales: torch.Tensor = largest.float().view(base.out_features, -1).amax(dim=1) / _LARGEST
    return scales.clamp_min_(1e-30)
