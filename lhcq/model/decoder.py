"""A pass through the decoder on a GPU: few kernels, little kept, what all prompts share computed once.

For decoders of the usual kind (Llama, Mistral, SmolLM2): root-mean-square norms, rotated heads, a gated feed-forward
layer. transformers' own forward pass is what this is held to, at load (`lhcq.model.decoder_agreement`).

- Prompts of a split begin alike. Without dropout those tokens have the same values in every row: they are computed
  once a pass, before all others, and are spread to the rows for attention alone. Their gradient is the rows' sum.
- Norms and gates, and what they give, are computed again in the backward pass: they cost little and are what a pass
  would keep most of.
- Of the last layer only the prompts' ends go on, and labels behind them, since nothing looks at the rest.
- Matrix products are joined where layers read the same input, and taken in 8 bits if asked (`lhcq.model.joint`).
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.checkpoint import checkpoint

from lhcq.model.copies import Copies
from lhcq.model.joint import Joint, Passed
from lhcq.model.kernels.triton import (
    Heads,
    gate,
    gate_backward,
    join_heads,
    norm,
    norm_backward,
    pack,
    split_heads,
    spread,
)
from lhcq.model.stacks import Stacks

_again = False
"""Whether a layer is computed a second time, for what its backward pass needs."""


class _Norm(NamedTuple):
    weight: torch.Tensor
    eps: float


class Taken(NamedTuple):
    """Some of a number of rows, each at most once."""

    places: torch.Tensor
    """Where they are among all."""
    back: torch.Tensor
    """Where each of all is among them, -1 where it is not."""

    @classmethod
    def of(cls, places: torch.Tensor, total: int) -> "Taken":
        """The rows at `places` of `total`."""
        back = torch.full((total,), -1, device=places.device)
        return cls(places, back.index_copy_(0, places, torch.arange(len(places), device=places.device)))


class Way(NamedTuple):
    """How the tokens of a pass go through a layer."""

    cos: torch.Tensor
    """`(length, size of a head)`, as `sin`."""
    sin: torch.Tensor
    heads: Heads
    attended: Taken | None
    """The tokens that go on, of those of attention, `(rows x length)`; None: all do, in order."""
    kept: Taken | None
    """The same, of those that came; None: all do."""
    share: float
    """Of LoRA's inputs that is dropped."""


class Decoder(Copies):
    """The layers of `model` with the LoRA weights of `adapter`; call `refresh` whenever those have changed."""

    def __init__(
        self,
        model: Any,
        adapter: str,
        dtype: torch.dtype,
        *,
        fp8: bool,
        dropout: float,
        flat: torch.nn.Parameter,
    ) -> None:
        backbone = model.base_model
        self.embed = backbone.embed_tokens
        self.rotary = backbone.rotary_emb
        self.norm = backbone.norm
        self.dropout = dropout
        self.fp8 = fp8
        self.checkpointing = False
        """Whether of a layer only its input is kept."""
        attention = backbone.layers[0].self_attn
        self.half = attention.head_dim // 2
        self.layers = [_Layer(layer, adapter, dtype, fp8=fp8) for layer in backbone.layers]
        kinds = [list(joints) for joints in zip(*(layer.joints for layer in self.layers), strict=True)]
        self._stacks = Stacks(kinds, flat) if Stacks.fit(kinds, flat) else None
        alone = [] if self._stacks else [joint for joints in kinds for joint in joints]
        super().__init__(pair for joint in alone for pair in joint.copies())
        self.refresh()

    def refresh(self) -> None:
        """As `Copies`."""
        super().refresh()
        if self._stacks is not None:
            self._stacks.refresh()

    def __call__(self, token_ids: torch.Tensor, at: torch.Tensor, shared: int) -> torch.Tensor:
        """The normed output at positions `at` `(rows, k)`, `(rows, k, hidden)`.

        `token_ids` `(rows, length)` are padded to the right, and the first `shared` tokens of all rows are the same,
        no position of `at` among them.
        """
        if shared and self.share:
            raise ValueError("with dropout nothing is the same in two rows")
        once = token_ids[0, :shared], token_ids[:, shared:].flatten()
        x = self.embed(torch.cat(once) if shared else once[1])
        rows, length = token_ids.shape
        way = self.way(rows, length, shared, x)
        row = torch.arange(rows, device=x.device)[:, None]
        ends = way._replace(
            attended=Taken.of((row * length + at).flatten(), rows * length),
            kept=Taken.of((row * (length - shared) + at).flatten(), way.heads.tokens),
        )
        for layer in self.layers[:-1]:
            x = self._layer(layer, x, way)
        x = self._layer(self.layers[-1], x, ends)
        normed: torch.Tensor = self.norm(x).view(rows, at.shape[1], -1)
        return normed

    def way(self, rows: int, length: int, shared: int, x: torch.Tensor) -> Way:
        """The way of all tokens `x` of such a pass, through a layer of which all are asked."""
        places = torch.arange(length, device=x.device)
        cos, sin = self.rotary(x[None], position_ids=places[None])
        heads = Heads(rows, length, shared, self.layers[0].queries, self.layers[0].keys, self.half)
        once = None
        if shared:
            row = torch.arange(rows, device=x.device)[:, None]
            own = (row * length + places[shared:]).flatten()
            once = Taken.of(torch.cat([places[:shared], own]), rows * length)
        return Way(cos[0], sin[0], heads, once, None, self.share)

    @property
    def share(self) -> float:
        """What is dropped now: nothing in an evaluation."""
        return self.dropout if self.norm.training else 0.0

    def _layer(self, layer: "_Layer", x: torch.Tensor, way: Way) -> torch.Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return layer(x, way)
        y: torch.Tensor = checkpoint(
            layer, x, way, use_reentrant=False, context_fn=_twice, preserve_rng_state=way.share > 0
        )
        return y


class _Layer:
    def __init__(self, layer: Any, adapter: str, dtype: torch.dtype, *, fp8: bool) -> None:
        attention, feed_forward = layer.self_attn, layer.mlp

        def join(parent: Any, *names: str) -> Joint:
            return Joint([getattr(parent, name) for name in names], adapter, dtype, fp8=fp8)

        self.qkv = join(attention, "q_proj", "k_proj", "v_proj")
        self.o = join(attention, "o_proj")
        self.gate_up = join(feed_forward, "gate_proj", "up_proj")
        self.down = join(feed_forward, "down_proj")
        self.joints = (self.qkv, self.o, self.gate_up, self.down)
        self.scaling: float = attention.scaling
        self.queries: int = self.qkv.bases[0].out_features // attention.head_dim
        self.keys: int = self.qkv.bases[1].out_features // attention.head_dim
        self.norms = [
            _Norm(one.weight, one.variance_epsilon)
            for one in (layer.input_layernorm, layer.post_attention_layernorm)
        ]

    def __call__(self, x: torch.Tensor, way: Way) -> torch.Tensor:
        x, qkv = _Project.apply(x, self.norms[0], self.qkv, way.share, *self.qkv.trained)
        q, k, v = _Split.apply(qkv, way)
        attended = torch.nn.functional.scaled_dot_product_attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            is_causal=True,
            scale=self.scaling,
            enable_gqa=self.keys != self.queries,
        )
        attended = attended.transpose(1, 2).reshape(way.heads.rows * way.heads.length, -1)
        if way.attended is not None:
            attended = _Take.apply(attended, way.attended)
        if way.kept is not None:
            x = _Take.apply(x, way.kept)
        x = _Output.apply(attended, x, self.o, way.share, *self.o.trained)
        y: torch.Tensor = _FeedForward.apply(
            x, self.norms[1], self.gate_up, self.down, way.share, *self.gate_up.trained, *self.down.trained
        )
        return y


def _twice() -> tuple[Any, Any]:
    return contextlib.nullcontext(), _computing_again()


@contextlib.contextmanager
def _computing_again() -> Iterator[None]:
    global _again  # noqa: PLW0603  torch offers no other way to tell a function that it is computed again
    _again = True
    try:
        yield
    finally:
        _again = False


class _Project(torch.autograd.Function):
    """x as it is, and a joint's outputs of its norm."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x, normed, joint, share, *trained
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n, packed = norm(x, *normed, pack=joint.fp8)
        y, passed = joint.forward(n, packed, share)
        ctx.save_for_backward(x, *passed)
        ctx.normed, ctx.joint, ctx.share, ctx.trained = normed, joint, share, len(trained)
        return x, y

    @staticmethod
    def backward(  # type: ignore[no-untyped-def]
        ctx, grad_x, grad
    ) -> tuple[torch.Tensor | None, ...]:
        x, *kept = ctx.saved_tensors
        passed, joint, share = Passed(*kept), ctx.joint, ctx.share
        result = None
        if ctx.needs_input_grad[0]:
            grad_inner, pulled = joint.pull(grad, joint.pack_grad(grad), passed, share)
            result = norm_backward(pulled, x, ctx.normed.weight, ctx.normed.eps, grad_x)
            del pulled
        else:
            grad_inner = joint.grad_inner(grad)
        if grad_inner is not None:
            joint.learn(grad, grad_inner, norm(x, *ctx.normed, pack=False)[0], passed, share)
        return (result, *(None,) * (3 + ctx.trained))


class _Split(torch.autograd.Function):
    """The outputs of query, key and value as attention takes them."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, qkv, way
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ctx.way = way
        return split_heads(qkv, way.cos, way.sin, way.heads)

    @staticmethod
    def backward(ctx, *grads):  # type: ignore[no-untyped-def]
        q, k, v = (one.contiguous() for one in grads)
        return join_heads(q, k, v, ctx.way.cos, ctx.way.sin, ctx.way.heads), None


class _Take(torch.autograd.Function):
    """Some rows of x."""

    @staticmethod
    def forward(ctx, x, taken):  # type: ignore[no-untyped-def]
        ctx.back = taken.back
        return spread(x.contiguous(), taken.places)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        return spread(grad.contiguous(), ctx.back), None


class _Output(torch.autograd.Function):
    """x plus a joint's outputs of what was attended."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, attended, x, joint, share, *trained
    ) -> torch.Tensor:
        y, passed = joint.forward(attended, pack(attended) if joint.fp8 else None, share, residual=x)
        ctx.save_for_backward(attended, *passed)
        ctx.joint, ctx.share, ctx.trained = joint, share, len(trained)
        result: torch.Tensor = y
        return result

    @staticmethod
    def backward(ctx, grad) -> tuple[torch.Tensor | None, ...]:  # type: ignore[no-untyped-def]
        attended, *kept = ctx.saved_tensors
        passed, joint = Passed(*kept), ctx.joint
        grad_inner, result = joint.pull(grad, joint.pack_grad(grad), passed, ctx.share)
        joint.learn(grad, grad_inner, attended, passed, ctx.share)
        return (result, grad, *(None,) * (2 + ctx.trained))


class _FeedForward(torch.autograd.Function):
    """x plus down(silu(gate) up) of its norm, of which gate and up are kept."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x, normed, gate_up, down, share, *trained
    ) -> torch.Tensor:
        n, packed = norm(x, *normed, pack=gate_up.fp8)
        both, first = gate_up.forward(n, packed, share)
        del n, packed
        second = Passed(None, None)
        if not _again:
            y, second = down.forward(*gate(both, pack=down.fp8), share, residual=x)
        else:  # for what is kept below; nobody looks at the result
            y = torch.empty_like(x)
            if not down.merges(share):
                second = down.inner(gate(both, pack=False)[0], share)[1]
        ctx.save_for_backward(x, both, *first, *second)
        ctx.normed, ctx.joints, ctx.share, ctx.trained = normed, (gate_up, down), share, len(trained)
        result: torch.Tensor = y
        return result

    @staticmethod
    def backward(ctx, grad) -> tuple[torch.Tensor | None, ...]:  # type: ignore[no-untyped-def]
        x, both, *kept = ctx.saved_tensors
        first, second, share = Passed(*kept[:2]), Passed(*kept[2:]), ctx.share
        gate_up, down = ctx.joints
        grad_inner, grad_act = down.pull(grad, down.pack_grad(grad), second, share)
        act, grad_both, packed = gate_backward(both, grad_act, gate_up.scales if gate_up.fp8 else None)
        del grad_act
        down.learn(grad, grad_inner, act, second, share)
        del act
        grad_inner, pulled = gate_up.pull(grad_both, packed, first, share)
        del packed
        result = norm_backward(pulled, x, ctx.normed.weight, ctx.normed.eps, grad)
        del pulled
        if gate_up.members:
            gate_up.learn(grad_both, grad_inner, norm(x, *ctx.normed, pack=False)[0], first, share)
        return (result, *(None,) * (4 + ctx.trained))
