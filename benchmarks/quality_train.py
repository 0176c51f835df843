"""One training of the quality benchmark, by lhcq's own functions, and what it says of events it has not seen."""

import gc
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import quality_levers
from benchmarks.quality_data import (
    events_of_more,
    features_in,
    parts_of,
    read_events,
    row_path,
    training_events,
)
from benchmarks.quality_trees import stacked_features
from benchmarks.quality_variants import VARIANTS, Variant
from benchmarks.rows import say
from lhcq.evaluate.metrics import metrics_of
from lhcq.model.base import Base, load_base
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.loop import StepRecord, train_whole
from lhcq.model.score import score_prompts
from lhcq.records.scores import Scores, write_scores
from lhcq.storage import sha256_of_json, write_json
from lhcq.workspace import Workspace


class Events:
    """Prompts, labels and features of one part, as a variant has them."""

    def __init__(self, place: Workspace, variant: Variant, part: str) -> None:
        if part == "train":
            table = training_events(place, variant.split, more=variant.more)
        else:
            table = read_events(place, variant.split, part)
        self.rows = table["row"].to_numpy()
        self.labels = table["label"].to_numpy().astype(np.int64)
        self.features = features_in(table) | (
            stacked_features(place, part) if variant.split == "full" and not variant.more else {}
        )
        self.prompts: list[str] = table["prompt"].to_pylist() if variant.write is None else []

    def repeat(self, variant: Variant) -> None:
        """Each event several times, its numbers moved a little each time."""
        assert variant.write is not None
        rng = np.random.Generator(np.random.PCG64(1))
        self.prompts = []
        for _ in range(variant.copies):
            moved = {
                name: values + variant.noise.get(name, 0.0) * rng.uniform(-1.0, 1.0, len(values))
                for name, values in self.features.items()
            }
            self.prompts += variant.write({name: np.maximum(one, 0.0) for name, one in moved.items()}, {})
        self.labels = np.tile(self.labels, variant.copies)


def train_variants(place: Workspace, model: Path, names: list[str], *, max_steps: int | None = None) -> None:
    """Train those that have no row yet; a failure costs its own row."""
    for name in names:
        if row_path(place, name).exists():
            continue
        if VARIANTS[name].more and events_of_more(place) is None:
            say(f"train: {name}: left out, since the data were made without --more")
            continue
        try:
            train_variant(place, model, name, max_steps)
        except Exception:
            traceback.print_exc()
            say(f"train: {name} FAILED")
        # The recorded passes of one hold the memory of the next.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def train_variant(place: Workspace, model: Path, name: str, max_steps: int | None) -> None:
    variant = VARIANTS[name]
    config = variant.config.model_copy(update={"max_steps": max_steps})
    events = {part: Events(place, variant, part) for part in ("train", *parts_of(place))}
    if variant.write is not None:
        known = events["train"].features
        for one in events.values():
            one.prompts = variant.write(one.features, known)
        if variant.copies > 1:
            events["train"].repeat(variant)
    base = load_base(model)
    tokens = float(np.mean([len(ids) for ids in base.encode(events["train"].prompts[:2000])]))
    say(f"train: {name}: {tokens:.1f} tokens, such as {events['train'].prompts[0][-120:]!r}")
    began = time.perf_counter()
    if variant.way == "lhcq":
        losses, scored = _train(place, base, name, config, events)
    else:
        losses, scored = quality_levers.train(base, variant.way, config, events, variant.columns)
    seconds = time.perf_counter() - began
    row: dict[str, Any] = {
        "what": variant.what,
        "tokens": tokens,
        "example": events["train"].prompts[0],
        "config": config.model_dump(mode="json"),
        "way": variant.way,
        "n_train": len(events["train"].labels),
        "steps": len(losses),
        "seconds": seconds,
        "loss_of_last_tenth": float(np.mean(losses[-max(1, len(losses) // 10) :])),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
    for part, (p_signal, answers) in scored.items():
        one = events[part]
        path = place.root / "scores" / name / f"{part}.parquet"
        scores = Scores.of(rows=one.rows, labels=one.labels, p_signal=p_signal, answers=answers)
        write_scores(path, scores)
        row[part] = metrics_of(one.labels, p_signal, answers).model_dump()
    write_json(row_path(place, name), row)
    auc = {part: round(row[part]["auc"], 5) for part in scored}
    say(f"train: {name}: {seconds:.0f} s, accuracy {row['test']['accuracy']:.4f}, AUC {auc}")


def _train(
    place: Workspace, base: Base, name: str, config: Any, events: dict[str, Events]
) -> tuple[list[float], dict[str, Any]]:
    """Trained, and scored on all other parts: the losses of the steps, and what is said of each part."""
    losses: list[float] = []

    def note(record: StepRecord) -> bool:
        losses.append(record.loss)
        return True

    one = events["train"]
    state = train_whole(base, prompts=one.prompts, labels=one.labels, config=config, on_step=note)
    checkpoint = place.checkpoint(name, state.step)
    write_checkpoint(checkpoint, state, config_hash=sha256_of_json(config.model_dump(mode="json")))
    base.adapter.graphs.clear()  # their memory is wanted for scoring
    scored = {}
    for part, one in events.items():
        if part != "train":
            scores = score_prompts(
                base, checkpoint=checkpoint, config=config, prompts=one.prompts, batch_size=32
            )
            scored[part] = (scores.p_signal, scores.answers)
    return losses, scored
