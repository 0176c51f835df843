"""`python -m benchmarks.gpu_fp8 [--out FILE] [--smollm2 DIR [--split DIR]]`: what 8 bits change beside bfloat16.

On Mistral-7B's shape with random weights: the losses of 50 steps, and the gradients of each layer. A training in
bfloat16 that cuts its steps otherwise says what rounding alone does. With SmolLM2 itself (`--smollm2`): trainings on
two overlapping classes of six numbers, or on the events of a split (`--split`), by the same seeds, and the AUC of
both on the same held-out prompts. Writes results/gpu_fp8.json and prints a line a figure.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks import gpu_models
from benchmarks.gpu import RESULTS, versions
from lhcq.config import TrainConfig
from lhcq.evaluate.comparison import auc_difference
from lhcq.evaluate.metrics import placements
from lhcq.model import passes
from lhcq.model.adapter import attach_lora, reset_adapter
from lhcq.model.base import Base, load_base
from lhcq.model.loop import train_segment
from lhcq.model.passes import PassSize
from lhcq.model.score import score_attached
from lhcq.model.steps import StepData, accumulate

STEPS = 50
LARGE = TrainConfig(learning_rate=2e-4, batch_size=32, dropout=0.0, epochs=1.0)
SMALL = TrainConfig(learning_rate=1e-3, batch_size=512, dropout=0.0, epochs=1.0)
TRAINED, HELD_OUT, SEEDS = 100_000, 100_000, (1, 2, 3)


def classes(n: int, seed: int) -> tuple[list[str], Any]:
    """Prompts of six numbers, of which two differ by the class and two tell together, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    x = rng.normal(size=(n, 6))
    x[:, :2] += 1.2 * labels[:, None]
    x[:, 3] += np.where(labels == 1, 0.9, -0.9) * np.tanh(x[:, 2])
    whole = np.clip(np.rint(500 + 120 * x), 0, 999).astype(int)
    return [" ".join(map(str, row)) + ":" for row in whole.tolist()], labels


def trajectory(base: Base, prompts: list[str], labels: Any, config: TrainConfig) -> list[float]:
    """The losses of the first steps."""
    losses: list[float] = []
    train_segment(
        base,
        prompts=prompts,
        labels=labels,
        config=config,
        checkpoint=None,
        until_step=STEPS,
        on_step=lambda record: losses.append(record.loss) or True,  # type: ignore[func-returns-value]
    )
    return losses


def layer_gradients(base: Base, prompts: list[str], labels: Any, config: TrainConfig, rows: int) -> Any:
    """The gradients of one step, by layer; A and B are drawn, so that both have one."""
    adapter = attach_lora(base, config)
    reset_adapter(adapter, 1)
    noise = torch.randn(adapter.flat.shape, generator=torch.Generator().manual_seed(1))
    adapter.flat.data += 0.01 * noise.to(base.device)
    base.peft.train()
    passes.set_checkpointing(base, on=False)
    size = PassSize(rows=rows)
    data = StepData(base=base, prompts=prompts, labels=labels, config=config)
    accumulate(base, adapter, data.step(1, size), size)
    layers: dict[str, list[torch.Tensor]] = {}
    at = 0
    for name, weight in adapter.weights.items():
        gradient = adapter.flat.grad[at : at + weight.numel()]
        layers.setdefault(name.split(".layers.")[1].split(".")[0], []).append(gradient.clone())
        at += weight.numel()
    return {int(layer): torch.cat(parts) for layer, parts in layers.items()}


def cosines(one: Any, other: Any) -> list[float]:
    """Of each layer's gradients."""
    cosine = torch.nn.functional.cosine_similarity
    return [float(cosine(one[layer], other[layer], dim=0)) for layer in sorted(one)]


def mistral(directory: Path) -> dict[str, Any]:
    """Losses and gradients at the size of 7B."""
    gpu_models.write_random_model(gpu_models.MISTRAL_7B, directory, tokenizer=None)
    base = load_base(directory)
    prompts = gpu_models.diary_prompts(STEPS * LARGE.batch_size)
    labels = np.arange(len(prompts)) % 2
    packed = LARGE.model_copy(update={"compute": "fp8"})
    gradients = {
        "bf16": layer_gradients(base, prompts, labels, LARGE, 32),
        "bf16, cut otherwise": layer_gradients(base, prompts, labels, LARGE, 11),
        "fp8": layer_gradients(base, prompts, labels, packed, 32),
    }
    losses = {
        "bf16": trajectory(base, prompts, labels, LARGE),
        "fp8": trajectory(base, prompts, labels, packed),
    }
    busy, passes.BUSY_TOKENS = passes.BUSY_TOKENS, 2048
    losses["bf16, cut otherwise"] = trajectory(base, prompts, labels, LARGE)
    passes.BUSY_TOKENS = busy
    result: dict[str, Any] = {"losses": losses, "cosine_by_layer": {}}
    for name in ("bf16, cut otherwise", "fp8"):
        found = cosines(gradients[name], gradients["bf16"])
        result["cosine_by_layer"][name] = found
        print(
            f"gpu_fp8: cosine of {name} to bf16: {min(found):.4f} at least, {np.mean(found):.4f} on average"
        )
        late = [float(np.mean(losses[one][-10:])) for one in (name, "bf16")]
        print(f"gpu_fp8: loss of the last ten steps, {name}: {late[0]:.4f}, bf16 {late[1]:.4f}", flush=True)
    return result


def part_of(split: Path, name: str) -> tuple[list[str], Any]:
    """Prompts and labels of one part of a split."""
    table = pq.read_table(split / f"{name}.parquet", columns=["prompt", "label"])
    return table["prompt"].to_pylist(), table["label"].to_numpy().astype(np.int64)


def smollm2(directory: Path, split: Path | None) -> dict[str, Any]:
    """AUC by the same seeds either way, on events where there is a `split` of them."""
    base = load_base(directory)
    held, truth = classes(HELD_OUT, 99) if split is None else part_of(split, "test")
    found = []
    for seed in SEEDS:
        prompts, labels = classes(TRAINED, seed) if split is None else part_of(split, "train")
        scores = {}
        for compute in ("bf16", "fp8"):
            config = SMALL.model_copy(update={"compute": compute, "seed": seed})
            steps = -(-len(prompts) // config.batch_size)
            train_segment(
                base, prompts=prompts, labels=labels, config=config, checkpoint=None, until_step=steps,
                on_step=lambda record: True,
            )  # fmt: skip
            scores[compute] = score_attached(base, held, config.max_tokens, batch_size=32).p_signal
        difference = auc_difference(truth, scores["fp8"], scores["bf16"])
        assert difference is not None
        aucs = {name: float(placements(truth, score)[0].mean()) for name, score in scores.items()}
        found.append({"seed": seed, **aucs, "fp8 less bf16": difference.model_dump()})
        print(f"gpu_fp8: SmolLM2, {found[-1]}", flush=True)
    what = "made-up classes" if split is None else split.name
    return {"prompts": what, "trained": len(prompts), "held_out": len(held), "auc": found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_fp8.json")
    parser.add_argument("--smollm2", type=Path, help="The directory of SmolLM2-135M itself.")
    parser.add_argument("--split", type=Path, help="A split of events, in place of made-up classes.")
    parser.add_argument("--only", choices=["smollm2"], help="That alone; prints, stores nothing.")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_fp8: no CUDA GPU is visible here: nothing to measure.", file=sys.stderr)
        return 1
    result: dict[str, Any] = {"machine": {"device": torch.cuda.get_device_name()}, "versions": versions()}
    if chosen.smollm2 is not None:
        result["smollm2"] = smollm2(chosen.smollm2, chosen.split)
    if chosen.only:
        print(json.dumps(result))
        return 0
    with tempfile.TemporaryDirectory() as place:
        result["mistral"] = mistral(Path(place) / "7B")
    chosen.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
