"""`python -m benchmarks.gpu [--out FILE] [--smollm2 DIR]`: training and scoring on one NVIDIA GPU.

Weights are random, of Mistral-7B's and of SmolLM2-135M's shape, since speed does not depend on them. Each ratio is of
two figures of this run. Writes results/gpu.json, prints a line a row, and says by the exit code whether all bounds
hold. Needs about 30 GB on disk for a while (TMPDIR), and 20 GB of GPU memory.
"""

import argparse
import contextlib
import gc
import importlib.metadata
import json
import math
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import gpu_models, gpu_reference
from lhcq.config import ANSWER_WEIGHT, TRAIN_PRESETS, TrainConfig
from lhcq.model.base import Base, load_base
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.loop import StepRecord, train_segment
from lhcq.model.score import score_prompts

RESULTS = Path(__file__).parent / "results"
VERSIONED = ("torch", "transformers", "peft", "bitsandbytes", "triton")
GIB = 1 << 30
CAP = 8 * GIB
IDLE = 2 * GIB
"""In use on a GPU that nothing else computes on: this process's own context, with room to spare."""
WARM_UP = 2
DENSE_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Peak FLOP/s by the vendor's datasheets, without sparsity."""

# The study's adapter, at a batch that fills a card; a batch of 16 is what it accumulated.
# All learn to answer in words too, as `lhcq train` has it.
STUDY = TRAIN_PRESETS["diary"].model_copy(update={"batch_size": 128, "accumulation": 1, "max_tokens": 512})
ALL_LINEAR = TrainConfig(learning_rate=2e-4, batch_size=128, answer_weight=ANSWER_WEIGHT)
ADAPTERS = {"q and v": STUDY, "all linear": ALL_LINEAR}
SMALL = TrainConfig(learning_rate=1e-3, batch_size=1024, answer_weight=ANSWER_WEIGHT)


class Table:
    """The rows of the result, as they come."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(
        self, figure: str, value: float | None, unit: str, bound: float | None = None, **facts: Any
    ) -> None:
        """`bound` is the least that is asked for; of seconds, the most."""
        holds = None
        if bound is not None:
            holds = value is not None and bool(value < bound if unit == "s" else value >= bound)
        self.rows.append(
            {
                "figure": figure,
                "value": None if value is None else float(value),
                "unit": unit,
                "bound": bound,
                "holds": holds,
                **facts,
            }
        )
        asked = "" if bound is None else f"  bound {bound:g}: {'holds' if holds else 'FALLS SHORT'}"
        shown = "none" if value is None else f"{value:10.3g}"
        print(f"gpu: {figure:<62} {shown} {unit}{asked}  {facts or ''}", flush=True)

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """A failure costs its section, in the open."""
        began = time.perf_counter()
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.add(name, None, "failed", 0.0, error=f"{type(error).__name__}: {error}"[:300])
        print(f"gpu: -- {name}: {time.perf_counter() - began:.0f} s", flush=True)
        gc.collect()
        torch.cuda.empty_cache()


class Trained:
    """A short training by lhcq's own loop and what it said."""

    def __init__(
        self,
        base: Base,
        prompts: list[str],
        config: TrainConfig,
        *,
        steps: int = 6,
        ranks: int = 1,
        watch: Callable[[StepRecord], None] | None = None,
    ) -> None:
        times: list[float] = []
        self.records: list[StepRecord] = []

        def on_step(record: StepRecord) -> bool:
            times.append(time.perf_counter())
            self.records.append(record)
            if watch:
                watch(record)
            return True

        window = config.batch_size * config.accumulation
        epochs = math.ceil((steps + WARM_UP) * window / len(prompts))
        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        self.state = train_segment(
            base,
            prompts=prompts,
            labels=np.arange(len(prompts)) % 2,
            config=config.model_copy(update={"epochs": float(epochs)}),
            checkpoint=None,
            until_step=steps + WARM_UP,
            on_step=on_step,
            ranks=ranks,
        )
        self.per_second = window / statistics.median(np.diff(times[WARM_UP - 1 :]))
        self.mean_per_second = window * steps / (times[-1] - times[WARM_UP - 1])
        self.facts = {
            "rows_in_a_pass": self.state.size.rows,
            "checkpointing": self.state.size.checkpointing,
            "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),
            "start_s": round(times[0] - began, 2),
        }


def mistral(table: Table, directory: Path) -> None:
    """Everything at the size of 7B."""
    tokenizer = gpu_models.write_random_model(gpu_models.MISTRAL_7B, directory, tokenizer=None)
    prompts = gpu_models.diary_prompts(2000)
    base = None
    with table.section("base of 7B"):
        torch.cuda.set_per_process_memory_fraction(CAP / torch.cuda.mem_get_info()[1])
        began = time.perf_counter()
        base = load_base(directory)
        table.add(
            "7B: loading the base under 8 GiB", time.perf_counter() - began, "load s", tokenizer=tokenizer
        )
    if base is None:
        return
    token_ids = base.encode(prompts[:200])
    tokens = float(np.mean([len(ids) for ids in token_ids]))
    capped = free = linear = compact = None
    with table.section("7B capped"):
        capped = Trained(base, prompts, STUDY.model_copy(update={"max_memory": CAP}), steps=3)
        table.add(
            "7B diary, q and v: training under 8 GiB",
            capped.per_second,
            "samples/s",
            tokens=tokens,
            **capped.facts,
        )
        linear = Trained(base, prompts, ALL_LINEAR.model_copy(update={"max_memory": CAP}), steps=3)
        table.add(
            "7B diary, all linear: training under 8 GiB", linear.per_second, "samples/s", **linear.facts
        )
        switch(
            table,
            base,
            prompts,
            "7B, 8 GiB",
            ALL_LINEAR.model_copy(update={"max_memory": CAP, "batch_size": 16}),
        )
    with table.section("7B free"):
        linear = Trained(base, prompts, ALL_LINEAR, steps=4)
        table.add("7B diary, all linear: training", linear.per_second, "samples/s", **linear.facts)
        compact = Trained(
            base, gpu_models.compact_prompts(4000), ALL_LINEAR.model_copy(update={"batch_size": 512})
        )
        table.add("7B compact, all linear: training", compact.per_second, "samples/s", **compact.facts)
        table.add(
            "7B: compact over diary, events/s in training", compact.per_second / linear.per_second, "x", 1.5
        )
        free = Trained(base, prompts, STUDY, steps=4)
        table.add("7B diary, q and v: training", free.per_second, "samples/s", tokens=tokens, **free.facts)
        utilisation(table, free.per_second, tokens)
    scored: dict[str, float] = {}
    with table.section("7B scoring"):
        for name, config in ADAPTERS.items():
            scored[name] = scoring(table, base, prompts, config, name)
    label = base.label_ids[0]
    del base, capped, free, linear, compact
    for name, config in ADAPTERS.items():
        with table.section(f"7B study, {name}"):
            against_the_study(table, directory, token_ids, label, scored[name], config, name)


def against_the_study(
    table: Table,
    directory: Path,
    token_ids: list[list[int]],
    label: int,
    scored: float,
    config: TrainConfig,
    name: str,
) -> None:
    """The study's ways with the same adapter, and lhcq's figures over them."""
    rows = {row["figure"]: row["value"] for row in table.rows}
    targets = ("q_proj", "v_proj") if config.target == "query-value" else gpu_models.ALL_LINEAR
    model = gpu_reference.load(
        directory, rank=config.rank, alpha=config.alpha, dropout=config.dropout, targets=targets
    )
    generated = gpu_reference.generate_scores(model, token_ids[:22])
    table.add(f"7B diary, {name}: generate of 3 tokens, one event at a time", generated, "events/s")
    table.add(f"7B, {name}: scoring over generate", scored / generated, "x", 38)
    torch.cuda.reset_peak_memory_stats()
    study = gpu_reference.study_training(gpu_reference.as_the_study(model), token_ids, label, steps=2)
    peak = round(torch.cuda.max_memory_allocated() / GIB, 2)
    table.add(f"7B diary, {name}: the study's loop", study, "samples/s", peak_gib=peak)
    for what, bound in (("", 28), (" under 8 GiB", 18)):
        ratio = rows.get(f"7B diary, {name}: training{what}", 0.0) / study
        table.add(f"7B, {name}: training{what} over the study's loop", ratio, "x", bound)


def switch(table: Table, base: Base, prompts: list[str], what: str, config: TrainConfig) -> None:
    """Training -> validation -> training with the base resident; the work itself is taken off."""
    from lhcq.model.checkpoint import verified_step

    with tempfile.TemporaryDirectory() as place:
        common = {"prompts": prompts, "labels": np.arange(len(prompts)) % 2, "config": config}
        state = train_segment(base, **common, checkpoint=None, until_step=2, on_step=lambda _: True)
        checkpoint = Path(place) / "00000002"
        began = time.perf_counter()
        write_checkpoint(checkpoint, state, config_hash="bench")
        score_prompts(base, checkpoint=checkpoint, config=config, prompts=prompts[:1], batch_size=1)
        table.add(f"{what}: from training to validation", time.perf_counter() - began, "s", 2)
        times: list[float] = []
        began = time.perf_counter()
        seen = lambda _: times.append(time.perf_counter()) or True  # noqa: E731
        train_segment(base, **common, checkpoint=checkpoint, until_step=4, on_step=seen)
        back = times[0] - began - (times[1] - times[0])
        table.add(f"{what}: from validation to training", back, "s", 2, step=verified_step(checkpoint))


def scoring(table: Table, base: Base, prompts: list[str], config: TrainConfig, name: str) -> float:
    """Events a second over 1,000 events, the swap of the adapter included."""
    with tempfile.TemporaryDirectory() as place:
        state = train_segment(
            base,
            prompts=prompts,
            labels=np.arange(len(prompts)) % 2,
            config=config,
            checkpoint=None,
            until_step=1,
            on_step=lambda _: True,
        )
        checkpoint = Path(place) / "00000001"
        write_checkpoint(checkpoint, state, config_hash="bench")
        seconds = []
        for _ in range(2):
            torch.cuda.synchronize()
            began = time.perf_counter()
            score_prompts(base, checkpoint=checkpoint, config=config, prompts=prompts[:1000], batch_size=32)
            seconds.append(time.perf_counter() - began)
    table.add(f"7B diary, {name}: scoring 1,000 events", seconds[1], "s", 8)
    return 1000 / seconds[1]


def utilisation(table: Table, per_second: float, tokens: float) -> None:
    """Model FLOPs: what a training with frozen weights must do, forward and towards the inputs."""
    shape: dict[str, Any] = gpu_models.MISTRAL_7B
    h, f, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    kv = shape["num_key_value_heads"] * shape["head_dim"]
    weights = layers * (2 * h * h + 2 * h * kv + 3 * h * f)
    attention = layers * 4 * h * (tokens / 2)
    flops = 2 * (2 * weights + attention) * tokens
    peak = next((peak for name, peak in DENSE_BF16.items() if name in torch.cuda.get_device_name()), None)
    matrix = measured_peak()
    facts = {
        "flop_per_sample": flops,
        "count": "2 passes (forward; backward to the inputs, weights are frozen) x (2 x layer weights + causal "
        "attention 4 x hidden x tokens/2 a layer) x tokens; LoRA, checkpointing, padding and unpacking not counted",
        "matrix_product_flops": matrix,
        "of_matrix_product": float(per_second) * flops / matrix,
    }
    table.add(
        "7B diary, q and v: model FLOP utilisation",
        per_second * flops / peak if peak else None,
        "of peak",
        **facts,
    )


def measured_peak() -> float:
    """FLOP/s of an 8192^3 matrix product in bfloat16."""
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(10):
        a @ b
    torch.cuda.synchronize()
    return 10 * 2 * 8192**3 / (time.perf_counter() - began)


def smollm2(table: Table, directory: Path, tokenizer: Path | None) -> None:
    """The small model, which is bound by kernel launches."""
    shape = gpu_models.SMOLLM2_135M
    said = gpu_models.write_random_model(shape, directory, tokenizer=tokenizer)
    prompts = gpu_models.compact_prompts(20000)
    ours = 0.0
    with table.section("SmolLM2"):
        base = load_base(directory)
        tokens = float(np.mean([len(ids) for ids in base.encode(prompts[:1000])]))
        trained = Trained(base, prompts, SMALL, steps=12)
        ours = trained.per_second
        table.add("135M compact: training", ours, "samples/s", tokens=tokens, tokenizer=said, **trained.facts)
        for rows in (8, 128):
            few = Trained(base, prompts, SMALL.model_copy(update={"batch_size": rows}), steps=20)
            table.add(f"135M compact: training, batch {rows}", few.per_second, "samples/s", **few.facts)
        switch(table, base, prompts, "135M", SMALL)
    with table.section("plain"):
        model = gpu_reference.load(
            directory, rank=SMALL.rank, alpha=SMALL.alpha, dropout=SMALL.dropout, targets=base.linear_names
        )
        plain = gpu_reference.plain_training(model, base.encode(prompts), base.label_ids, batch=1024, steps=8)
        table.add("135M compact: plain eager loop of batch 1,024", plain, "samples/s")
        table.add("135M: training over the plain loop", ours / plain, "x", 2.3)


def versions() -> dict[str, str | None]:
    """Of what a figure of this GPU depends on."""
    return {name: importlib.metadata.version(name) for name in VERSIONED} | {"cuda": torch.version.cuda}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--smollm2", type=Path, help="A directory with SmolLM2's tokenizer.")
    parser.add_argument("--only", choices=["7B", "135M"], help="One model alone; prints, stores nothing.")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu: no CUDA GPU is visible here: nothing to measure.", file=sys.stderr)
        return 1
    free, total = torch.cuda.mem_get_info()
    if total - free > IDLE:
        used = (total - free) / GIB
        print(
            f"gpu: something else uses this GPU ({used:.1f} GiB): every figure would be wrong.",
            file=sys.stderr,
        )
        return 1
    table = Table()
    parts: dict[str, Callable[[Path], None]] = {
        "135M": lambda place: smollm2(table, place / "135M", chosen.smollm2),
        "7B": lambda place: mistral(table, place / "7B"),
    }
    for name, measure in parts.items():
        if chosen.only in (None, name):
            with tempfile.TemporaryDirectory() as place, table.section(name):
                measure(Path(place))
    result = {
        "machine": {"device": torch.cuda.get_device_name(), "memory_gib": torch.cuda.mem_get_info()[1] / GIB},
        "versions": versions(),
        "weights": "random",
        "rows": table.rows,
    }
    if chosen.only is None:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    return int(any(row["holds"] is False for row in table.rows))


if __name__ == "__main__":
    sys.exit(main())
