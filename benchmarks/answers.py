"""`python -m benchmarks.answers --stage few|wide|mistral|table`: what it costs to learn to answer in words.

Each training is done twice, with the loss over the two labels alone and with the term of answers (`answer_weight`),
the same in everything else; the differences are paired. The stages, each leaving what stands already:
  few      five seeds of the default training on a split of few events, `--split` (a directory of `lhcq prepare`)
  wide     the row `wide-fine` of the quality benchmark, on its events (`python -m benchmarks.quality --stage data`),
           with `--seeds` seeds, each of which is kept as it ends
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
from benchmarks.rows import Row, circumstances, markdown, put_table, row, say, write_result
from lhcq.config import ANSWER_WEIGHT, TRAIN_PRESETS, TrainConfig
from lhcq.evaluate.metrics import Z95, metrics_of
from lhcq.model.base import Base, load_base
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.loop import StepRecord, train_whole
from lhcq.model.plan import plan_run, recommended_answer_weight
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
    parser.add_argument("--seeds", type=int, default=3, help="Of the stage `wide`.")
    parser.add_argument("--model", default="smollm2", help="As `lhcq train` takes it.")
    chosen = parser.parse_args()
    place = Workspace(chosen.place or cache_directory() / "quality")
    measure: dict[str, Callable[[], list[Row]]] = {
        "few": lambda: few(chosen.split, obtain(chosen.model, place, say=say)),
        "wide": lambda: wide(place, obtain(chosen.model, place, say=say), chosen.seeds),
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


def wide(place: Workspace, model: Path, seeds: int) -> list[Row]:
    """A row of the quality benchmark's table, on its events, of some seeds."""
    from benchmarks.quality_train import Events
    from benchmarks.quality_variants import VARIANTS

    variant = VARIANTS["wide-fine"]
    assert variant.write is not None
    events = {subset: Events(place, variant, subset) for subset in ("train", "test")}
    train, test = (
        Subset(variant.write(one.features, events["train"].features), one.labels) for one in events.values()
    )
    base = load_base(model)
    found = []
    for seed in range(1, seeds + 1):
        kept = place.root / "answers" / f"wide-{seed}.json"
        if not kept.exists():
            config = variant.config.model_copy(update={"seed": seed})
            write_json(kept, _one_seed(base, config, train, test))
        found.append(read_json(kept))
        say(f"wide: seed {seed}: AUC {found[-1]['shift']:+.5f}, {found[-1]['samples_per_second']}")
    facts = {"events": f"{len(train.labels):,} to train on, {len(test.labels):,} to test on", **_device()}
    return wide_rows(found, len(test.labels), _weight_of(variant.config, train), facts)


def wide_rows(found: list[dict[str, Any]], n_test: int, weight: float, facts: Row) -> list[Row]:
    """What the seeds amount to. The interval of the mean shift has the scatter of the seeds, where there are several,
    and the choice of test events, which they share."""
    shifts = [one["shift"] for one in found]
    mean, scatter = statistics.fmean(shifts), statistics.stdev(shifts) if len(shifts) > 1 else 0.0
    sampling = statistics.fmean(one["error"] for one in found)
    half = Z95 * (scatter**2 / len(shifts) + sampling**2) ** 0.5
    words = [one["metrics"]["words"] for one in found]
    seconds = {
        loss: statistics.fmean(1 / one["samples_per_second"][loss] for one in found) for loss in LOSSES
    }
    steps = {loss: statistics.fmean(one["step_seconds"][loss] for one in found) for loss in LOSSES}
    aucs = {loss: [one["metrics"][loss]["auc"] for one in found] for loss in LOSSES}
    return [
        # It holds where the interval includes 0 or lies above.
        row(
            f"`wide`, weight {weight:g}: AUC with words less that without, mean of {len(shifts)} seeds",
            mean,
            "",
            low=mean - half,
            high=mean + half,
            seeds=shifts,
            auc=aucs,
            metrics=[one["metrics"] for one in found],
            **facts,
        ),
        row("`wide`: upper end of its interval", mean + half, "", at_least=0.0),
        row(
            "`wide`: farthest seeds of the loss without words apart, AUC",
            max(aucs["choice"]) - min(aucs["choice"]),
            "",
        ),
        row(
            "`wide`: answers that are neither label",
            sum(one["unknown"] or 0 for one in words) / (n_test * len(words)),
            "of all",
            at_most=1e-4,
            n=n_test * len(words),
        ),
        row(
            "`wide`: answers that are the likelier label",
            statistics.fmean(one["agreement"] or 0.0 for one in words),
            "of all",
        ),
        row(
            "`wide`: training speed with words over that without",
            seconds["choice"] / seconds["words"],
            "x",
            at_least=0.97,
            seeds=[one["samples_per_second"]["words"] / one["samples_per_second"]["choice"] for one in found],
            of_median_steps=steps["choice"] / steps["words"],
        ),
    ]


def _one_seed(base: Base, config: TrainConfig, train: Subset, test: Subset) -> dict[str, Any]:
    """Both trainings with one seed, and their paired difference. Which comes first alternates."""
    order = list(LOSSES)[:: 1 if config.seed % 2 else -1]
    weights = {"choice": 0.0, "words": _weight_of(config, train)}
    done = {loss: _train(base, config, weights[loss], train, test) for loss in order}
    words, choice = done["words"], done["choice"]
    shift, low, high = auc_difference(test.labels, words.scores.p_signal, choice.scores.p_signal)
    return {
        "shift": shift,
        "error": (high - low) / (2 * Z95),
        "metrics": {
            loss: metrics_of(test.labels, one.scores.p_signal, one.scores.answers).model_dump()
            for loss, one in done.items()
        },
        "samples_per_second": {loss: one.per_second for loss, one in done.items()},
        "step_seconds": {loss: one.step_seconds for loss, one in done.items()},
    }


def _weight_of(config: TrainConfig, train: Subset) -> float:
    """What `lhcq train` takes."""
    return recommended_answer_weight(plan_run(len(train.labels), config).total_steps)


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

    def on_step(_: StepRecord) -> bool:
        ended.append(time.perf_counter())
        return True

    state = train_whole(base, prompts=train.prompts, labels=train.labels, config=config, on_step=on_step)
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
