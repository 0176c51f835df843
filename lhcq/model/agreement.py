"""Whether the way that lhcq takes to a score gives what the model itself says: asked each time that one is loaded.

transformers computes logits from a prompt alone, without padding, with its own layers. lhcq multiplies the output of
the decoder with two rows of the output layer, in padded batches, with kernels of its own. What lies between is not to
be seen in a configuration (a soft cap, a multiplier, a norm in the head, a recurrence that reads padding), so both
are computed. Not in inference mode: what a model keeps from its first pass has to serve a training.

bfloat16 decides where it agrees. Where it does not, float32 does: a model whose tokens choose their experts, or one
with a recurrence, may say something else in bfloat16 for a last bit, and is as good as others.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lhcq.errors import BadInput
from lhcq.model.kernels.linear import UNPACKED
from lhcq.model.loss import label_logits, label_scores, pad_right, vocabulary_logits

if TYPE_CHECKING:
    from lhcq.model.base import Base

log = logging.getLogger(__name__)

_LARGE = 100.0
"""Logits are brought to this size, where a soft cap shows also in a model that says nothing yet."""
_EXACT = 1e-4
"""How far two ways may be apart in float32."""
_ROUNDED = 2e-2
"""In bfloat16, where one product lies between: ten times what it rounds."""
_LAYERS = 32
"""Of a model that does not tell."""


@torch.no_grad()
def own_logits(model: Any, prompts: Sequence[list[int]], directory: Path) -> torch.Tensor:
    """What `model` says after each prompt, alone and by itself, `(n, vocabulary)` float32.

    Raises `BadInput` for a model that cannot compute with its layers in four bits.
    """
    try:
        return torch.stack(
            [
                model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
                .logits[0, -1]
                .float()
                for ids in prompts
            ]
        )
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error):
            raise  # of the machine, not of the model
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"{directory}: this model cannot compute with its linear layers in NF4 ({said}). Use another model."
        ) from error


@torch.no_grad()
def choose_logits(base: "Base") -> None:
    """Let `base` take logits from rows of its output layer, where those are the model's own, else from the model.

    Raises `BadInput` where neither way gives, in one padded batch, what the model says of each probe alone. What it
    says in that batch is what is expected of it from now on.
    """
    hidden = _rows_input(base)
    base.own_logits = hidden is None
    if hidden is None:
        _, hidden = label_scores(base, *pad_right(base.probes, base))
    apart = _disagreement(base, hidden, base.expected)
    if apart is not None and base.compute_dtype != torch.float32:
        apart = _disagreement_in_float32(base)
    if apart is not None:
        raise BadInput(
            f"{base.directory}: what this model says of a prompt changes by {apart:.2g} with the padding behind it "
            "or the prompts beside it, so it has no score of its own. Use a causal model."
        )
    base.expected = vocabulary_logits(base, hidden).float()


def _disagreement_in_float32(base: "Base") -> float | None:
    """As `_disagreement`; None also where the GPU has no room for the model in float32."""
    try:
        with _in_float32(base):
            expected = own_logits(base.model, base.probes, base.directory)
            _, ends = label_scores(base, *pad_right(base.probes, base))
            return _disagreement(base, ends, expected)
    except torch.OutOfMemoryError:
        log.warning(
            "%s: what it says in bfloat16 depends on more than a prompt, and there is too little memory to tell by "
            "float32 whether that is rounding",
            base.directory,
        )
        return None


@contextlib.contextmanager
def _in_float32(base: "Base") -> Iterator[None]:
    """Let the model compute in float32, with the same weights, while the body runs."""
    from bitsandbytes.nn import Linear4bit

    tensors = [*base.model.parameters(), *base.model.buffers()]
    values = [(one, one.data) for one in tensors if one.is_floating_point() and one.dtype != torch.float32]
    layers = [one for one in base.model.modules() if isinstance(one, Linear4bit)]
    unpacked = [(one, getattr(one, UNPACKED)) for one in layers if hasattr(one, UNPACKED)]
    dtype = base.compute_dtype
    try:
        base.compute_dtype = torch.float32
        for layer in layers:
            layer.compute_dtype = torch.float32
        for one, value in values:
            one.data = value.float()
        for layer, weight in unpacked:
            setattr(layer, UNPACKED, weight.float())
        yield
    finally:
        base.compute_dtype = dtype
        for layer in layers:
            layer.compute_dtype = dtype
        for one, value in values:
            one.data = value
        for layer, weight in unpacked:
            setattr(layer, UNPACKED, weight)


def _rows_input(base: "Base") -> torch.Tensor | None:
    """The decoder's output at the probes' ends, `(n, hidden)`; None unless its rows are what makes the logits."""
    token_ids, last = pad_right(base.probes, base)
    rows = torch.arange(len(last), device=base.device)
    try:
        hidden: torch.Tensor = base.backbone(input_ids=token_ids, use_cache=False).last_hidden_state[
            rows, last
        ]
        factor = _LARGE / float(base.head(hidden).abs().max().clamp_min(1e-6))
        read, logits = _with_large_input(base, token_ids, factor)
        read, logits = read[rows, last], logits[rows, last].float()
        same = (
            alike(base, hidden.float(), read.float(), deep=True)
            and alike(base, vocabulary_logits(base, read * factor).float(), logits)
            and alike(base, label_logits(base, read * factor), logits[:, list(base.label_ids)])
        )
        return hidden if same else None
    except (RuntimeError, TypeError, AttributeError, LookupError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error):
            raise
        return None  # it has no such parts


def _with_large_input(
    base: "Base", token_ids: torch.Tensor, factor: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model has its output layer read, and the logits that it makes of `factor` times that."""
    read: list[torch.Tensor] = []

    def enlarge(module: Any, arguments: Any) -> Any:
        read.append(arguments[0])
        return (arguments[0] * factor, *arguments[1:])

    hook = base.head.register_forward_pre_hook(enlarge)
    try:
        logits = base.model(input_ids=token_ids, use_cache=False).logits
    finally:
        hook.remove()
    return read[0], logits


@torch.no_grad()
def refuse_adapted(base: "Base") -> None:
    """Raise `BadInput` unless the model, adapted by an adapter of zeros, still says of the probes what it said.

    It trains in between, as it does before each validation: some change their weights for that.
    """
    said = "it says something else with an adapter that does nothing"
    try:
        base.peft.train()
        with torch.random.fork_rng(devices=[base.device] if base.device.type == "cuda" else []):
            label_scores(base, *pad_right(base.probes, base))
        base.peft.eval()
        _, ends = label_scores(base, *pad_right(base.probes, base))
        if _disagreement(base, ends, base.expected) is None:
            return
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error):
            raise
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    base.spoilt = True
    raise BadInput(
        f"{base.directory}: this model cannot compute with PEFT's adapter ({said}). Use another model."
    )


def _disagreement(base: "Base", ends: torch.Tensor, expected: torch.Tensor) -> float | None:
    """How far what is made of what the model gives at the probes' `ends` is from `expected`; None if by rounding."""
    logits = vocabulary_logits(base, ends).float()
    of_labels = logits[:, list(base.label_ids)]
    labels = label_logits(base, ends)
    if alike(base, logits, expected, deep=True) and alike(base, labels, of_labels):
        return None
    return max(float((logits - expected).abs().max()), float((labels - of_labels).abs().max()))


def alike(base: "Base", one: torch.Tensor, other: torch.Tensor, *, deep: bool = False) -> bool:
    """Whether logits are the same to rounding, of the larger of 1 and the largest.

    Where all layers lie between (`deep`), `_apart` decides.
    """
    if base.compute_dtype == torch.float32:
        return bool((one - other).abs().max() <= _EXACT * max(1.0, float(other.abs().max())))
    if deep:
        return _apart(one, other) <= _rounding(base)
    return bool((one - other).abs().max() <= _ROUNDED * max(1.0, float(other.abs().max())))


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The root mean square of a difference over that of how `other` varies along its rows, which is what it says.

    Of so many values no single one decides: of two bfloat16 passes the largest of 10^5 differences is five times
    this, and a label's may be any of them.
    """
    varies = other - other.mean(dim=-1, keepdim=True)
    sizes = [float(torch.linalg.vector_norm(values.double())) for values in (one - other, varies)]
    return sizes[0] / max(sizes[1], 1e-6)


def _rounding(base: "Base") -> float:
    """How far two passes of the same model may be apart in bfloat16, of what they say.

    A layer rounds about 16 values on the way by sqrt(1/3) of 2^-9 each, and so does the other pass: 0.6% a layer of
    what it adds (`lhcq.model.compute`). Layers add up as squares: 3.6% after 32. Four times that, since a layer makes
    errors of its input larger: by 1.4 over the 32 layers of random weights, which nothing has taught to be stable.
    """
    layers = getattr(base.model.config, "num_hidden_layers", None) or _LAYERS
    return float(4 * (32 / 3 * layers) ** 0.5 * 2.0**-9)
