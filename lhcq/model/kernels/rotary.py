"""Rotary position embedding in three kernels a tensor, in place of the five that transformers spells out.

Only the attention layers of the given model are changed, never transformers itself: other models of the process keep
its own way.
"""

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch

_NAME = "apply_rotary_pos_emb"


def fuse_rotary(model: Any) -> None:
    """Let the attention layers of `model` rotate queries and keys by `_Rotation`, where it gives the same values."""
    for module in model.modules():
        forward = type(module).forward
        if isinstance(forward, FunctionType) and _NAME in forward.__code__.co_names:
            theirs = forward.__globals__[_NAME]
            if _is_usual(theirs, next(module.parameters()).device):
                rebound = _rebind(forward, functools.partial(_rotate, theirs))
                module.forward = functools.partial(rebound, module)


def _rebind(forward: FunctionType, rotate: Callable[..., Any]) -> FunctionType:
    """`forward` as it is, but for the function that it finds under the name of the rotation."""
    rebound = FunctionType(
        forward.__code__,
        {**forward.__globals__, _NAME: rotate},
        forward.__name__,
        forward.__defaults__,
        forward.__closure__,
    )
    rebound.__kwdefaults__ = forward.__kwdefaults__
    return rebound


def _rotate(
    theirs: Callable[..., Any],
    q: torch.Tensor,
    k: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *others: Any,
    **named: Any,
) -> Any:
    """As `theirs`: `q` and `k` are `(batch, heads, length, dim)`, `cos` and `sin` `(batch or 1, length, dim)`."""
    # Of two types some models round back to the queries' and others do not.
    if others or named or cos.shape[-1] != q.shape[-1] or cos.dtype != q.dtype:
        return theirs(q, k, cos, sin, *others, **named)
    return _Rotation.apply(q, k, cos.unsqueeze(1), sin.unsqueeze(1))


class _Rotation(torch.autograd.Function):
    """(x1, x2) -> (x1 cos1 - x2 sin1, x2 cos2 + x1 sin2), where 1 and 2 are the halves of the last dimension."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, q, k, cos, sin
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(cos, sin)
        first, second = sin.chunk(2, dim=-1)
        return _turn(q, cos, first, second, -1), _turn(k, cos, first, second, -1)

    @staticmethod
    def backward(  # type: ignore[no-untyped-def]
        ctx, grad_q, grad_k
    ) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        first, second = sin.chunk(2, dim=-1)
        return _turn(grad_q, cos, second, first, 1), _turn(grad_k, cos, second, first, 1), None, None


def _turn(
    x: torch.Tensor, cos: torch.Tensor, first: torch.Tensor, second: torch.Tensor, sign: int
) -> torch.Tensor:
    """x cos, plus `sign` x2 `first` in the first half and minus `sign` x1 `second` in the second."""
    half = x.shape[-1] // 2
    y = x * cos
    y[..., :half].addcmul_(x[..., half:], first, value=sign)
    y[..., half:].addcmul_(x[..., :half], second, value=-sign)
    return y


@torch.inference_mode()
def _is_usual(theirs: Callable[..., Any], device: torch.device) -> bool:
    """Whether `theirs` computes that; some models pair other dimensions."""
    generator = torch.Generator().manual_seed(1)
    q, k, cos, sin = (
        torch.randn(shape, generator=generator).to(device)
        for shape in ((2, 4, 5, 8), (2, 2, 5, 8), (1, 5, 8), (1, 5, 8))
    )
    try:
        expected = theirs(q, k, cos, sin)
    except (TypeError, RuntimeError):
        # It takes something else than these four.
        return False
    ours = _rotate(theirs, q, k, cos, sin)
    return all(
        torch.allclose(one, other, rtol=1e-5, atol=1e-5) for one, other in zip(ours, expected, strict=True)
    )
