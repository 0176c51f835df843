"""The gate in one kernel: transformers' values and gradients on a GPU, and transformers' own way elsewhere."""

import pytest
import torch

from lhcq.model.kernels.gates import fuse_gates


class FeedForward(torch.nn.Module):
    """As in transformers' decoders, but for the activation."""

    def __init__(self, act_fn):
        super().__init__()
        torch.manual_seed(1)
        self.gate_proj, self.up_proj = torch.nn.Linear(32, 48), torch.nn.Linear(32, 48)
        self.down_proj = torch.nn.Linear(48, 32)
        self.act_fn = act_fn

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def value_and_gradient(module, device):
    x = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(2)).to(device).requires_grad_(True)
    y = module(x)
    (gradient,) = torch.autograd.grad(
        (y * torch.linspace(-1, 1, y.numel()).to(device).view(y.shape)).sum(), x
    )
    return y.detach(), gradient


def test_a_model_on_a_cpu_keeps_its_own_way():
    module = FeedForward(torch.nn.SiLU())
    fuse_gates(module)
    assert "forward" not in vars(module)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_values_and_gradients_are_the_same_from_one_kernel():
    module = FeedForward(torch.nn.SiLU()).cuda()
    expected = value_and_gradient(module, "cuda")
    fuse_gates(module)
    assert "forward" in vars(module)
    torch.testing.assert_close(value_and_gradient(module, "cuda"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_another_activation_is_left_alone():
    module = FeedForward(torch.nn.GELU()).cuda()
    fuse_gates(module)
    assert "forward" not in vars(module)
