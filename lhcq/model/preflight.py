"""What a training will need of a machine's memory, and what is there, before a model is loaded. Imports no torch."""

import importlib.util
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from lhcq.config import TrainConfig
from lhcq.errors import BadInput
from lhcq.model.gpus import gpus_here
from lhcq.model.weights import Tensor, read_tensors_of, weight_files
from lhcq.storage import read_json

GIB = 1 << 30
_LARGEST_SIZE = 1 << 48
"""Of anything that a model is made of: beyond, a configuration is nonsense."""
_HIDDEN = ("hidden_size", "n_embd", "d_model")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_blocks")
_QUERY_VALUE = ("q_proj", "v_proj")
_NUMBERED = re.compile(r"\.\d+\.")
_NO_LINEAR = re.compile(r"\.experts\.|\.wpe\.|embed|norm|\.(gate|router)\.weight$")
_NF4_BYTES = 0.516  # a weight with its share of the doubly quantized scales
_UNPACKED_LIMIT_BYTES = 2 << 30
_BYTES_PER_ADAPTER_WEIGHT = (
    12  # value and gradient in float32, two moments in 8 bits, the value to compute with
)
_STORED_PER_ADAPTER_WEIGHT = 6  # the value in float32, two moments in 8 bits


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
    def checkpoint(self) -> int:
        """Of one checkpoint on disk: adapter and optimizer."""
        return self.adapter * _STORED_PER_ADAPTER_WEIGHT // _BYTES_PER_ADAPTER_WEIGHT

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


def check_packages(directory: Path) -> None:
    """Raise `BadInput` where a model's configuration asks for attention by a package that is not installed here."""
    asked = str(_attention(read_json(directory / "config.json")))
    package = "flash_attn_interface" if asked.endswith("3") else "flash_attn"
    if asked.startswith("flash_attention") and importlib.util.find_spec(package) is None:
        raise BadInput(
            f"{directory}: its config.json asks for {asked}, and {package} is not installed. Install it, or take the "
            "field attn_implementation out of config.json."
        )


def _attention(config: dict[str, Any]) -> object:
    return config.get("attn_implementation") or config.get("_attn_implementation")


def estimate_needs(directory: Path, config: TrainConfig, *, longest: int, bfloat16: bool) -> Needs | None:
    """What training the model in `directory` on prompts of `longest` tokens needs; None for an unusual model."""
    shape = dict(read_json(directory / "config.json"))
    hidden, layers, vocabulary = (_first_size(shape, names) for names in (_HIDDEN, _LAYERS, ("vocab_size",)))
    if hidden is None or layers is None or vocabulary is None:
        return None
    tensors = [tensor for path in weight_files(directory) for tensor in read_tensors_of(path)]
    packed = {tensor.name: tensor for tensor in tensors if _is_packed(tensor, vocabulary)}
    size = 2 if bfloat16 else 4
    weights = sum(tensor.weights for tensor in packed.values())
    model = weights * _NF4_BYTES + sum(
        tensor.weights * size for tensor in tensors if tensor.name not in packed
    )
    if weights * size <= _UNPACKED_LIMIT_BYTES:
        model += weights * size
    adapted = [
        tensor
        for name, tensor in packed.items()
        if config.target == "all-linear" or name.removesuffix(".weight").rsplit(".", 1)[-1] in _QUERY_VALUE
    ]
    adapter = config.rank * sum(map(sum, (tensor.shape for tensor in adapted))) * _BYTES_PER_ADAPTER_WEIGHT
    inner = max((max(tensor.shape) for tensor in packed.values()), default=hidden)
    prompt = longest * size * (layers * hidden + 8 * hidden + 5 * inner)
    return Needs(int(model), adapter, prompt)


def _first_size(shape: dict[str, Any], names: tuple[str, ...]) -> int | None:
    """The size that a configuration has under one of `names`."""
    found = next((shape[name] for name in names if name in shape), None)
    return found if type(found) is int and 0 < found < _LARGEST_SIZE else None


def _is_packed(tensor: Tensor, vocabulary: int) -> bool:
    """Whether transformers makes it a `Linear4bit`: the matrix of a linear layer.

    Not the tables before and after the layers, by their size or their name, and not experts: transformers stacks
    those of a layer in one tensor, which is no linear layer. A router is none either, and small.
    """
    table = vocabulary in tensor.shape and not _NUMBERED.search(tensor.name)
    return (
        len(tensor.shape) == 2
        and tensor.name.endswith(".weight")
        and not (table or _NO_LINEAR.search(tensor.name))
    )


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
