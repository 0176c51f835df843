"""The boosted trees that a language model has to be compared with, on the same split.

There are two, since a prompt may tell less than the dataset holds: trees that see what the model sees, the numbers of
the prompt as it writes them, say how well the model reads; trees on all features say what there was to be had.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import sklearn
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lhcq.errors import BadInput
from lhcq.evaluate.metrics import metrics_of
from lhcq.records.commits import digests_of
from lhcq.records.prompt_numbers import read_all_numbers
from lhcq.records.scores import Scores
from lhcq.records.subsets import read_split, read_subset, subset_file
from lhcq.records.validations import Scored, commit_baseline
from lhcq.storage import MANIFEST

MANY_EVENTS = 50_000
"""Training events from which several threads help. Below, they cost: a tree is many short parallel loops, and on a
machine that is busy training beside it each waits for a thread that is not running (60 s measured instead of 1)."""

EARLY_STOPPING_FROM = 2000
"""Training events from which a tenth can be spared to decide when to stop."""

# Shallow, slow and regularised: chosen once for samples from hundreds to a million events, and never tuned on
# the events that the report shows.
PARAMETERS: dict[str, Any] = {
    "class_weight": "balanced",
    "learning_rate": 0.05,
    "max_iter": 200,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 20,
    "l2_regularization": 1.0,
    "random_state": 1,
}


class Events(NamedTuple):
    """What trees see of a subset."""

    rows: NDArray[np.int64]
    """(n_events,)"""
    labels: NDArray[np.int64]
    """(n_events,)"""
    values: NDArray[np.float64]
    """(n_events, n_columns); NaN where an event has no value."""


class Fitted(NamedTuple):
    """Trees, and what they say of validation and test."""

    columns: list[int]
    """Places of the columns that they see: those in which a training event has a value."""
    n_train: int
    trees: HistGradientBoostingClassifier
    scored: dict[str, Scored]


def fit_baseline(split_dir: Path, final: Path) -> None:
    """Fit gradient-boosted trees on a split's training subset, on all features and on the prompts' numbers.

    What is committed as `final` holds the scores of both on validation and test, the metrics of these, and a
    manifest; no model is stored. Where the prompts hold no number, the manifest says that there are no trees on them.
    Nothing is done when `final` is there. Raises `NotThere` without the split, `BadInput` when its training subset
    cannot teach a classifier.
    """
    if (final / MANIFEST).is_file():
        return
    manifest = read_split(split_dir)
    features = list(manifest["features"])
    train = subset_file(split_dir, "train")
    on_all = _fit(lambda subset: read_features(split_dir, subset, features), train)
    if on_all is None:
        raise BadInput(f"{train}: no feature has a value, so trees have nothing to learn.")
    on_prompt = _fit(lambda subset: read_prompt_numbers(split_dir, subset), train)
    commit_baseline(
        final,
        {"all": on_all.scored, **({"prompt": on_prompt.scored} if on_prompt else {})},
        split_dir=split_dir,
        split_sha256=digests_of(manifest),
        features=[features[place] for place in on_all.columns],
        n_train=on_all.n_train,
        n_trees=int(on_all.trees.n_iter_),
        prompt={"numbers": len(on_prompt.columns), "n_trees": int(on_prompt.trees.n_iter_)}
        if on_prompt
        else {"missing": "the prompts hold no numbers"},
        parameters=on_all.trees.get_params(),
        versions={"scikit-learn": sklearn.__version__},
    )


def _fit(read: Callable[[str], Events], train: Path) -> Fitted | None:
    """Trees on what `read` gives of a subset; None where no training event has a value. `train` is for messages."""
    rows, labels, values = read("train")
    # Of an event with copies the first: what a tenth is spared for must not have been learnt from another copy.
    once = np.sort(np.unique(rows, return_index=True)[1])
    labels, values = labels[once], values[once]
    # A column that no training event has, such as a third jet's, cannot be binned.
    columns = np.flatnonzero(np.isfinite(values).any(axis=0))
    if not columns.size:
        return None
    if len(set(labels.tolist())) < 2:
        raise BadInput(f"{train}: boosted trees need events of both classes.")
    trees = build_trees(labels.size)
    with threadpool_limits(limits=None if labels.size >= MANY_EVENTS else 1, user_api="openmp"):
        trees.fit(values[:, columns], labels)
        scored = {subset: _score(trees, read(subset), columns) for subset in ("validation", "test")}
    return Fitted(columns.tolist(), labels.size, trees, scored)


def _score(trees: HistGradientBoostingClassifier, events: Events, columns: NDArray[np.int64]) -> Scored:
    missing = max(int(columns[-1]) + 1 - events.values.shape[1], 0)  # no event here has so many jets
    values = np.pad(events.values, ((0, 0), (0, missing)), constant_values=np.nan)[:, columns]
    scores = Scores.of(
        rows=events.rows,
        labels=events.labels,
        p_signal=trees.predict_proba(values)[:, 1],
    )
    return Scored(scores, metrics_of(events.labels, scores.p_signal))


def build_trees(n_train: int) -> HistGradientBoostingClassifier:
    """Unfitted trees, with early stopping where `n_train` events can afford it."""
    early_stopping = n_train >= EARLY_STOPPING_FROM
    return HistGradientBoostingClassifier(
        **PARAMETERS | ({"max_iter": 1000} if early_stopping else {}), early_stopping=early_stopping
    )


def read_features(split_dir: Path, subset: str, features: list[str]) -> Events:
    """The features (n_events, n_features) of one subset of a split; NaN is allowed."""
    table = read_subset(split_dir, subset, ["row", "label", *features])
    return _events(table, np.column_stack([table[name].to_numpy().astype(np.float64) for name in features]))


def read_prompt_numbers(split_dir: Path, subset: str) -> Events:
    """The numbers (n_events, n_numbers) of the prompts of one subset of a split, by `read_all_numbers`."""
    table = read_subset(split_dir, subset, ["row", "label", "prompt"])
    return _events(table, read_all_numbers(one.as_py() for one in table["prompt"]))


def _events(table: pa.Table, values: NDArray[np.float64]) -> Events:
    return Events(table["row"].to_numpy(), table["label"].to_numpy().astype(np.int64), values)
