"""The events of the benchmark of particles: those of the quality benchmark, with their constituents kept."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.quality_data import (
    MORE,
    SEED,
    events_of_more,
    make_parts,
    make_released,
    merge_generated,
    released_path,
)
from lhcq.config import ClusterConfig, Frame, GenerateConfig, SplitConfig, on_cluster_preset
from lhcq.evaluate.metrics import metrics_of
from lhcq.manifests import read_manifest
from lhcq.prompts.features import compute_features, record_columns
from lhcq.prompts.particles import COLUMN, Constituents
from lhcq.prompts.templates import render
from lhcq.prompts.writing import write_split
from lhcq.records.events import read_event_batches, read_schema
from lhcq.records.scores import Scores, write_scores
from lhcq.records.subsets import read_subset
from lhcq.storage import write_json
from lhcq.workspace import Workspace

KEPT = 40
CLUSTERING = ClusterConfig(**on_cluster_preset("lhco", {"constituents": KEPT}))
DATASET = "particles"
RELEASED = "released"
"""The subset of the released events, which nothing is trained on."""
MORE_EVENTS = ", of more events"
"""Ends the kind of what was trained on the events of `--more` too."""


@dataclass(frozen=True)
class Subset:
    """Events of a subset of the split."""

    rows: NDArray[np.int64]
    """(n,)"""
    labels: NDArray[np.int64]
    """(n,)"""
    features: NDArray[np.float64]
    """(n, 34); NaN for what an event lacks."""
    constituents: Constituents
    """In the detector's frame."""

    def first(self, n: int | None) -> "Subset":
        """As many of its events, which are in random order; None: all."""
        return Subset(
            self.rows[:n], self.labels[:n], self.features[:n], Constituents(self.constituents.values[:n])
        )


def make_events(place: Workspace, n_events: int, processes: int) -> None:
    """`n_events` of each class, clustered; what stands already is left."""
    config = GenerateConfig(background=n_events, signal=n_events, seed=SEED)
    scratch, n_parts = make_parts(place, config, processes, {DATASET: CLUSTERING})
    merge_generated(place, DATASET, CLUSTERING, config, scratch / DATASET, n_parts)
    for template in ("compact", "wide"):
        make_split(place, SplitConfig(template=template))
    make_released(place, {DATASET: CLUSTERING})


def make_split(place: Workspace, config: SplitConfig) -> str:
    """The name of a split of the events; they are in the same subsets, in the same order, in all."""
    name = config.template
    if config.template == "particles":
        name = f"particles-{config.constituents}-{config.frame}-{config.copies}"
    write_split(place.dataset(DATASET), place.split(name), config=config)
    return name


def facts_of_events(place: Workspace) -> dict[str, Any]:
    """What a result says of its events."""
    manifest = read_manifest(place.split("wide"), what="the split", remedy="Run --stage data.")
    dataset = read_manifest(place.dataset(DATASET), what="the dataset", remedy="Run --stage data.")
    return {"counts": manifest["counts"], "events": dataset["source"], "more": events_of_more(place)}


def scored_subsets(place: Workspace) -> tuple[str, ...]:
    """What every classifier is scored on."""
    return ("validation", "test", *[RELEASED] * released_path(place, DATASET).exists())


@functools.lru_cache(maxsize=4)
def read_events(root: Path, name: str) -> Subset:
    """A subset with all features and constituents."""
    place = Workspace(root)
    if name == RELEASED:
        return _read_released(place)
    features = feature_names(place)
    table = read_subset(place.split("wide"), name, ["row", "label", *features])
    rows = table["row"].to_numpy()
    return Subset(
        rows=rows,
        labels=table["label"].to_numpy().astype(np.int64),
        features=np.column_stack([table[one].to_numpy() for one in features]),
        constituents=_constituents_at(place, rows),
    )


def training_events(place: Workspace, *, more: bool) -> Subset:
    """The training subset; with `more` also the events made for training alone, and no constituents then."""
    events = read_events(place.root, "train")
    if not more:
        return events
    others = pq.read_table(place.root / MORE)
    columns = np.column_stack([others[one].to_numpy() for one in feature_names(place)])
    n = len(events.rows) + len(columns)
    return Subset(
        rows=np.concatenate([events.rows, others["row"].to_numpy()]),
        labels=np.concatenate([events.labels, others["label"].to_numpy().astype(np.int64)]),
        features=np.concatenate([events.features, columns.astype(np.float64)]),
        constituents=Constituents(np.zeros((n, 2, 0, 3), np.float32)),
    )


def _read_released(place: Workspace) -> Subset:
    records = pq.read_table(released_path(place, DATASET))
    features = feature_names(place)
    computed = compute_features(records)
    return Subset(
        rows=records["row"].to_numpy(),
        labels=records["label"].to_numpy().astype(np.int64),
        features=np.column_stack([computed[one] for one in features]),
        constituents=Constituents.of(records, KEPT),
    )


def feature_names(place: Workspace) -> list[str]:
    """Those of `Subset.features`, in their order."""
    names: list[str] = read_manifest(place.split("wide"), what="split", remedy="")["features"]
    return names


def read_prompts(place: Workspace, subset: str) -> list[str]:
    """The prompts of `wide` of the events of a subset, in their order."""
    if subset == RELEASED:
        return render("wide", pq.read_table(released_path(place, DATASET)))
    found: list[str] = read_subset(place.split("wide"), subset, ["prompt"])["prompt"].to_pylist()
    return found


def _constituents_at(place: Workspace, rows: NDArray[np.int64]) -> Constituents:
    """Those of the events of these rows, which are their places."""
    order = np.argsort(rows)
    found = Constituents.joined(_pieces(place, rows[order]))
    return found.take(np.argsort(order))


def _pieces(place: Workspace, rows: NDArray[np.int64]) -> Iterator[Constituents]:
    dataset, start = place.dataset(DATASET), 0
    columns = record_columns(read_schema(dataset), COLUMN)
    for batch in read_event_batches(dataset, columns):
        stop = start + batch.num_rows
        low, high = np.searchsorted(rows, [start, stop])
        records = pa.Table.from_batches([batch]).take(pa.array(rows[low:high] - start))
        yield Constituents.of(records, KEPT)
        start = stop


def flattened(events: Subset, most: int, frame: Frame) -> NDArray[np.float64]:
    """Share and distances of the `most` hardest of either jet, (n, 6 most); NaN where there is none."""
    kept = Constituents(events.constituents.values[:, :, :most]).turned(frame).values
    absent = kept[..., :1] == 0
    return np.where(absent, np.nan, kept).reshape(len(kept), -1)


def row_path(place: Workspace, name: str, n_train: int, seed: int) -> Path:
    """What is known of a training."""
    return place.root / "rows" / f"{name}-{n_train}-{seed}.json"


def scores_path(place: Workspace, name: str, n_train: int, seed: int, subset: str) -> Path:
    """What it said of the events of a subset."""
    return place.root / "scores" / f"{name}-{n_train}-{seed}" / f"{subset}.parquet"


def keep(
    place: Workspace,
    name: str,
    seed: int,
    n_train: int,
    said: dict[str, tuple[NDArray[np.float64], NDArray[np.int8] | None]],
    **facts: Any,
) -> float:
    """Write the scores of a training and what is known of it; the AUC on the validation subset."""
    for subset, (p_signal, answers) in said.items():
        events = read_events(place.root, subset)
        scores = Scores.of(rows=events.rows, labels=events.labels, p_signal=p_signal, answers=answers)
        write_scores(scores_path(place, name, n_train, seed, subset), scores)
    validation = metrics_of(read_events(place.root, "validation").labels, *said["validation"])
    facts |= {"name": name, "seed": seed, "n_train": n_train}
    # Last: what has a row is done. Of the test subset nothing is said before the choice.
    write_json(
        row_path(place, name, n_train, seed), {**facts, "validation": validation.model_dump(mode="json")}
    )
    assert validation.auc is not None
    return validation.auc
