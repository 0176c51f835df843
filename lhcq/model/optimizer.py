"""bitsandbytes' 8-bit AdamW over an adapter's flat vector, and its state as plain tensors."""

from pathlib import Path
from typing import Any

import torch

from lhcq.config import TrainConfig
from lhcq.errors import BadInput
from lhcq.model.adapter import Adapter
from lhcq.model.tensors import read_tensors

OPTIMIZER_STATE = "optimizer.safetensors"
_TENSORS = ("state1", "state2", "qmap1", "qmap2", "absmax1", "absmax2")


def make_optimizer(adapter: Adapter, config: TrainConfig) -> Any:
    """A fresh optimizer; the rate is set at each step."""
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit([adapter.flat], lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=config.weight_decay)


def update(optimizer: Any, adapter: Adapter) -> None:
    """Step once by the gradient that the adapter has.

    bitsandbytes' own `step` ends with a wait for the whole GPU, for the sake of paged state, which this is not: a
    training that queues steps ahead would wait in each, and never end where another rank died of the sum before.
    """
    [group] = optimizer.param_groups
    if not optimizer.state[adapter.flat]:
        optimizer.init_state(group, adapter.flat, 0, 0)
    optimizer.update_step(group, adapter.flat, 0, 0)


def optimizer_tensors(optimizer: Any, adapter: Adapter) -> dict[str, torch.Tensor]:
    """The state: moments in 8 bits, the maps from bits to values, and one scale for 256 weights."""
    state = optimizer.state[adapter.flat]
    return {name: state[name].detach().cpu().contiguous() for name in _TENSORS if name in state}


def load_optimizer(optimizer: Any, adapter: Adapter, checkpoint: Path, *, step: int) -> None:
    """Set the state to that of a checkpoint after `step` optimizer steps."""
    tensors = read_tensors(checkpoint / OPTIMIZER_STATE)
    if "state1" not in tensors or tensors["state1"].shape != adapter.flat.shape:
        raise BadInput(f"{checkpoint}: its optimizer state has another shape than its adapter.")
    optimizer.state[adapter.flat] = {
        "step": step,
        **{name: tensor.to(adapter.flat.device) for name, tensor in tensors.items()},
    }
