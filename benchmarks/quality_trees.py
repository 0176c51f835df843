"""Boosted trees beside the language models, as lhcq's baselines are: on the features of a prompt, and on all.

The features of a prompt have all their digits here, where the prompt has whole numbers of a unit: those that
`lhcq prepare` fits on the prompt's numbers see these.
"""

import itertools
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from benchmarks.quality_data import events_of_more, features_in, parts_of, read_events, training_events
from benchmarks.quality_variants import STACKED, VARIANTS, Variant, logit_of, score_of
from benchmarks.rows import say
from lhcq.evaluate.baseline import build_trees
from lhcq.records.scores import Scores, write_scores
from lhcq.workspace import Workspace

SEEDS = range(1, 6)
"""The first is the baseline's own; the others change which tenth decides when to stop."""
FOLDS = 5


class Set(NamedTuple):
    """What trees are fitted on."""

    split: str
    columns: tuple[str, ...]
    more: bool = False
    """Whether the events of `--more` too."""


def tree_sets(place: Workspace) -> dict[str, Set]:
    """What trees are fitted on, by name: the features of each variant, and all that a split has."""
    sets = {
        name: _set(variant)
        for name, variant in VARIANTS.items()
        if variant.table == "templates"
        and name == set_of(name)
        # Without `--more` there is nothing to fit them on.
        and (not variant.more or events_of_more(place) is not None)
    }
    for split in ("jets", "full"):
        events = read_events(place, split, "validation")
        sets[f"{split}-all"] = Set(split, tuple(features_in(events)))
    return sets


def set_of(name: str) -> str:
    """The first variant that has the features of this one: what it says of its trees holds for both."""
    mine = VARIANTS[name]
    return next(
        other
        for other, variant in VARIANTS.items()
        if variant.table == mine.table and _set(variant) == _set(mine)
    )


def _set(variant: Variant) -> Set:
    return Set(variant.split, variant.measured, variant.more)


def tree_name(name: str, seed: int) -> str:
    """The directory of its scores."""
    return f"trees-{name}-{seed}"


def fit_trees(place: Workspace, processes: int) -> None:
    """Fit five on each set and score them, and score the training part out of fold; what stands is left."""
    sets = tree_sets(place)
    work = [
        (place.root, name, one, seed)
        for seed, (name, one) in itertools.product(SEEDS, sets.items())
        if not (place.root / "scores" / tree_name(name, seed)).exists()
    ]
    stacked = [name for name in STACKED if not _out_of_fold(place, name).exists()]
    say(f"trees: {len(work)} fits on {processes} processes")
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        folds = {
            name: [pool.submit(score_fold, place.root, sets[name], fold) for fold in range(FOLDS)]
            for name in stacked
        }
        for done in [pool.submit(fit_one, *one) for one in work]:
            done.result()
        for name, scored in folds.items():
            _keep_out_of_fold(place, name, [one.result() for one in scored])


def fit_one(root: Any, name: str, one: Set, seed: int) -> None:
    """Fit on the training part of a set, and write the scores of the others."""
    place = Workspace(root)
    trees = _fit(*_values(training_events(place, one.split, more=one.more), one.columns), seed)
    for part in parts_of(place):
        events = read_events(place, one.split, part)
        values, labels = _values(events, one.columns)
        p_signal = _score(trees, values)
        directory = place.root / "scores" / tree_name(name, seed)
        scores = Scores.of(rows=events["row"], labels=labels, p_signal=p_signal)
        write_scores(directory / f"{part}.parquet", scores)


def score_fold(root: Any, one: Set, fold: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The places in the training part that a fold leaves out, and what trees of the rest say of them."""
    values, labels = _values(training_events(Workspace(root), one.split, more=one.more), one.columns)
    rest, left_out = list(StratifiedKFold(FOLDS).split(values, labels))[fold]
    return left_out, _score(_fit(values[rest], labels[rest], 1), values[left_out])


def _fit(values: NDArray[np.float64], labels: NDArray[np.int64], seed: int) -> Any:
    with threadpool_limits(1, user_api="openmp"):
        trees = build_trees(len(labels)).set_params(random_state=seed)
        return trees.fit(values, labels)


def _score(trees: Any, values: NDArray[np.float64]) -> NDArray[np.float64]:
    with threadpool_limits(1, user_api="openmp"):
        return np.asarray(trees.predict_proba(values)[:, 1])


def _values(events: pa.Table, columns: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values = np.column_stack([events[name].to_numpy().astype(np.float64) for name in columns])
    return values, events["label"].to_numpy().astype(np.int64)


def _out_of_fold(place: Workspace, name: str) -> Path:
    return place.root / f"out-of-fold-{name}.npy"


def _keep_out_of_fold(
    place: Workspace, name: str, folds: list[tuple[NDArray[np.int64], NDArray[np.float64]]]
) -> None:
    scores = np.empty(sum(len(left_out) for left_out, _ in folds))
    for left_out, p_signal in folds:
        scores[left_out] = p_signal
    np.save(_out_of_fold(place, name), scores)


def stacked_features(place: Workspace, part: str) -> dict[str, NDArray[np.float64]]:
    """The trees' scores as features of the events of a part, of training events out of fold; those that there are."""
    from lhcq.records.scores import read_scores

    found = {}
    for name in STACKED:
        path = _out_of_fold(place, name)
        if path.exists():
            p_signal = (
                np.load(path)
                if part == "train"
                else read_scores(place.root / "scores" / tree_name(name, 1) / f"{part}.parquet").p_signal
            )
            found[score_of(name)] = p_signal
            found[logit_of(name)] = np.clip(100 + 10 * logit(p_signal), 0, 200)
    return found
