"""`python -m benchmarks.gpu_profile [--out FILE]`: where the time of a 7B training step goes on one NVIDIA GPU.

As in `benchmarks.gpu`, weights are random. The kernels of a few steps as torch's profiler sees them, by what they do:
what keeps a step from being all matrix products. Writes results/gpu_profile.json and prints a line a kind.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import gpu_models
from benchmarks.gpu import RESULTS, STUDY, WARM_UP, Trained, versions
from lhcq.model.base import load_base
from lhcq.model.loop import StepRecord

STEPS = 3
# The first that matches says what a kernel does.
KINDS = {
    "unpacking NF4": "dequantize|kDequant",
    "attention": "flash|fmha|attention|sdpa|softmax|dot_do_o|convert_dq",
    "matrix products": "gemm|cutlass|nvjet|cublas|matmul|splitk",
    "copies": "memcpy|memset|copy",
    "the rest (norms, activations, rotary, dropout, sums)": "",
}
SHOWN = 25


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_profile.json")
    parser.add_argument("--model", type=Path, help="A directory with a 7B model, in place of a random one.")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_profile: no CUDA GPU is visible here: nothing to measure.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as place:
        directory = chosen.model
        if directory is None:
            directory = Path(place) / "7B"
            gpu_models.write_random_model(gpu_models.MISTRAL_7B, directory, tokenizer=None)
        result = kinds_of(*profiled(directory))
    result |= {"machine": {"device": torch.cuda.get_device_name()}, "versions": versions()}
    chosen.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    for kind, share in result["shares"].items():
        print(f"gpu_profile: {kind:<55} {share:6.1%}")
    print(f"gpu_profile: {'the GPU is busy':<55} {result['busy']:6.1%}")
    return 0


def profiled(directory: Path) -> tuple[dict[str, float], float]:
    """Seconds by kernel over a few steps, and how long those took."""
    base, prompts = load_base(directory), gpu_models.diary_prompts(1000)
    watch = profile(activities=[ProfilerActivity.CUDA])
    times: list[float] = []

    def on_step(record: StepRecord) -> None:
        torch.cuda.synchronize()
        if record.step == WARM_UP:
            watch.start()
        if record.step in (WARM_UP, WARM_UP + STEPS):
            times.append(time.perf_counter())
        if record.step == WARM_UP + STEPS:
            watch.stop()

    Trained(base, prompts, STUDY, steps=STEPS, watch=on_step)
    kernels: dict[str, float] = {}
    for event in watch.key_averages():
        kernels[event.key] = kernels.get(event.key, 0.0) + event.self_device_time_total / 1e6
    return kernels, times[1] - times[0]


def kinds_of(kernels: dict[str, float], seconds: float) -> dict[str, Any]:
    """The shares of the kernels' time by kind, the share of time that any runs, and the longest."""
    by_kind = dict.fromkeys(KINDS, 0.0)
    for name, spent in kernels.items():
        kind = next(kind for kind, pattern in KINDS.items() if re.search(pattern, name, re.IGNORECASE))
        by_kind[kind] += spent
    total = sum(kernels.values())
    longest = sorted(kernels.items(), key=lambda one: -one[1])[:SHOWN]
    return {
        "what": "7B diary, q and v, batch 128: the step of `model FLOP utilisation` in gpu.json",
        "shares": {kind: spent / total for kind, spent in by_kind.items()},
        "busy": total / seconds,
        "seconds_a_step": seconds / STEPS,
        "kernels": {name[:160]: spent / total for name, spent in longest},
    }


if __name__ == "__main__":
    sys.exit(main())
