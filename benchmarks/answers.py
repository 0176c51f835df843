"""`python -m benchmarks.answers --stage few|wide|mistral|table`: what it costs to learn to answer in words.

Each training is done twice, with the loss over the two labels alone and with the term of answers (`answer_weight`),
the same in everything else; the differences are paired. The stages, each leaving what stands already:
  few      five seeds of the default training on a split of few events, `--split` (a directory of `lhcq prepare`)
  wide     the row `wide-fine` of the quality benchmark, on its events (`python -m benchmarks.quality --stage data`)
  mistral  steps of a model of Mistral-7B's size within 8 GiB; wants a GPU, as `wide` does
  table    writes results/answers.json and the table of docs/results.md
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from benchmarks.events import cache_directory
from benchmarks.quality_table import auc_difference
from benchmarks.quality_train import train_whole
from benchmarks.rows import Row, circumstances, markdown, put_table, row, say, write_result
from lhcq.config import ANSWER_WEIGHT, TRAIN_PRESETS, TrainConfig
from lhcq.evaluate.metrics import Z95, metrics_of
from lhcq.model.base import Base, load_base
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.score import Scores, score_prompts
from lhcq.model.sources import obtain
from lhcq.records.metrics import Metrics
from lhcq.storage import read_json, write_json
from lhcq.workspace import Workspace

STAGES = ("few", "wide", "mistral")
MADE_BY = "python -m benchmarks.answers --stage table"
LOSSES = {"choice": 0.0, "words": ANSWER_WEIGHT}
SEEDS = range(1, 6)
WEIGHTS = (0.001, 0.003, 0.01, ANSWER_WEIGHT, 0.1)


@dataclass(frozen=True)
class Subset:
    """Prompts and label bits of some events."""

    prompts: list[str]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Trained:
    """One training, and what it says of events that it has not seen."""

    scores: Scores
    per_second: float
    """Samples, from the end of the first step to that of the last, whatever was recorded between."""
    step_seconds: float
    """Median."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", choices=(*STAGES, "table"), action="append", help="Default: all of them.")
    parser.add_argument("--place", type=Path, help="Directory of the quality benchmark.")
    parser.add_argument("--split", type=Path, help="Directory of a split of few events.")
    parser.add_argument("--seed", type=int, default=1, help="Of the stage `wide`.")
    parser.add_argument("--model", default="smollm2", help="As `lhcq train` takes it.")
    chosen = parser.parse_args()
    place = Workspace(chosen.place or cache_directory() / "quality")
    measure: dict[str, Callable[[], list[Row]]] = {
        "few": lambda: few(chosen.split, obtain(chosen.model, place, say=say)),
        "wide": lambda: wide(place, obtain(chosen.model, place, say=say), chosen.seed),
        "mistral": mistral,
    }
    kept = place.root / "answers"
    for stage in chosen.stage or (*STAGES, "table"):
        if stage == "table":
            # Each stage with its own machine: they may have been run apart.
            found = {name: read_json(kept / f"{name}.json") for name in STAGES}
            write_result("answers", found)
            put_table("answers", lines_of(found), MADE_BY)
        elif not (kept / f"{stage}.json").exists():
            kept.mkdir(parents=True, exist_ok=True)
            write_json(kept / f"{stage}.json", {**circumstances(), "rows": measure[stage]()})
    return 0


def lines_of(found: dict[str, Any]) -> list[str]:
    """The table of the document, of all stages."""
    return markdown([one for stage in STAGES for one in found[stage]["rows"]])


def few(split: Path, model: Path) -> list[Row]:
    """The default training on few events, five times; and with other weights, of which it is one."""
    train, test = (_read_subset(split / f"{name}.parquet") for name in ("train", "test"))
    base = load_base(model)
    facts = {"events": f"{len(train.labels):,} to train on, {len(test.labels):,} to test on", **_device()}
    shifts: dict[float, list[float]] = {}
    words: dict[float, list[Metrics]] = {}
    for seed in SEEDS:
        config = TRAIN_PRESETS["default"].model_copy(update={"learning_rate": 1e-3, "seed": seed})
        choice = _train(base, config, 0.0, train, test).scores
        for weight in WEIGHTS:
            scores = _train(base, config, weight, train, test).scores
            shift, *_ = auc_difference(test.labels, scores.p_signal, choice.p_signal)
            shifts.setdefault(weight, []).append(shift)
            words.setdefault(weight, []).append(metrics_of(test.labels, scores.p_signal, scores.answers))
            one = words[weight][-1]
            say(
                f"few: seed {seed}, weight {weight}: AUC {shift:+.5f}, {one.unknown} unknown, "
                f"{one.agreement} the likelier label"
            )
    return [
        *(_scanned(weight, shifts[weight], words[weight], facts) for weight in WEIGHTS),
        row(
            "few events: generated answers that are neither label, of all seeds",
            sum(one.unknown or 0 for one in words[ANSWER_WEIGHT]),
            "answers",
            at_most=0.0,
            n=sum(one.n for one in words[ANSWER_WEIGHT]),
        ),
        row(
            "few events: generated accuracy apart from that of the choice, farthest seed",
            max(
                round(abs((one.generated_accuracy or 0.0) - one.accuracy) * one.n)
                for one in words[ANSWER_WEIGHT]
            ),
            "events",
            at_most=1.0,
        ),
    ]


def _scanned(weight: float, shifts: list[float], words: list[Metrics], facts: Row) -> Row:
    mean, error = statistics.fmean(shifts), statistics.stdev(shifts) / len(shifts) ** 0.5
    return row(
        f"few events, weight {weight:g}: AUC with words less that without, mean of {len(shifts)} seeds",
        mean,
        "",
        at_least=-0.002 if weight == ANSWER_WEIGHT else None,
        low=mean - Z95 * error,
        high=mean + Z95 * error,
        seeds=shifts,
        unknown=[one.unknown for one in words],
        **facts,
    )


def wide(place: Workspace, model: Path, seed: int) -> list[Row]:
    """A row of the quality benchmark's table, on its events."""
    from benchmarks.quality_train import Events
    from benchmarks.quality_variants import VARIANTS

    variant = VARIANTS["wide-fine"]
    assert variant.write is not None
    events = {subset: Events(place, variant, subset) for subset in ("train", "test")}
    train, test = (
        Subset(variant.write(one.features, events["train"].features), one.labels) for one in events.values()
    )
    base = load_base(model)
    config = variant.config.model_copy(update={"seed": seed})
    done = {loss: _train(base, config, weight, train, test) for loss, weight in LOSSES.items()}
    words, choice = done["words"], done["choice"]
    shift, low, high = auc_difference(test.labels, words.scores.p_signal, choice.scores.p_signal)
    metrics = {
        loss: metrics_of(test.labels, one.scores.p_signal, one.scores.answers) for loss, one in done.items()
    }
    facts = {
        "events": f"{len(train.labels):,} to train on, {len(test.labels):,} to test on",
        **_device(),
        "metrics": {loss: one.model_dump() for loss, one in metrics.items()},
    }
    n = len(test.labels)
    return [
        # It holds where the interval includes 0 or lies above.
        row("`wide`: AUC with words less that without", shift, "", low=low, high=high, **facts),
        row("`wide`: upper end of its interval", high, "", at_least=0.0),
        row(
            "`wide`: answers that are neither label",
            (metrics["words"].unknown or 0) / n,
            "of all",
            at_most=1e-4,
            n=n,
        ),
        row("`wide`: answers that are the likelier label", metrics["words"].agreement or 0.0, "of all"),
        row(
            "`wide`: training speed with words over that without",
            words.per_second / choice.per_second,
            "x",
            at_least=0.97,
            samples_per_second={loss: one.per_second for loss, one in done.items()},
            of_median_steps=choice.step_seconds / words.step_seconds,
        ),
    ]


def mistral() -> list[Row]:
    """Steps of a model of 7B within 8 GiB."""
    from benchmarks import gpu, gpu_models

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        gpu_models.write_random_model(gpu_models.MISTRAL_7B, Path(directory) / "model", tokenizer=None)
        torch.cuda.set_per_process_memory_fraction(gpu.CAP / torch.cuda.mem_get_info()[1])
        base = load_base(Path(directory) / "model")
    prompts = gpu_models.diary_prompts(4000)
    for loss in (*LOSSES, *LOSSES):  # twice, in turns
        config = gpu.ALL_LINEAR.model_copy(
            update={"max_memory": gpu.CAP, "dropout": 0.0, "answer_weight": LOSSES[loss]}
        )
        # Of eight steps two learn the end as well.
        one = gpu.Trained(base, prompts, config, steps=8)
        found.setdefault(loss, []).append(one.mean_per_second)
        found[f"{loss} gib"] = one.facts["peak_gib"]
        say(f"mistral: {loss}: {one.mean_per_second:.2f} samples/s, {one.facts}")
        one.state.current_adapter().graphs.clear()
        del one
        gc.collect()
    ratios = [words / choice for words, choice in zip(found["words"], found["choice"], strict=True)]
    return [
        row(
            "Mistral-7B's shape within 8 GiB: samples/s with words over those without",
            ratios,
            "x",
            at_least=0.97,
            samples_per_second={loss: found[loss] for loss in LOSSES},
            **_device(),
        ),
        row(
            "Mistral-7B's shape within 8 GiB: memory with words less that without",
            found["words gib"] - found["choice gib"],
            "GiB",
            at_most=0.3,
            peak_gib={loss: found[f"{loss} gib"] for loss in LOSSES},
        ),
    ]


def _train(base: Base, config: TrainConfig, weight: float, train: Subset, test: Subset) -> Trained:
    """Trained with this weight of answers, and scored."""
    config = config.model_copy(update={"answer_weight": weight})
    ended: list[float] = []
    state = train_whole(
        base, config, train.prompts, train.labels, lambda _: ended.append(time.perf_counter())
    )
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = Path(directory) / f"{state.step:08d}"
        write_checkpoint(checkpoint, state, config_hash="benchmark")
        base.adapter.graphs.clear()  # their memory is wanted for scoring
        scores = score_prompts(
            base, checkpoint=checkpoint, config=config, prompts=test.prompts, batch_size=32
        )
    rows = config.batch_size * config.accumulation
    return Trained(
        scores=scores,
        per_second=rows * (len(ended) - 2) / (ended[-2] - ended[0]),  # the last step may be short
        step_seconds=float(np.median(np.diff(ended[:-1]))),
    )


def _read_subset(path: Path) -> Subset:
    table = pq.read_table(path, columns=["prompt", "label"])
    return Subset(table["prompt"].to_pylist(), table["label"].to_numpy().astype(np.int64))


def _device() -> dict[str, str]:
    return {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}


if __name__ == "__main__":
    raise SystemExit(main())
