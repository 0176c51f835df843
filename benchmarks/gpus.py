"""`python -m benchmarks.gpus [--out FILE] [--smollm2 DIR]`: training on all GPUs of this host, against one of them.

As in `benchmarks.gpu`, weights are random. The steps are the same ones, cut among the GPUs. Writes results/gpus.json
and prints a line a row. Needs about 30 GB on disk for a while (TMPDIR).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks import gpu_models
from benchmarks.gpu import ALL_LINEAR, RESULTS, SMALL, Table, Trained, versions
from lhcq.config import TrainConfig
from lhcq.model.base import load_base
from lhcq.model.ranks import dismiss_ranks

LARGE = SMALL.model_copy(update={"batch_size": 4096})


def against_one(
    table: Table, directory: Path, prompts: list[str], trainings: dict[str, TrainConfig], steps: int
) -> None:
    """Each training on one GPU and on all of them: the same steps, and what each made of them."""
    count = torch.cuda.device_count()
    base = load_base(directory)
    for name, given in trainings.items():
        # Each GPU drops other places: with dropout the losses would differ by more than rounding.
        config = given.model_copy(update={"dropout": 0.0})
        with table.section(name):
            alone = Trained(base, prompts, config, steps=steps)
            table.add(f"{name}: on one GPU", alone.per_second, "samples/s", **alone.facts)
            together = Trained(base, prompts, config, steps=steps, ranks=count)
            table.add(f"{name}: on {count} GPUs", together.per_second, "samples/s", **together.facts)
            table.add(f"{name}: {count} GPUs over one", together.per_second / alone.per_second, "x")
            both = list(zip(together.records, alone.records, strict=True))
            apart = max(abs(one.loss - two.loss) / two.loss for one, two in both)
            same = all(one.tokens == two.tokens for one, two in both)
            table.add(f"{name}: largest difference of a step's loss", apart, "of it", same_tokens=same)
    dismiss_ranks()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "gpus.json")
    parser.add_argument("--smollm2", type=Path, help="A directory with SmolLM2's tokenizer.")
    chosen = parser.parse_args()
    count = torch.cuda.device_count()
    if count < 2:
        print("gpus: fewer than two CUDA GPUs are visible here: nothing to compare.", file=sys.stderr)
        return 1
    table = Table()
    with tempfile.TemporaryDirectory() as place:
        small, large = Path(place) / "135M", Path(place) / "7B"
        gpu_models.write_random_model(gpu_models.SMOLLM2_135M, small, tokenizer=chosen.smollm2)
        trainings = {"135M compact, batch 1,024": SMALL, "135M compact, batch 4,096": LARGE}
        against_one(table, small, gpu_models.compact_prompts(20_000), trainings, steps=12)
        store(chosen.out, table)
        gpu_models.write_random_model(gpu_models.MISTRAL_7B, large, tokenizer=None)
        prompts = gpu_models.diary_prompts(2000)
        against_one(table, large, prompts, {"7B diary, all linear, batch 128": ALL_LINEAR}, steps=4)
        store(chosen.out, table)
    return int(any(row["holds"] is False for row in table.rows))


def store(out: Path, table: Table) -> None:
    """Write what was measured so far."""
    devices = [torch.cuda.get_device_name(one) for one in range(torch.cuda.device_count())]
    result = {
        "machine": {"devices": devices},
        "versions": versions() | {"nccl": ".".join(map(str, torch.cuda.nccl.version()))},
        "weights": "random",
        "rows": table.rows,
    }
    out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
