"""The layers that read one input, computed together: PEFT's values and gradients, and nothing left behind."""

import weakref

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from lhcq.model.kernels.linear import _keep_mask, fuse_lora

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
QUERY_VALUE = ("q_proj", "v_proj")
SHAPES = {"q_proj": (64, 128), "k_proj": (64, 64), "v_proj": (64, 64), "o_proj": (128, 64)} | {
    "gate_proj": (64, 192),
    "up_proj": (64, 192),
    "down_proj": (192, 64),
}
RANK = 4


class Layer(torch.nn.Module):
    """The linear layers of a decoder layer, in NF4, put together so that every output matters."""

    is_loaded_in_4bit = True

    def __init__(self):
        from bitsandbytes.nn import Linear4bit

        super().__init__()
        for name, (n_in, n_out) in SHAPES.items():
            layer = Linear4bit(
                n_in, n_out, bias=name == "k_proj", compute_dtype=torch.float32, quant_type="nf4"
            )
            torch.nn.init.normal_(layer.weight, std=0.1)
            layer.support_avx512bf16_for_cpu = False
            setattr(self, name, layer.to("cpu").requires_grad_(False))

    def forward(self, x):
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        x = x + self.o_proj(torch.tanh(q) * torch.cat([torch.sigmoid(k), v], dim=-1))
        return x + self.down_proj(torch.tanh(self.gate_proj(x)) * self.up_proj(x))


class Wrapped:
    """A layer under PEFT, its adapter's weights drawn and their gradients there."""

    def __init__(self, targets=ALL, dropout=0.0):
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(3)
        lora = LoraConfig(r=RANK, lora_alpha=6, lora_dropout=dropout, target_modules=list(targets))
        self.peft = get_peft_model(Layer(), lora, adapter_name="one")
        self.layer = self.peft.base_model.model
        self.ready("one")

    def ready(self, adapter):
        self.weights = {n: p for n, p in self.peft.named_parameters() if f".{adapter}." in n}
        for weight in self.weights.values():
            weight.data.normal_(std=0.2)
            weight.grad = torch.zeros_like(weight)

    def fuse(self, adapter="one"):
        fused = fuse_lora(self.layer, adapter, torch.float32)
        fused.refresh()
        return fused

    def as_peft_does(self):
        for module in self.layer.modules():
            module.__dict__.pop("forward", None)

    def gradients(self, x, *, checkpointed=False, call=None):
        """Output, gradient of the input, gradients of all weights."""
        call = call or self.layer
        for weight in self.weights.values():
            weight.grad.zero_()
        x = x.clone().requires_grad_(True)
        y = checkpoint(call, x, use_reentrant=False) if checkpointed else call(x)
        (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
        return [y.detach(), x.grad, *(weight.grad.clone() for weight in self.weights.values())]


def inputs():
    return torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))


def assert_close(ours, expected):
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        assert float(torch.linalg.vector_norm(one - other)) < 1e-5 * float(torch.linalg.vector_norm(other))


@pytest.mark.parametrize("checkpointed", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("targets", [ALL, QUERY_VALUE, ("k_proj", "up_proj")], ids=["all", "q-v", "k-up"])
def test_layers_computed_together_equal_pefts_own(targets, checkpointed):
    wrapped = Wrapped(targets)
    expected = wrapped.gradients(inputs())
    assert len(expected) == 2 + 2 * len(targets)
    wrapped.fuse()
    assert_close(wrapped.gradients(inputs(), checkpointed=checkpointed), expected)


def spelled_out(wrapped, share):
    """The layer by autograd alone, with one mask for each input that layers read, drawn in the order of the calls."""
    from bitsandbytes.functional import dequantize_4bit

    def lora(name, x, dropped):
        layer = getattr(wrapped.layer, name)
        base = layer.base_layer
        y = torch.nn.functional.linear(
            x, dequantize_4bit(base.weight.data, base.weight.quant_state), base.bias
        )
        return y + layer.scaling["one"] * (
            dropped @ layer.lora_A["one"].weight.t() @ layer.lora_B["one"].weight.t()
        )

    def drop(x):
        return x * _keep_mask(x[..., 0].numel(), x.shape[-1], share).view(x.shape) / (1 - share)

    def call(x):
        dropped = drop(x)
        q, k, v = (lora(name, x, dropped) for name in ("q_proj", "k_proj", "v_proj"))
        attended = torch.tanh(q) * torch.cat([torch.sigmoid(k), v], dim=-1)
        x = x + lora("o_proj", attended, drop(attended))
        dropped = drop(x)
        gate, up = (lora(name, x, dropped) for name in ("gate_proj", "up_proj"))
        return x + lora("down_proj", torch.tanh(gate) * up, drop(torch.tanh(gate) * up))

    return call


@pytest.mark.parametrize("checkpointed", [False, True], ids=["kept", "checkpointed"])
def test_dropout_is_drawn_once_for_layers_that_read_one_input_and_is_right(checkpointed):
    wrapped = Wrapped(dropout=0.25)
    torch.manual_seed(11)
    expected = wrapped.gradients(inputs(), call=spelled_out(wrapped, 0.25))
    wrapped.fuse()
    torch.manual_seed(11)
    ours = wrapped.gradients(inputs(), checkpointed=checkpointed)
    assert_close(ours, expected)
    torch.manual_seed(12)
    assert not torch.allclose(wrapped.gradients(inputs())[0], expected[0])


def test_nothing_is_dropped_in_an_evaluation():
    wrapped = Wrapped(dropout=0.25)
    wrapped.peft.eval()
    with torch.inference_mode():
        expected = wrapped.layer(inputs())
        wrapped.fuse()
        torch.testing.assert_close(wrapped.layer(inputs()), expected)


def test_a_layer_that_the_adapter_does_not_change_is_the_base():
    wrapped = Wrapped(QUERY_VALUE)
    plain = wrapped.layer.k_proj(inputs())
    wrapped.fuse()
    with torch.no_grad():
        wrapped.layer.q_proj(x := inputs())
        assert torch.equal(wrapped.layer.k_proj(x), plain)
        wrapped.layer.v_proj(x)


def test_an_output_that_nothing_needs_adds_no_gradient():
    wrapped = Wrapped()

    def call(x):
        wrapped.layer.q_proj(x)
        wrapped.layer.k_proj(x)
        return wrapped.layer.v_proj(x)

    expected = wrapped.gradients(inputs(), call=call)
    wrapped.fuse()
    ours = wrapped.gradients(inputs(), call=call)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    assert [bool(gradient.any()) for gradient in ours[2:8]] == [False] * 4 + [True] * 2


@torch.no_grad()
def test_a_share_is_only_for_the_very_input_it_was_computed_for():
    wrapped = Wrapped()
    x, other = inputs(), inputs() + 1
    expected = [wrapped.layer.q_proj(x), wrapped.layer.v_proj(other), wrapped.layer.v_proj(x)]
    wrapped.fuse()
    torch.testing.assert_close([wrapped.layer.q_proj(x), wrapped.layer.v_proj(other)], expected[:2])
    torch.testing.assert_close(wrapped.layer.v_proj(x), expected[2])
    # The same object with other values, as in a buffer that is filled anew.
    wrapped.layer.v_proj(x)
    x.copy_(other)
    torch.testing.assert_close(wrapped.layer.v_proj(x), expected[1])


@torch.no_grad()
def test_what_is_kept_is_let_go_once_the_last_layer_took_it_and_after_a_failure():
    wrapped = Wrapped()
    fused = wrapped.fuse()

    def survives(names):
        x = inputs()
        for name in names:
            getattr(wrapped.layer, name)(x)
        seen = weakref.ref(x)
        del x
        return seen() is not None

    assert not survives(["v_proj", "q_proj", "k_proj"])
    assert survives(["q_proj", "v_proj"])
    assert not survives(["gate_proj", "up_proj"])
    left = weakref.ref(wrapped.layer.q_proj.forward.func.__self__.waiting.x)
    fused.let_go()
    assert left() is None


def test_adapters_swapped_in_turn_do_not_see_each_other():
    from peft import LoraConfig

    wrapped = Wrapped()
    other = LoraConfig(r=2, lora_alpha=6, lora_dropout=0.0, target_modules=list(QUERY_VALUE))
    x = inputs()
    wrapped.fuse("one")
    with torch.no_grad():
        first = wrapped.layer(x)
    wrapped.peft.add_adapter("two", other)
    wrapped.peft.set_adapter("two")
    wrapped.ready("two")
    wrapped.as_peft_does()
    expected = wrapped.gradients(x)
    wrapped.fuse("two")
    assert_close(wrapped.gradients(x), expected)
    with torch.no_grad():
        wrapped.layer.q_proj(x)  # leaves a share of two's behind
        wrapped.fuse("one")
        assert torch.equal(wrapped.layer(x), first)


def test_weights_count_once_they_are_refreshed():
    wrapped = Wrapped()
    fused = wrapped.fuse()
    for weight in wrapped.weights.values():
        weight.data.mul_(1.5)
    fused.refresh()
    ours = wrapped.gradients(inputs())
    wrapped.as_peft_does()
    assert_close(ours, wrapped.gradients(inputs()))
