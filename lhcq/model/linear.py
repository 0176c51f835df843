"""4-bit linear layers with LoRA in one autograd node, and the same NF4 weights unpacked once where they fit.

bitsandbytes unpacks a layer's weights at every pass, and PEFT spreads a LoRA layer over some thirty small kernels:
a third of a training step of a small model, on two cores as on a GPU. Here each layer keeps the values that its NF4
codes stand for, as long as all of them together stay below `UNPACKED_LIMIT_BYTES`; a larger model unpacks as it goes.
The values are exactly those that bitsandbytes would multiply with.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

UNPACKED_LIMIT_BYTES = 2 << 30
_UNPACKED = "lhcq_unpacked"


def unpack_once(layers: list[Any], dtype: torch.dtype) -> bool:
    """Let every `Linear4bit` of `layers` multiply with weights unpacked now to `dtype`, if all of them fit."""
    unpacked = dtype.itemsize * sum(layer.in_features * layer.out_features for layer in layers)
    if unpacked > UNPACKED_LIMIT_BYTES:
        return False
    for layer in layers:
        setattr(layer, _UNPACKED, _unpack(layer))
        layer.forward = functools.partial(_forward, layer)
    return True


class LoraWeights(NamedTuple):
    """One layer's A `(rank, in)` or B `(out, rank)`, as it is trained and as it is multiplied with."""

    trained: torch.Tensor
    """float32; its gradient is added to in place."""
    computed: torch.Tensor
    """In the compute type; the same tensor where that is float32."""


def fuse_lora(model: Any, adapter: str, computed: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Compute the layers that `adapter` changes in one step each, and leave PEFT's way to all others.

    `computed` gives the tensor to multiply with for a trained weight.
    """
    for layer in _lora_layers(model):
        layer.__dict__.pop("forward", None)
        if adapter in layer.lora_A:
            a, b = (
                LoraWeights(part[adapter].weight, computed(part[adapter].weight))
                for part in (layer.lora_A, layer.lora_B)
            )
            layer.forward = functools.partial(_forward_with_lora, layer, adapter, a, b)


def _lora_layers(model: Any) -> Iterator[Any]:
    from peft.tuners.lora.bnb import Linear4bit

    return (module for module in model.modules() if isinstance(module, Linear4bit))


def _unpack(layer: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    weight: torch.Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return weight


def _weight(layer: Any) -> torch.Tensor:
    """The weight of a `Linear4bit` in its compute type, `(out_features, in_features)`."""
    kept: torch.Tensor | None = getattr(layer, _UNPACKED, None)
    return _unpack(layer) if kept is None else kept


def _forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(x, _weight(layer), layer.bias)


def _forward_with_lora(
    layer: Any, adapter: str, a: LoraWeights, b: LoraWeights, x: torch.Tensor
) -> torch.Tensor:
    # PEFT puts an Identity where nothing is dropped.
    share = getattr(layer.lora_dropout[adapter], "p", 0.0) if layer.training else 0.0
    y: torch.Tensor = _LoraLinear.apply(
        x.reshape(-1, x.shape[-1]),
        layer.base_layer,
        a.trained,
        b.trained,
        a,
        b,
        layer.scaling[adapter],
        share,
    )
    return y.view(*x.shape[:-1], y.shape[-1])


def _drop(x: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`x` with a `share` of its places zero and the rest scaled up, and the mask of what was kept."""
    if share == 0.0:
        return x, None
    if x.device.type == "cuda":
        dropped, mask = torch.native_dropout(x, share, True)
        return dropped, mask
    mask = _keep_mask(x.shape[0], x.shape[1], share)
    return _apply_mask(x, mask, share), mask


def _apply_mask(x: torch.Tensor, mask: torch.Tensor, share: float) -> torch.Tensor:
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


class _LoraLinear(torch.autograd.Function):
    """y = x W^T + bias + scale drop(x) A^T B^T, where W is frozen.

    The gradients of A and B are added to where they are kept, without a copy of each on the way.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x, base, a_trained, b_trained, a, b, scale, share
    ) -> torch.Tensor:
        dropped, mask = _drop(x, share)
        inner = dropped @ a.computed.t()  # (rows, rank)
        y: torch.Tensor = torch.nn.functional.linear(x, _weight(base), base.bias)
        y.addmm_(inner, b.computed.t(), alpha=scale)
        # A large model keeps x, which the layers that read it share, and makes what was dropped from it again.
        ctx.keeps_dropped = hasattr(base, _UNPACKED)
        ctx.save_for_backward(dropped if ctx.keeps_dropped else x, mask, inner)
        ctx.base, ctx.a, ctx.b, ctx.scale, ctx.share = base, a, b, scale, share
        return y

    @staticmethod
    def backward(  # type: ignore[no-untyped-def]
        ctx, grad
    ) -> tuple[torch.Tensor | None, ...]:
        kept, mask, inner = ctx.saved_tensors
        a, b = ctx.a, ctx.b
        dropped = kept if mask is None or ctx.keeps_dropped else _apply_mask(kept, mask, ctx.share)
        grad_inner = (grad @ b.computed).mul_(ctx.scale)
        b.trained.grad.add_(grad.t() @ inner, alpha=ctx.scale)
        a.trained.grad.add_(grad_inner.t() @ dropped)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ _weight(ctx.base)
            if mask is None:
                grad_x.addmm_(grad_inner, a.computed)
            else:
                grad_x.addcmul_(grad_inner @ a.computed, mask, value=1.0 / (1.0 - ctx.share))
        return (grad_x, *(None,) * 7)
