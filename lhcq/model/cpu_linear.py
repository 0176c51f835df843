"""4-bit linear layers on a CPU without bfloat16: the same NF4 weights, unpacked once, LoRA in one autograd node.

bitsandbytes unpacks a layer's weights at every pass, and PEFT spreads a LoRA layer over some thirty small kernels;
on two cores that costs a third of a training step. Here each layer keeps the float32 values that its NF4 codes
stand for, as long as all of them together stay below `UNPACKED_LIMIT_BYTES`; a larger model unpacks as it goes.
The values are exactly those that bitsandbytes would multiply with.
"""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

UNPACKED_LIMIT_BYTES = 2 << 30
_UNPACKED = "lhcq_unpacked"


def unpack_once(layers: list[Any]) -> None:
    """Let every `Linear4bit` of `layers` multiply with weights that are unpacked now, if all of them fit."""
    if 4 * sum(layer.in_features * layer.out_features for layer in layers) <= UNPACKED_LIMIT_BYTES:
        for layer in layers:
            setattr(layer, _UNPACKED, _unpack(layer))
            layer.forward = functools.partial(_forward, layer)


def fuse_lora(model: Any, adapter: str) -> None:
    """Compute the layers that `adapter` changes in one step each, and leave PEFT's way to all others."""
    for layer in _lora_layers(model):
        layer.__dict__.pop("forward", None)
        if adapter in layer.lora_A:
            layer.forward = functools.partial(_forward_with_lora, layer, adapter)


def _lora_layers(model: Any) -> Iterator[Any]:
    from peft.tuners.lora.bnb import Linear4bit

    return (module for module in model.modules() if isinstance(module, Linear4bit))


def _unpack(layer: Any) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    weight: torch.Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return weight


def _weight(layer: Any) -> torch.Tensor:
    """The float32 weight of a `Linear4bit`, `(out_features, in_features)`."""
    kept: torch.Tensor | None = getattr(layer, _UNPACKED, None)
    return _unpack(layer) if kept is None else kept


def _forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(x, _weight(layer), layer.bias)


def _forward_with_lora(layer: Any, adapter: str, x: torch.Tensor) -> torch.Tensor:
    # PEFT puts an Identity where nothing is dropped.
    share = getattr(layer.lora_dropout[adapter], "p", 0.0) if layer.training else 0.0
    y: torch.Tensor = _LoraLinear.apply(
        x.reshape(-1, x.shape[-1]),
        layer.base_layer,
        layer.lora_A[adapter].weight,
        layer.lora_B[adapter].weight,
        layer.scaling[adapter] / (1.0 - share),
        _keep_mask(x.numel() // x.shape[-1], x.shape[-1], share),
    )
    return y.view(*x.shape[:-1], y.shape[-1])


def _keep_mask(rows: int, columns: int, share: float) -> torch.Tensor | None:
    """Ones and, for a `share` of all places, zeros; None when nothing is dropped.

    The bits come from a fast generator seeded by torch's own, which takes eight times as long to draw them.
    """
    if share == 0.0:
        return None
    n = rows * columns
    raw = np.random.SFC64(int(torch.randint(2**62, ()))).random_raw((n + 3) // 4)
    keep = raw.view(np.uint16)[:n] >= np.uint16(round(share * 2**16))
    return torch.from_numpy(keep.astype(np.float32)).view(rows, columns)


class _LoraLinear(torch.autograd.Function):
    """y = x W^T + bias + scale (mask x) A^T B^T, where W is frozen."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x, base, a, b, scale, mask
    ) -> torch.Tensor:
        dropped = x if mask is None else x * mask
        inner = dropped @ a.t()  # (rows, rank)
        y: torch.Tensor = torch.nn.functional.linear(x, _weight(base), base.bias)
        y.addmm_(inner, b.t(), alpha=scale)
        ctx.save_for_backward(dropped, inner, a, b, mask)
        ctx.base, ctx.scale = base, scale
        return y

    @staticmethod
    def backward(  # type: ignore[no-untyped-def]
        ctx, grad
    ) -> tuple[torch.Tensor | None, ...]:
        dropped, inner, a, b, mask = ctx.saved_tensors
        grad_inner = (grad @ b).mul_(ctx.scale)
        grad_b = (grad.t() @ inner).mul_(ctx.scale)
        grad_a = grad_inner.t() @ dropped
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ _weight(ctx.base)
            if mask is None:
                grad_x.addmm_(grad_inner, a)
            else:
                grad_x.addcmul_(grad_inner @ a, mask)
        return grad_x, None, grad_a, grad_b, None, None
