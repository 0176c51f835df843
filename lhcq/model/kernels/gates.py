"""The gate of a decoder's feed-forward layer, silu(gate) times up, as one kernel each way, on a GPU.

transformers spells out two kernels forward and three backward, over the widest activations of the model, and keeps
their product with the rest: a fifth of what a training step keeps. torch compiles ours when it is first used.
"""

import functools
from types import FunctionType
from typing import Any

import torch

_FORWARD = """
template <typename T> T lhcq_gate(T gate, T up) {
  float g = gate, u = up;
  return T(g / (1.0f + expf(-g)) * u);
}
"""
_BACKWARD = """
template <typename T> void lhcq_gate_backward(T gate, T up, T grad, T& grad_gate, T& grad_up) {
  float g = gate, u = up, d = grad;
  float s = 1.0f / (1.0f + expf(-g));
  grad_gate = T(d * u * s * (1.0f + g * (1.0f - s)));
  grad_up = T(d * g * s);
}
"""


def fuse_gates(model: Any) -> None:
    """Replace the feed-forward layers of `model` that are the usual one, where torch can compile the kernels."""
    for module in model.modules():
        has_parts = all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn"))
        if has_parts and isinstance(type(module).forward, FunctionType) and _is_usual(module):
            module.forward = functools.partial(_feed_forward, module)


def _feed_forward(module: Any, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = module.down_proj(_Gate.apply(module.gate_proj(x), module.up_proj(x)))
    return y


class _Gate(torch.autograd.Function):
    """silu(gate) up; its gradient computes silu again rather than keep it."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, gate, up
    ) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        y: torch.Tensor = _kernels()[0](gate, up)
        return y

    @staticmethod
    def backward(  # type: ignore[no-untyped-def]
        ctx, grad
    ) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        grad_gate, grad_up = _kernels()[1](gate, up, grad)
        return grad_gate, grad_up


@functools.cache
def _kernels() -> tuple[Any, Any]:
    jiterator = torch.cuda.jiterator
    return (
        jiterator._create_jit_fn(_FORWARD),
        jiterator._create_multi_output_jit_fn(_BACKWARD, num_outputs=2),
    )


def _is_usual(module: Any) -> bool:
    """Whether the module computes that, its gradient too, and the kernels can be compiled here."""
    weight = next(module.parameters())
    dtype = getattr(module.gate_proj, "compute_dtype", None) or weight.dtype
    x = torch.linspace(-1.0, 1.0, 4 * module.gate_proj.in_features, dtype=dtype, device=weight.device)
    x = x.view(1, 4, -1).requires_grad_(True)
    try:
        ours = _value_and_gradient(functools.partial(_feed_forward, module), x)
    except (RuntimeError, AssertionError, AttributeError):
        # No kernel was compiled: there is no GPU, or torch was built without a compiler for it.
        return False
    return all(map(_alike, ours, _value_and_gradient(type(module).forward.__get__(module), x)))


def _value_and_gradient(forward: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y = forward(x)
    (gradient,) = torch.autograd.grad(y.float().square().sum(), x)
    return y.detach().float(), gradient.float()


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return float(torch.linalg.vector_norm(one - other)) < 3e-2 * float(torch.linalg.vector_norm(other))
