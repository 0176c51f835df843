"""The rotary embedding in few kernels: transformers' values, in the model that asked for it and in no other."""

import copy

import pytest
import torch

from lhcq.model.kernels.rotary import _Rotation, fuse_rotary

SHAPE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2} | {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def tiny(kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(2)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SHAPE)).eval()


def attentions(model):
    return [module for module in model.modules() if type(module).__name__.endswith("Attention")]


def logits_and_gradient(model, dtype=torch.float32):
    embedded = torch.randn(2, 7, SHAPE["hidden_size"], generator=torch.Generator().manual_seed(3)).to(dtype)
    embedded.requires_grad_(True)
    logits = model(inputs_embeds=embedded).logits
    (logits * torch.linspace(-1, 1, logits.numel()).view(logits.shape)).sum().backward()
    return logits.detach(), embedded.grad


# phi rotates a part of each head only.
@pytest.mark.parametrize("kind", ["llama", "mistral", "phi"])
def test_values_and_gradients_are_those_of_transformers(kind):
    model = tiny(kind)
    expected = logits_and_gradient(model)
    fuse_rotary(model)
    assert all("forward" in vars(attention) for attention in attentions(model))
    torch.testing.assert_close(logits_and_gradient(model), expected, rtol=1e-4, atol=1e-5)


def test_no_other_model_of_the_process_is_touched():
    from transformers.models.llama import modeling_llama

    theirs = modeling_llama.apply_rotary_pos_emb
    model = tiny("llama")
    other = copy.deepcopy(model)
    fuse_rotary(model)
    assert modeling_llama.apply_rotary_pos_emb is theirs
    assert type(attentions(other)[0]).forward.__globals__["apply_rotary_pos_emb"] is theirs
    assert not any("forward" in vars(attention) for attention in attentions(other))


def test_a_model_that_pairs_other_dimensions_keeps_its_own_way():
    model = tiny("cohere")
    fuse_rotary(model)
    assert attentions(model)
    assert not any("forward" in vars(attention) for attention in attentions(model))


def test_angles_of_another_type_are_left_to_the_model():
    """olmo2 turns bfloat16 queries by float32 angles and rounds back."""
    model = tiny("olmo2").to(torch.bfloat16)
    expected = logits_and_gradient(model, torch.bfloat16)
    fuse_rotary(model)
    assert all("forward" in vars(attention) for attention in attentions(model))
    torch.testing.assert_close(logits_and_gradient(model, torch.bfloat16), expected, rtol=0, atol=0)


def test_the_gradient_is_that_of_the_formula_whatever_the_halves():
    generator = torch.Generator().manual_seed(4)
    q, k, cos, sin = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((2, 3, 4, 6), (2, 1, 4, 6), (1, 1, 4, 6), (1, 1, 4, 6))
    )
    assert torch.autograd.gradcheck(_Rotation.apply, (q.requires_grad_(), k.requires_grad_(), cos, sin))
