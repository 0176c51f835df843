"""Whether a model is one that `model.decoder` computes, and how far from transformers it does: asked at load."""

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from lhcq.model.decoder import Decoder


def is_usual(model: Any) -> bool:
    """Whether the layers of `model` have the parts that `model.decoder` computes, and no others that it knows of."""
    backbone = model.base_model
    if not all(hasattr(backbone, name) for name in ("embed_tokens", "rotary_emb", "norm", "layers")):
        return False
    # Of attention that does not reach back to the beginning nothing is known here.
    if getattr(model.config, "sliding_window", None) is not None:
        return False
    return all(map(_is_usual_layer, backbone.layers))


def _is_usual_layer(layer: Any) -> bool:
    parts = {
        "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
        "mlp": ("gate_proj", "up_proj", "down_proj"),
    }
    for parent, names in parts.items():
        module = getattr(layer, parent, None)
        for name in names:
            linear: Any = getattr(module, name, None)
            linear = getattr(linear, "base_layer", linear)
            state = getattr(getattr(linear, "weight", None), "quant_state", None)
            if state is None or not state.nested or state.blocksize != 64 or state.state2.blocksize != 256:
                return False
            if linear.bias is not None or linear.in_features % 64 or linear.out_features % 16:
                return False
    attention = layer.self_attn
    if hasattr(attention, "q_norm") or not hasattr(attention, "scaling") or attention.head_dim % 2:
        return False
    return all(
        hasattr(getattr(layer, name, None), "variance_epsilon")
        for name in ("input_layernorm", "post_attention_layernorm")
    )


def apart(model: Any, decoder: "Decoder", *, stream: float, whole: float) -> float:
    """How far `decoder` is from transformers in the layer where it is farthest; nothing may be dropped.

    Of what a layer adds to what it is given, and of the gradient of that, relative to their size; but of no less than
    `stream` times what it adds to, whose rounding is in the sum too. Each layer is given what transformers' layers
    before it made of two prompts that begin alike. Infinite where the model's own output is farther than `whole`, of
    its size, from its layers one after the other: it does more than those, such as scaling its embeddings.
    """
    rows, length, shared = 2, 24, 8
    device = decoder.embed.weight.device
    place = torch.arange(length, device=device)
    row = torch.arange(rows, device=device)[:, None]
    ids = torch.arange(shared + rows * (length - shared), device=device) * 37 % decoder.embed.num_embeddings
    once = torch.where(place < shared, place, row * (length - shared) + place)  # (rows, length)
    way = decoder.way(rows, length, shared, decoder.embed(ids))
    farthest = 0.0
    with torch.inference_mode(False), torch.enable_grad():
        x = decoder.embed(ids).detach()
        for ours, theirs in zip(decoder.layers, model.base_model.layers, strict=True):
            x.requires_grad_(True)
            told = theirs(x[once], position_embeddings=(way.cos[None], way.sin[None]), attention_mask=None)
            both = ours(x, way), torch.cat([told[0, :shared], told[:, shared:].flatten(0, 1)])
            probe = torch.linspace(-1.0, 1.0, x.numel(), device=device).view(x.shape).to(x.dtype)
            pulled = [torch.autograd.grad(y, x, probe)[0] - probe for y in both]
            added = [(y - x).detach() for y in both]
            farthest = max(
                farthest,
                _relative(pulled[0], pulled[1], stream * _size(probe)),
                _relative(added[0], added[1], stream * _size(both[1])),
            )
            x = both[1].detach()
        chained = decoder.norm(x)[once]
        own = model.base_model(input_ids=ids[once], use_cache=False).last_hidden_state
    return farthest if _relative(chained.detach(), own.detach()) < whole else math.inf


def _relative(one: torch.Tensor, other: torch.Tensor, least: float = 0.0) -> float:
    apart = _size(one.double() - other.double())
    return apart / math.hypot(_size(other), least) if apart else 0.0


def _size(x: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(x.detach().double()))
