"""The language model on prompts of particles: pretrained, and of random weights, by lhcq's own training.

Random weights are frozen and get a LoRA adapter as the pretrained ones do: the same budget, so that what differs is
what pretraining left in the weights.
"""

import dataclasses
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.particles_codings import prompts_of, prompts_of_all
from benchmarks.particles_data import (
    MORE_EVENTS,
    Subset,
    keep,
    make_split,
    read_events,
    read_prompts,
    row_path,
    scored_subsets,
    training_events,
)
from benchmarks.quality_variants import RECIPE_CONFIG
from benchmarks.rows import say
from lhcq.config import Frame, SplitConfig, TrainConfig
from lhcq.model.base import Base, load_base
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.loop import StepRecord, train_segment
from lhcq.model.plan import plan_run, recommended_answer_weight
from lhcq.model.score import score_prompts
from lhcq.model.sources import check_model_directory
from lhcq.records.run_state import committed_steps
from lhcq.records.subsets import read_subset
from lhcq.storage import read_json, sha256_of_json, staged_directory, write_json
from lhcq.workspace import Workspace

SEGMENTS = 4
"""Checkpoints of a training, at which it goes on where it was cut."""
SPEED_STEPS, SPEED_PROMPTS = 40, 20_000
"""Of the compact prompt, whose speed others are held to."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """One training."""

    what: str
    most: int = 10
    """Constituents of either jet; 0: the numbers alone."""
    numbers: Literal["wide", "all"] = "wide"
    frame: Frame = "principal-axis"
    coding: str = "letters"
    copies: int = 1
    more: bool = False
    """Whether of the events of `--more` too."""
    weights: Literal["pretrained", "random"] = "pretrained"
    config: TrainConfig = RECIPE_CONFIG

    @property
    def kind(self) -> str:
        """What is chosen among."""
        weights = "pretrained" if self.weights == "pretrained" else "of random weights"
        read = "particles" if self.most else "numbers alone"
        if self.numbers == "all":
            read = f"all numbers{' and particles' if self.most else ''}"
        return f"language model {weights}, {read}{MORE_EVENTS if self.more else ''}"


def _recipe(**changes: Any) -> TrainConfig:
    return RECIPE_CONFIG.model_copy(update=changes)


def _moved(what: str, config: TrainConfig = RECIPE_CONFIG, **changes: Any) -> Model:
    """Four copies of each event, whose numbers and constituents are moved."""
    what += ", 4 epochs, moved anew in each" + (", of random weights" if "weights" in changes else "")
    return Model(what=what, copies=4, config=config.model_copy(update={"epochs": 1.0}), **changes)


MODELS: dict[str, Model] = {
    "wide": Model(what="14 numbers", most=0),
    "particles-10": Model(what="10 constituents of either jet"),
    "random-10": Model(what="the same, of random weights", weights="random"),
    "particles-20": Model(what="20 constituents", most=20),
    "particles-40": Model(what="40 constituents", most=40),
    "particles-10-detector": Model(what="10 constituents in the detector's frame", frame="detector"),
    "particles-10-noise": _moved("10 constituents"),
    "random-10-noise": _moved("10 constituents", weights="random"),
    "particles-20-noise": _moved("20 constituents", most=20),
    "particles-10-rank-64": Model(what="10 constituents, rank 64", config=_recipe(rank=64, alpha=128.0)),
    "letters-26": Model(what="10 constituents, 26 bins", coding="letters-26"),
    "two-digits": Model(what="10 constituents, bins as two digits", coding="two-digits"),
    "digits": Model(what="10 constituents, thousandths and hundredths", coding="digits"),
    "all": Model(what="34 numbers", most=0, numbers="all"),
    "all-noise": _moved("34 numbers", numbers="all", most=0),
    "all-noise-more": _moved("34 numbers of more events", numbers="all", most=0, more=True),
    "all-10-noise": _moved("34 numbers and 10 constituents", numbers="all"),
    "all-20-noise": _moved("34 numbers and 20 constituents", numbers="all", most=20),
    "all-10-noise-rank-64": _moved(
        "34 numbers and 10 constituents, rank 64", _recipe(rank=64, alpha=128.0), numbers="all"
    ),
    "random-all-10-noise": _moved("34 numbers and 10 constituents", numbers="all", weights="random"),
    "random-wide": Model(what="14 numbers, of random weights", most=0, weights="random"),
}


class Pace:
    """How long steps took."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self._seconds: list[float] = []
        self._tokens: list[int] = []
        self._last: float | None = None

    def __call__(self, record: StepRecord) -> bool:
        self.note(record.loss, record.tokens)
        return True

    def note(self, loss: float, tokens: int) -> None:
        """Note a step; the first one of a segment, in which passes are recorded, has no time."""
        now = time.perf_counter()
        if self._last is not None:
            self._seconds.append(now - self._last)
            self._tokens.append(tokens)
        self._last = now
        self.losses.append(loss)

    def pause(self) -> None:
        self._last = None

    def tokens_per_second(self) -> float | None:
        """Of the median step."""
        return float(np.median(np.array(self._tokens) / self._seconds)) if self._seconds else None


def train_models(
    place: Workspace,
    model: Path,
    names: list[str],
    sizes: list[int] | None,
    seeds: int,
    max_steps: int | None,
) -> None:
    """Train and score what has no row yet."""
    bases = {
        "pretrained": lambda: load_base(model),
        "random": lambda: load_base(random_model(place, model)),
    }
    for size in sizes or [None]:
        for seed in range(1, seeds + 1):
            for name in names:
                one = MODELS[name]
                n = len(training_events(place, more=one.more).first(size).rows)
                if not row_path(place, name, n, seed).exists():
                    config = one.config.model_copy(update={"max_steps": max_steps, "seed": seed})
                    one = dataclasses.replace(one, config=config)
                    _train_one(place, bases[one.weights], name, one, n, seed)
                    if torch.cuda.is_available():
                        torch.cuda.empty_cache()


def random_model(place: Workspace, model: Path) -> Path:
    """A directory of the same architecture and tokenizer, its weights as transformers begins a pretraining."""
    final = place.root / "random-model"
    if not final.is_dir():
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model), dtype=torch.bfloat16)
        with staged_directory(final) as directory:
            made.save_pretrained(directory)
            for path in model.iterdir():
                if (
                    path.is_file()
                    and path.suffix in (".json", ".jinja", ".txt")
                    and not (directory / path.name).exists()
                ):
                    shutil.copy(path, directory)
        check_model_directory(final)
    return final


def _prompts(place: Workspace, one: Model, subset: str) -> list[str]:
    copies = one.copies if subset == "train" else 1
    if one.numbers == "all":
        events = _events(place, one, subset)
        return prompts_of_all(place, events, most=one.most, frame=one.frame, copies=copies)
    if one.most and copies == 1:
        return prompts_of(place, subset, one.coding, one.most, one.frame)
    if not one.most:
        return read_prompts(place, subset)
    config = SplitConfig(template="particles", constituents=one.most, frame=one.frame, copies=one.copies)
    split = place.split(make_split(place, config))
    found: list[str] = read_subset(split, subset, ["prompt"])["prompt"].to_pylist()
    return found


def _events(place: Workspace, one: Model, subset: str) -> Subset:
    return training_events(place, more=one.more) if subset == "train" else read_events(place.root, subset)


def _train_one(place: Workspace, load: Callable[[], Base], name: str, one: Model, n: int, seed: int) -> None:
    base = load()
    events = _events(place, one, "train")
    copies = np.array_split(np.array(_prompts(place, one, "train"), dtype=object), one.copies)
    prompts = [prompt for copy in copies for prompt in copy[:n]]
    labels = np.tile(events.labels[:n], one.copies)
    lengths = [len(ids) for ids in base.encode(prompts[:2000])]
    config = _resolved(one.config, len(prompts))
    run = f"{name}-{n}-{seed}"
    pace, checkpoint = _train(place, base, run, config, prompts, labels)
    base.adapter.graphs.clear()  # their memory is wanted for scoring
    said, rates = {}, {}
    for subset in scored_subsets(place):
        asked = _prompts(place, one, subset)
        began = time.perf_counter()
        scores = score_prompts(base, checkpoint=checkpoint, config=config, prompts=asked, batch_size=32)
        rates[subset] = sum(map(len, base.encode(asked))) / (time.perf_counter() - began)
        said[subset] = (scores.p_signal, scores.answers)
    compact = _compact_speed(place, base, one)
    auc = keep(
        place, name, seed, n, said,
        what=one.what, kind=one.kind, more=one.more, tokens=float(np.mean(lengths)), example=prompts[0],
        coding=one.coding, constituents=one.most, frame=one.frame, config=config.model_dump(mode="json"),
        steps=len(pace.losses),
        loss_of_last_tenth=float(np.mean(pace.losses[-max(1, len(pace.losses) // 10) :])),
        training_tokens_per_second=pace.tokens_per_second(), scoring_tokens_per_second=rates["validation"],
        compact=compact, device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    )  # fmt: skip
    say(f"model: {run}: validation AUC {auc:.5f}, {pace.tokens_per_second() or 0:,.0f} tokens/s in training")


def _resolved(config: TrainConfig, n_prompts: int) -> TrainConfig:
    """With the weight of answers, and of few prompts one in 64 a step."""
    config = config.model_copy(update={"batch_size": min(config.batch_size, max(n_prompts // 64, 1))})
    steps = plan_run(n_prompts, config).total_steps
    return config.model_copy(update={"answer_weight": recommended_answer_weight(steps)})


def _train(
    place: Workspace, base: Base, run: str, config: TrainConfig, prompts: list[str], labels: NDArray[np.int64]
) -> tuple[Pace, Path]:
    """In segments, of which the newest that stands is gone on from; what was noted of those before is in a file."""
    plan, pace = plan_run(len(prompts), config), Pace()
    committed = committed_steps(place.run(run))
    step = committed[-1] if committed else 0
    noted = place.root / "rows" / f"{run}.losses.json"
    pace.losses = read_json(noted)["losses"][:step] if step else []
    every = -(-plan.total_steps // SEGMENTS)
    segment = partial(train_segment, base, prompts=prompts, labels=labels, config=config, on_step=pace)
    while step < plan.total_steps:
        until = min(step + every, plan.total_steps)
        state = segment(checkpoint=place.checkpoint(run, step) if step else None, until_step=until)
        step = state.step
        pace.pause()
        write_json(noted, {"losses": pace.losses})
        write_checkpoint(
            place.checkpoint(run, step), state, config_hash=sha256_of_json(config.model_dump(mode="json"))
        )
        say(f"model: {run}: step {step} of {plan.total_steps}, loss {np.mean(pace.losses[-20:]):.4f}")
    return pace, place.checkpoint(run, step)


def _compact_speed(place: Workspace, base: Base, one: Model) -> dict[str, float | None]:
    """Tokens a second of the compact prompt, by the same recipe on the same card, right after."""
    prompts = read_subset(place.split("compact"), "train", ["prompt"])["prompt"].to_pylist()
    labels = read_events(place.root, "train").labels
    steps = SPEED_STEPS if one.config.max_steps is None else min(SPEED_STEPS, one.config.max_steps)
    config = _resolved(one.config.model_copy(update={"max_steps": steps}), len(prompts))
    pace = Pace()
    state = train_segment(
        base, prompts=prompts, labels=labels, config=config, checkpoint=None,
        until_step=plan_run(len(prompts), config).total_steps, on_step=pace,
    )  # fmt: skip
    checkpoint = place.checkpoint("compact-speed", state.step)
    shutil.rmtree(checkpoint, ignore_errors=True)
    write_checkpoint(checkpoint, state, config_hash="benchmark")
    base.adapter.graphs.clear()
    asked = prompts[:SPEED_PROMPTS]
    began = time.perf_counter()
    score_prompts(base, checkpoint=checkpoint, config=config, prompts=asked, batch_size=32)
    seconds = time.perf_counter() - began
    return {
        "training_tokens_per_second": pace.tokens_per_second(),
        "scoring_tokens_per_second": sum(map(len, base.encode(asked))) / seconds,
    }
