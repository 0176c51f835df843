"""The LoRA adapter on a resident base: attached, seeded, loaded and swapped without touching the base.

All LoRA weights of an adapter are views of one flat float32 vector, and so are their gradients. The optimizer then
works on a single tensor (one kernel instead of hundreds), clipping is one norm, and a swap is one copy.
"""

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Any

import torch

from lhcq.config import TrainConfig
from lhcq.errors import BadInput
from lhcq.model.agreement import refuse_adapted
from lhcq.model.base import Base
from lhcq.model.compute import fast_decoder
from lhcq.model.kernels.linear import FusedLora, fuse_lora
from lhcq.model.tensors import read_tensors
from lhcq.records.checkpoints import ADAPTER_WEIGHTS

_TARGETS = {"query-value": ("q_proj", "v_proj")}


@dataclasses.dataclass(kw_only=True)
class Adapter:
    """The attached adapter: its shape, and its weights under the names that PEFT saves them with."""

    name: str
    shape: tuple[object, ...]
    lora: Any
    """The `peft.LoraConfig`."""
    flat: torch.nn.Parameter
    """All weights, `(n_weights,)` float32; `flat.grad` holds all gradients."""
    weights: dict[str, torch.Tensor]
    """Views into `flat`."""
    fused: FusedLora
    """The layers one by one, in transformers' forward pass."""
    decoder: Any = None
    """All of them together (`lhcq.model.decoder.Decoder`), where that is faster and agrees."""
    graphs: dict[Any, Any] = dataclasses.field(default_factory=dict)
    """Recorded passes by their shape; they hold the addresses of these weights (`lhcq.model.passes`)."""

    @property
    def compute(self) -> str:
        """What the layers multiply in."""
        if self.decoder is not None and self.decoder.fp8:
            return "fp8"
        return str(self.fused.dtype).removeprefix("torch.")

    def refresh(self) -> None:
        """Let the layers see what `flat` holds now."""
        self.fused.refresh()
        if self.decoder is not None:
            self.decoder.refresh()

    def let_go(self) -> None:
        """Forget what a pass that failed has left in the layers."""
        self.fused.let_go()


def attach_lora(base: Base, config: TrainConfig) -> Adapter:
    """Give `base` an adapter of the shape that `config` asks for; its weights are whatever they were.

    An adapter of another shape is replaced. Call `reset_adapter` or `load_adapter` next. Raises `BadInput` when the
    model has not the layers, or cannot be computed as the configuration says.
    """
    base.uses += 1
    shape = (config.rank, config.alpha, config.dropout, config.target, config.compute)
    if base.adapter is None or base.adapter.shape != shape:
        previous = base.adapter
        lora = _lora_config(base, config)
        name = f"lora{base.uses}"
        _wrap_with_peft(base, lora, name)
        if previous is not None:
            base.peft.delete_adapter(previous.name)
        base.adapter = _flatten(base, name, shape, lora)
        refuse_adapted(base)
        if not base.own_logits:
            base.adapter.decoder = fast_decoder(base, name, config)
    adapter: Adapter = base.adapter
    return adapter


def reset_adapter(adapter: Adapter, seed: int) -> None:
    """Start anew: A uniform as PEFT and LoRA's authors draw it, B zero; the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in adapter.weights.items():
        if ".lora_A." in name:
            bound = 1.0 / math.sqrt(weight.shape[1])
            weight.copy_(torch.empty(weight.shape).uniform_(-bound, bound, generator=generator))
        else:
            weight.zero_()


def load_adapter(adapter: Adapter, checkpoint: Path) -> None:
    """Copy the weights of a checkpoint directory into the attached adapter."""
    stored = read_tensors(checkpoint / ADAPTER_WEIGHTS)
    if {name: tensor.shape for name, tensor in stored.items()} != {
        name: weight.shape for name, weight in adapter.weights.items()
    }:
        raise BadInput(f"{checkpoint}: its adapter has another shape than this run's configuration or model.")
    for name, weight in adapter.weights.items():
        weight.copy_(stored[name])


def _lora_config(base: Base, config: TrainConfig) -> Any:
    from peft import LoraConfig

    if not base.linear_names:
        raise BadInput(
            f"{base.directory}: this model has no linear layers that bitsandbytes can hold in NF4. Use another model."
        )
    targets = set(base.linear_names)
    if wanted := set(_TARGETS.get(config.target, ())):
        targets = {name for name in targets if name.rsplit(".", 1)[-1] in wanted}
        missing = sorted(wanted - {name.rsplit(".", 1)[-1] for name in targets})
        if missing:
            raise BadInput(
                f"{base.directory}: the model has no layers {missing}, which target {config.target!r} means."
            )
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=sorted(targets),
        bias="none",
        task_type="CAUSAL_LM",
    )


def _wrap_with_peft(base: Base, lora: Any, name: str) -> None:
    """Attach a first or a further adapter called `name` to the model and make it the active one."""
    from peft import get_peft_model

    with warnings.catch_warnings():
        # peft asks transformers by a name that transformers 5 calls deprecated.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        try:
            if base.peft is None:
                base.peft = get_peft_model(base.model, lora, adapter_name=name)
            else:
                base.peft.add_adapter(name, lora)
        except (ValueError, TypeError, NotImplementedError) as error:
            base.spoilt = True
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadInput(
                f"{base.directory}: PEFT cannot adapt this model ({said}). Use another model."
            ) from error
    base.peft.set_adapter(name)


def _flatten(base: Base, name: str, shape: tuple[object, ...], lora: Any) -> Adapter:
    """Move the new adapter's weights, and their gradients, into one vector each."""
    parameters = {
        path.replace(f".{name}.", "."): parameter
        for path, parameter in base.peft.named_parameters()
        if f".{name}." in path
    }
    total = sum(parameter.numel() for parameter in parameters.values())
    flat = torch.nn.Parameter(torch.zeros(total, dtype=torch.float32, device=base.device))
    flat.grad = torch.zeros_like(flat)
    weights = {}
    at = 0
    for path, parameter in parameters.items():
        end = at + parameter.numel()
        weights[path] = flat.data[at:end].view(parameter.shape)
        parameter.data = weights[path]
        # A gradient that is there is added to in place, so it stays this view as long as nobody sets it to None.
        parameter.grad = flat.grad[at:end].view(parameter.shape)
        at = end
    fused = fuse_lora(base.model, name, base.compute_dtype)
    fused.refresh()
    return Adapter(name=name, shape=shape, lora=lora, flat=flat, weights=weights, fused=fused)
