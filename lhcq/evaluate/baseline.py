"""The boosted trees that a language model has to be compared with: same features, same split."""

from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lhcq.errors import BadInput
from lhcq.evaluate.metrics import metrics_of
from lhcq.records.commits import digests_of
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


def fit_baseline(split_dir: Path, final: Path) -> None:
    """Fit gradient-boosted trees on the features of a split's training subset and commit `final`.

    It holds the scores on validation and test, the metrics of both, and a manifest; no model is stored.
    Nothing is done when `final` is there. Raises `NotThere` without the split, `BadInput` when its training
    subset cannot teach a classifier.
    """
    if (final / MANIFEST).is_file():
        return
    manifest = read_split(split_dir)
    features = list(manifest["features"])
    rows, labels, values = read_features(split_dir, "train", features)
    once = np.sort(np.unique(rows, return_index=True)[1])  # prompts may have copies
    labels, values = labels[once], values[once]
    # A feature that no training event has, such as a third jet's, cannot be binned.
    present = np.flatnonzero(np.isfinite(values).any(axis=0))
    features = [features[place] for place in present]
    if not features:
        raise BadInput(
            f"{subset_file(split_dir, 'train')}: no feature has a value, so trees have nothing to learn."
        )
    if len(set(labels.tolist())) < 2:
        raise BadInput(f"{subset_file(split_dir, 'train')}: boosted trees need events of both classes.")
    trees = build_trees(labels.size)
    with threadpool_limits(limits=None if labels.size >= MANY_EVENTS else 1, user_api="openmp"):
        trees.fit(values[:, present], labels)
        scored = {
            subset: score_subset(trees, split_dir, subset, features) for subset in ("validation", "test")
        }
    commit_baseline(
        final,
        scored,
        split_dir=split_dir,
        split_sha256=digests_of(manifest),
        features=features,
        n_train=labels.size,
        n_trees=int(trees.n_iter_),
        parameters=trees.get_params(),
        versions={"scikit-learn": sklearn.__version__},
    )


def score_subset(
    trees: HistGradientBoostingClassifier, split_dir: Path, subset: str, features: list[str]
) -> Scored:
    """What the trees say of one subset."""
    rows, labels, values = read_features(split_dir, subset, features)
    scores = Scores.of(
        rows=rows,
        labels=labels,
        p_signal=trees.predict_proba(values)[:, 1],
    )
    return Scored(scores, metrics_of(labels, scores.p_signal))


def build_trees(n_train: int) -> HistGradientBoostingClassifier:
    """Unfitted trees, with early stopping where `n_train` events can afford it."""
    early_stopping = n_train >= EARLY_STOPPING_FROM
    return HistGradientBoostingClassifier(
        **PARAMETERS | ({"max_iter": 1000} if early_stopping else {}), early_stopping=early_stopping
    )


def read_features(
    split_dir: Path, subset: str, features: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Rows `(n,)`, labels `(n,)` and features `(n, n_features)` of one subset of a split; NaN is allowed."""
    table = read_subset(split_dir, subset, ["row", "label", *features])
    values = [table.column(name).to_numpy().astype(np.float64) for name in features]
    return (
        table.column("row").to_numpy(),
        table.column("label").to_numpy().astype(np.int64),
        np.column_stack(values),
    )
