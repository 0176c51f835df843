"""How long a training or a scoring will take, before it starts: to a factor of two or so, and without torch.

Time is taken for that of the products with the model's matrices, at the share of a processor's own rate that such a
loop reaches, and on a GPU for the time that starting its kernels takes at least.
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

_FORWARD, _BACKWARD = 2, 2
"""Operations a weight and token: one product and one sum. No gradient of the base's own weights is taken."""
_RECOMPUTED = 2
"""Of a pass whose activations are made twice, which saves the memory that keeps them."""

# Products a second in bfloat16, dense, by NVIDIA's data sheets, in 1e12; by the name that nvidia-smi gives.
_GPU_RATES = {
    "B200": 2250, "H200": 989, "H100 NVL": 835, "H100 PCIe": 756, "H100": 989, "A100": 312, "A800": 312, "L40S": 362,
    "L40": 181, "L4": 121, "A40": 150, "A30": 165, "A10": 125, "RTX 6000 Ada": 364, "RTX A6000": 155,
    "RTX 5090": 210, "RTX 4090": 165, "RTX 4080": 97, "RTX 3090": 71, "RTX 3080": 60, "RTX 3060": 26,
}  # fmt: skip
_GPU_SHARE = 0.45
"""What a 7B model reaches of that on an H100 (benchmarks/results/gpu.json: 91 prompts of 177 tokens a second)."""
_SECONDS_PER_LAYER = 4e-4
"""A step takes at least so long a layer on a GPU (there: 135M, batch 8, 13 ms for 30 layers)."""
_CPU_SHARE = 0.5
"""What SmolLM2 reaches on two cores of what numpy's product of matrices does."""
_PROBE_SECONDS = 0.2
_PROBE_SIZE = 256


class Pace(NamedTuple):
    """How fast a processor trains."""

    products: float
    """Operations a second that a training reaches."""
    least: float
    """Seconds that a layer takes at least in a step."""
    recomputes: bool
    """Whether activations are made twice."""


@functools.cache
def pace_here() -> Pace | None:
    """How fast what a training here would run on is; None for a GPU whose data sheet is not known here."""
    gpus = gpus_here()
    if not gpus:
        return Pace(_CPU_SHARE * _measured_rate(), 0.0, recomputes=True)
    name = min(gpus, key=lambda gpu: gpu.total).name
    found = next((rate for known, rate in _GPU_RATES.items() if known in name), None)
    if found is None or not all(gpu.bfloat16 for gpu in gpus):
        return None
    return Pace(_GPU_SHARE * found * 1e12 * len(gpus), _SECONDS_PER_LAYER, recomputes=False)


def _measured_rate() -> float:
    """Operations a second of products of matrices in float32, on all cores that this process may use.

    By the fastest of some small ones on one core, since others may be at work on the machine just now.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    matrix = np.ones((_PROBE_SIZE, _PROBE_SIZE), np.float32)
    began, fastest = time.perf_counter(), math.inf
    with threadpool_limits(1):
        while (started := time.perf_counter()) - began < _PROBE_SECONDS:
            np.dot(matrix, matrix)
            fastest = min(fastest, time.perf_counter() - started)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores * 2 * _PROBE_SIZE**3 / fastest


def step_seconds(directory: Path, config: TrainConfig, tokens: float, pace: Pace) -> float:
    """Seconds of an optimizer step of the model in `directory` on prompts of `tokens` tokens."""
    weights, layers = _shape(directory)
    operations = _FORWARD + _BACKWARD + (_RECOMPUTED if pace.recomputes else 0)
    n_tokens = config.batch_size * config.accumulation * tokens
    return max(operations * weights * n_tokens / pace.products, layers * pace.least * config.accumulation)


def scoring_seconds(directory: Path, n_prompts: int, tokens: float, pace: Pace) -> float:
    """Seconds of scoring prompts of `tokens` tokens with the model in `directory`."""
    weights, _ = _shape(directory)
    return _FORWARD * weights * n_prompts * tokens / pace.products


def _shape(directory: Path) -> tuple[int, int]:
    """Weights of a model's layers, without the tables before and after them, and how many layers there are."""
    inner = [
        tensor
        for path in weight_files(directory)
        for tensor in read_tensors_of(path)
        if ".layers." in tensor.name or ".h." in tensor.name
    ]
    numbers = {word for tensor in inner for word in tensor.name.split(".") if word.isdigit()}
    return sum(tensor.weights for tensor in inner), len(numbers)
