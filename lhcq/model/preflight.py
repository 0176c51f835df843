"""What a training will need of a machine's memory, and what is there, before a model is loaded. Imports no torch."""

import os
from pathlib import Path
from typing import NamedTuple

from lhcq.config import TrainConfig
from lhcq.errors import BadInput
from lhcq.model.gpus import gpus_here
from lhcq.model.sources import count_parameters
from lhcq.workspace import read_json

GIB = 1 << 30
_LARGEST_SIZE = 1 << 48
"""Of anything that a model is made of: beyond, a configuration is nonsense."""
_NF4_BYTES = 0.516  # a weight with its share of the doubly quantized scales
_UNPACKED_LIMIT_BYTES = 2 << 30
_BYTES_PER_ADAPTER_WEIGHT = (
    12  # value and gradient in float32, two moments in 8 bits, the value to compute with
)


class Device(NamedTuple):
    """What a training here would run on."""

    name: str
    """"CPU", or the GPU's."""
    free: int
    """Bytes."""
    bfloat16: bool


class Needs(NamedTuple):
    """Bytes, estimated to about a tenth."""

    model: int
    adapter: int
    """Weights, gradients and optimizer."""
    prompt: int
    """One prompt on its way through, with checkpointed activations."""

    @property
    def total(self) -> int:
        """Of one pass over one prompt."""
        return self.model + self.adapter + self.prompt


def device_here() -> Device:
    """The visible GPU with the least free memory by `nvidia-smi`, which takes none of it, else the CPU."""
    gpus = gpus_here()
    if gpus:
        # A training puts the whole model on each.
        fullest = min(gpus, key=lambda gpu: gpu.free)
        name = fullest.name + (f", the fullest of {len(gpus)}" if len(gpus) > 1 else "")
        return Device(name, fullest.free, fullest.bfloat16)
    free_pages, page = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Device("CPU", free_pages * page, bfloat16=False)


def estimate_needs(directory: Path, config: TrainConfig, *, longest: int, bfloat16: bool) -> Needs | None:
    """What training the model in `directory` on prompts of `longest` tokens needs; None for an unusual model."""
    shape = dict(read_json(directory / "config.json"))
    try:
        hidden, inner, layers = (
            int(shape[key]) for key in ("hidden_size", "intermediate_size", "num_hidden_layers")
        )
        heads, groups = int(shape["num_attention_heads"]), int(shape["num_key_value_heads"])
        tables = int(shape["vocab_size"]) * hidden * (1 if shape.get("tie_word_embeddings") else 2)
        head = int(shape.get("head_dim") or hidden // heads)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    if not all(0 < size < _LARGEST_SIZE for size in (hidden, inner, layers, heads, groups, tables, head)):
        return None
    size = 2 if bfloat16 else 4
    key_value = head * groups
    layered = count_parameters(directory) - tables
    model = layered * _NF4_BYTES + tables * size
    if layered * size <= _UNPACKED_LIMIT_BYTES:
        model += layered * size
    ends = 2 * hidden + hidden + key_value  # inputs and outputs of q and v
    if config.target == "all-linear":
        ends += hidden + key_value + 2 * hidden + 3 * (hidden + inner)
    adapter = config.rank * ends * layers * _BYTES_PER_ADAPTER_WEIGHT
    prompt = longest * size * (layers * hidden + 8 * hidden + 5 * inner)
    return Needs(int(model), adapter, prompt)


def check_memory(needs: Needs, device: Device, config: TrainConfig, *, longest: int) -> str:
    """A line with what is needed and what is there; raises `BadInput` with the remedy when it is too little."""
    there, where = device.free, f"{device.free / GIB:.1f} GiB free on the {device.name}"
    if config.max_memory is not None and config.max_memory < there:
        there, where = config.max_memory, f"{config.max_memory / GIB:.1f} GiB by --max-memory"
    line = (
        f"needs about {needs.total / GIB:.2g} GiB (model {needs.model / GIB:.2g}, adapter and optimizer "
        f"{needs.adapter / GIB:.2g}, a prompt of {longest} tokens {needs.prompt / GIB:.2g}); there are {where}"
    )
    if needs.total > there:
        raise BadInput(
            f"The training {line}. Free memory, give more by --max-memory, or take a smaller model, a lower --rank "
            "or shorter prompts (template compact)."
        )
    if device.name != "CPU" and not device.bfloat16:
        line += ". This GPU has no bfloat16: it computes in float32, which is right but slow"
    return line
