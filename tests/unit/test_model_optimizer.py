"""An update of the optimizer, without a wait for the GPU, does what bitsandbytes' own step does, to the bit."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from lhcq.config import TrainConfig
from lhcq.model.optimizer import (
    OPTIMIZER_STATE,
    load_optimizer,
    make_optimizer,
    optimizer_tensors,
    update,
)

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]
N = 10_000
"""Of 4,096 weights on, moments have 8 bits."""


def adapter(device):
    made = torch.randn(N, generator=torch.Generator().manual_seed(1))
    return SimpleNamespace(flat=torch.nn.Parameter(made.to(device)))


def gradients(device):
    drawn = torch.Generator().manual_seed(2)
    return [torch.randn(N, generator=drawn).to(device) for _ in range(4)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_an_update_is_bitsandbytes_step(device, weight_decay):
    config = TrainConfig(weight_decay=weight_decay)
    ours, theirs = adapter(device), adapter(device)
    before = ours.flat.detach().clone()
    one, other = make_optimizer(ours, config), make_optimizer(theirs, config)
    for rate, gradient in zip((1e-3, 2e-3, 1e-3, 5e-4), gradients(device), strict=True):
        for optimizer, which in ((one, ours), (other, theirs)):
            optimizer.param_groups[0]["lr"] = rate
            which.flat.grad = gradient.clone()
        update(one, ours)
        other.step()
        assert torch.equal(ours.flat, theirs.flat)
    assert not torch.equal(ours.flat, before)
    for name, tensor in optimizer_tensors(other, theirs).items():
        assert torch.equal(optimizer_tensors(one, ours)[name], tensor), name
    assert one.state[ours.flat]["state1"].dtype == torch.uint8


@pytest.mark.parametrize("device", DEVICES)
def test_an_update_goes_on_from_what_a_checkpoint_has(device, tmp_path):
    whole, second = adapter(device), adapter(device)
    first, then = (make_optimizer(one, TrainConfig()) for one in (whole, second))
    first.param_groups[0]["lr"] = then.param_groups[0]["lr"] = 1e-3
    for step, gradient in enumerate(gradients(device)):
        if step == 2:
            save_file(optimizer_tensors(first, whole), tmp_path / OPTIMIZER_STATE)
            load_optimizer(then, second, tmp_path, step=step)
            second.flat.data.copy_(whole.flat.data)
        whole.flat.grad = gradient.clone()
        update(first, whole)
        if step >= 2:
            second.flat.grad = gradient.clone()
            update(then, second)
    assert torch.equal(second.flat, whole.flat)
