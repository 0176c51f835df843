"""How long a training or a scoring will take, before it starts: to a factor of two or so, and without torch.

Time is taken for that of the products with the model's matrices, at the share of a processor's own rate that such a
loop reaches; on a GPU also for what moves through its memory, and for starting its kernels.
"""

import functools
import math
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lhcq.config import TrainConfig
from lhcq.model.gpus import gpus_here
from lhcq.model.weights import read_tensors_of, weight_files
from lhcq.storage import read_json

_FORWARD, _BACKWARD = 2, 2
"""Operations a weight and token: one product and one sum. No gradient of the base's own weights is taken."""
_RECOMPUTED = 2
"""Of a pass whose activations are made twice, which saves the memory that keeps them."""

# Operations a second of products in bfloat16, dense, in 1e12, and bytes a second of memory, in 1e9, by NVIDIA's data
# sheets; by what the name begins with that nvidia-smi gives.
_GPUS = {
    "B200": (2250, 8000), "H200": (989, 4800), "H100 NVL": (835, 3900), "H100 PCIe": (756, 2000), "H100": (989, 3350),
    "A100": (312, 1555), "A800": (312, 1555), "L40S": (362, 864), "L40": (181, 864), "L4": (121, 300),
    "A40": (150, 696), "A30": (165, 933), "A10": (125, 600), "RTX 6000 Ada": (364, 960), "RTX A6000": (155, 768),
    "RTX 5090": (210, 1792), "RTX 4090": (165, 1008), "RTX 4080": (97, 717), "RTX 3090": (71, 936),
    "RTX 3080": (60, 760), "RTX 3060": (26, 360),
}  # fmt: skip
# How a training uses that, fitted to benchmarks/results/gpu.json, of an H100: 7B (91 prompts of 177 tokens a second,
# and 672 of 20) and 135M (618 prompts of 20 tokens a second by 8 at once, 5,796 by 128, 10,816 by 1,024).
_GPU_SHARE = 0.74
"""Of the rate of products."""
_MOVED = 670
"""Bytes that a token moves in a training's step, a layer and a number of its width: norms, gates, rotation, sums."""
_SECONDS_PER_LAYER = 4e-4
"""A pass takes at least so long a layer: its kernels have to be started."""
_CPU_SHARE = 0.5
"""What a training of SmolLM2 reaches of what numpy's product of matrices does, by the processor's time."""
_PROBE_SECONDS = 0.1
_PROBE_SIZE = 256


class Shape(NamedTuple):
    """What of a model decides how long it takes."""

    weights: int
    """Of its layers, without the tables before and after them."""
    layers: int
    width: int


class Pace(NamedTuple):
    """How fast a processor trains."""

    products: float
    """Operations a second that a training's products reach."""
    memory: float = math.inf
    """Bytes a second; infinite where products are all that counts."""
    least: float = 0.0
    """Seconds that a layer takes at least in a pass."""
    recomputes: bool = True
    """Whether activations are made twice."""

    def training(self, shape: Shape, tokens: float) -> float:
        """Seconds of one pass forward and backward over so many tokens."""
        operations = _FORWARD + _BACKWARD + (_RECOMPUTED if self.recomputes else 0)
        return shape.layers * self.least + tokens * self._of_a_token(shape, operations, moved=1.0)

    def scoring(self, shape: Shape, tokens: float) -> float:
        """Seconds of passes forward over so many tokens."""
        return tokens * self._of_a_token(shape, _FORWARD, moved=1 / 3)

    def _of_a_token(self, shape: Shape, operations: int, moved: float) -> float:
        bytes_moved = moved * _MOVED * shape.layers * shape.width
        return operations * shape.weights / self.products + bytes_moved / self.memory


@functools.cache
def pace_here() -> Pace | None:
    """How fast what a training here would run on is; None for a GPU whose data sheet is not known here."""
    gpus = gpus_here()
    if not gpus:
        return Pace(_CPU_SHARE * _measured_rate())
    if not all(gpu.bfloat16 for gpu in gpus):
        return None
    return pace_of_gpu(min(gpus, key=lambda gpu: gpu.total).name, len(gpus))


def pace_of_gpu(name: str, count: int = 1) -> Pace | None:
    """How fast so many GPUs of a name are; None where its data sheet is not known here."""
    found = next((rates for known, rates in _GPUS.items() if known in name), None)
    if found is None:
        return None
    products, memory = found
    return Pace(
        products=_GPU_SHARE * products * 1e12 * count,
        memory=memory * 1e9 * count,
        least=_SECONDS_PER_LAYER,
        recomputes=False,
    )


def _measured_rate() -> float:
    """Operations a second of products of matrices in float32, on all cores that this process may use.

    By the processor time of the fastest of some small ones on one core: others may be at work on the machine just
    now, and a process that waits for its turn is no slower for it afterwards.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    matrix = np.ones((_PROBE_SIZE, _PROBE_SIZE), np.float32)
    fastest = math.inf
    with threadpool_limits(1):
        began = time.thread_time()
        while (started := time.thread_time()) - began < _PROBE_SECONDS:
            np.dot(matrix, matrix)
            fastest = min(fastest, time.thread_time() - started)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores * 2 * _PROBE_SIZE**3 / fastest


def step_seconds(directory: Path, config: TrainConfig, tokens: float, pace: Pace) -> float:
    """Seconds of an optimizer step of the model in `directory` on prompts of `tokens` tokens."""
    return config.accumulation * pace.training(shape_of(directory), config.batch_size * tokens)


def scoring_seconds(directory: Path, n_prompts: int, tokens: float, pace: Pace) -> float:
    """Seconds of scoring prompts of `tokens` tokens with the model in `directory`."""
    return pace.scoring(shape_of(directory), n_prompts * tokens)


def shape_of(directory: Path) -> Shape:
    """The shape of the model in `directory`, by its weight files and its configuration."""
    inner = [
        tensor
        for path in weight_files(directory)
        for tensor in read_tensors_of(path)
        if ".layers." in tensor.name or ".h." in tensor.name
    ]
    numbers = {word for tensor in inner for word in tensor.name.split(".") if word.isdigit()}
    width = min((min(tensor.shape) for tensor in inner), default=0)
    told = read_json(directory / "config.json").get("hidden_size", width)
    return Shape(weights=sum(tensor.weights for tensor in inner), layers=len(numbers), width=int(told))
