"""Classification without labels: a region of m_jj against its sidebands, in folds, by trees or a learner of rows.

Signal that is narrow in m_jj is a larger share of the region than of the sidebands, so a classifier that tells the
two apart by features that do not know m_jj ranks signal first (Metodiev, Nachman, Thaler, JHEP 10 (2017) 174, and
Collins, Howe, Nachman, Phys. Rev. D 99 (2019) 014038). What it has seen it knows by heart, so each event is scored by
the trees of the other folds alone.

Two folds that are scored by trees which saw the other do not fluctuate apart: both select what both happen to have
more of. So the significance of their sum has a spread above one, which is measured: on the same events with each
other's m_jj, where there is nothing to find, everything is done again (`shuffled`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lhcq.errors import BadInput
from lhcq.evaluate.baseline import EARLY_STOPPING_FROM
from lhcq.records.subsets import hash_rows

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Region = tuple[float, float]
"""[low, high) in GeV."""

PARAMETERS: dict[str, Any] = {
    "learning_rate": 0.1,
    "max_iter": 200,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 40,
    "l2_regularization": 1.0,
}
"""Shallow, since nine tenths of what these trees could learn of a region is noise."""
STEPS = 128
"""Of a feature."""
FEWEST_EVENTS = 50
"""In a region and in each sideband of the training folds, below which nothing is learnt."""


@dataclass(frozen=True, kw_only=True)
class WeakEvents:
    """Events of which no label is known; all arrays have n events."""

    rows: Integers
    mjj: Floats
    """GeV."""
    folds: NDArray[np.int8]
    values: Floats
    """(n, n_features); NaN where an event has no value."""


class ScoreFold(Protocol):
    """What learns from the events of all folds but one, and scores that."""

    def __call__(
        self, events: WeakEvents, region: Region, sideband: float, *, fold: int, seed: int
    ) -> Floats:
        """P(region) of the events of the fold, in their order."""


def assign_folds(firsts: Integers, n_folds: int, key: str) -> NDArray[np.int8]:
    """The fold of each event (n,), by a keyed hash of the first row with the same event: duplicates share theirs."""
    return (hash_rows(firsts, key) % np.uint64(n_folds)).astype(np.int8)


def weak_labels(mjj: Floats, region: Region, sideband: float) -> NDArray[np.int8]:
    """1 in the region, 0 within `sideband` GeV at either side, -1 elsewhere, (n,)."""
    low, high = region
    labels = np.full(len(mjj), -1, np.int8)
    labels[(mjj >= low - sideband) & (mjj < high + sideband)] = 0
    labels[(mjj >= low) & (mjj < high)] = 1
    return labels


def weak_weights(mjj: Floats, labels: NDArray[np.int8], region: Region) -> Floats:
    """The weight of each event (n,), 0 without a label: the region counts as much as both sidebands, these alike.

    On a falling spectrum the lower one would else hold most events, and the classifier learn how features change with
    m_jj from one side to the other.
    """
    weights = np.zeros(len(mjj))
    for group, share in (
        (labels == 1, 2.0),
        ((labels == 0) & (mjj < region[0]), 1.0),
        ((labels == 0) & (mjj >= region[1]), 1.0),
    ):
        weights[group] = share / max(int(group.sum()), 1)
    return weights * (np.count_nonzero(weights) / weights.sum()) if weights.any() else weights


def drawn_rows(
    events: WeakEvents, region: Region, sideband: float, *, fold: int, seed: int
) -> tuple[Integers, NDArray[np.int8]]:
    """The places of the events (n_rows,) that one who learns row by row takes of all folds but one, and their labels.

    It is for a learner that takes as many rows of either label and knows no weights: so that both sidebands come
    equally often, as by `weak_weights`, the one with fewer events is repeated until it has as many rows as the
    other: whole, and then by a part of it that `seed` draws. Repeating loses no event, as leaving out of the larger
    one would. Raises `BadInput` where region or sidebands hold too few events.
    """
    labels = weak_labels(events.mjj, region, sideband)
    seen = np.flatnonzero((events.folds != fold) & (labels >= 0))
    mjj, labels = events.mjj[seen], labels[seen]
    _check_enough(mjj, labels, region)
    sides = [seen[(labels == 0) & beside] for beside in (mjj < region[0], mjj >= region[1])]
    most = max(map(len, sides))
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, fold])))
    rows = [seen[labels == 1]]
    for side in sides:
        times, rest = divmod(most, len(side))
        rows += [np.tile(side, times), random.permutation(side)[:rest]]
    drawn = np.concatenate(rows)
    return drawn, (np.arange(len(drawn)) < len(rows[0])).astype(np.int8)


def score_fold(events: WeakEvents, region: Region, sideband: float, *, fold: int, seed: int) -> Floats:
    """P(region) of the events of one fold, in their order, by trees that saw the events of the others alone.

    Raises `BadInput` where region or sidebands hold too few events.
    """
    labels = weak_labels(events.mjj, region, sideband)
    seen = (events.folds != fold) & (labels >= 0)
    mjj, labels, values = events.mjj[seen], labels[seen], events.values[seen]
    _check_enough(mjj, labels, region)
    held_out = events.values[events.folds == fold]
    weights = weak_weights(mjj, labels, region)
    return learn_and_score(values, labels, weights, held_out, seed=[seed, fold])


def learn_and_score(
    values: Floats, labels: NDArray[np.int8], weights: Floats, asked: Floats, *, seed: Sequence[int]
) -> Floats:
    """P(label 1) of what is asked (n_asked, n_features), by trees that learn from values (n, n_features).

    `seed` names the random numbers.
    """
    steps = [_steps_of(column) for column in values.T]
    trees = HistGradientBoostingClassifier(
        **PARAMETERS,
        early_stopping=len(labels) >= EARLY_STOPPING_FROM,
        random_state=np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed))),
    )
    # One thread: the chunks of a search run beside each other already.
    with threadpool_limits(limits=1, user_api="openmp"):
        trees.fit(_stepped(values, steps), labels, sample_weight=weights)
        found: Floats = trees.predict_proba(_stepped(asked, steps))[:, 1]
    return found


def _steps_of(column: Floats) -> Floats:
    """Where a feature (n,) is cut into steps that hold as many events each.

    Trees cut it there anyway. But of weighted events scikit-learn looks for each place apart, which takes longer than
    all the rest; of steps already there are few enough for it to take them as they are.
    """
    return np.unique(np.nanquantile(column, np.linspace(0, 1, STEPS + 1)[1:-1]))


def _stepped(values: Floats, steps: Sequence[Floats]) -> Floats:
    """The step of each value (n, n_features); NaN stays."""
    columns = [
        np.where(np.isnan(column), np.nan, np.searchsorted(edges, column, side="right"))
        for column, edges in zip(values.T, steps, strict=True)
    ]
    return np.column_stack(columns)


def score_all(
    events: WeakEvents,
    region: Region,
    sideband: float,
    *,
    n_folds: int,
    seeds: Sequence[int],
    check: Callable[[], None],
    score: ScoreFold = score_fold,
) -> Floats:
    """The mean over the seeds of what `score` gives for every fold, (n,); `check` is called now and then."""
    scores = np.zeros(len(events.mjj))
    for fold in range(n_folds):
        members = events.folds == fold
        for seed in seeds:
            check()
            scores[members] += score(events, region, sideband, fold=fold, seed=seed) / len(seeds)
    return scores


def shuffled(events: WeakEvents, seed: Sequence[int]) -> WeakEvents:
    """The same events with each other's m_jj, so that no region holds anything else than its sidebands."""
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    return replace(events, mjj=random.permutation(events.mjj))


def _check_enough(mjj: Floats, labels: NDArray[np.int8], region: Region) -> None:
    low, high = region
    for what, n in (
        ("the region", int((labels == 1).sum())),
        ("its lower sideband", int(((labels == 0) & (mjj < low)).sum())),
        ("its upper sideband", int(((labels == 0) & (mjj >= high)).sum())),
    ):
        if n < FEWEST_EVENTS:
            raise BadInput(
                f"the region from {low:,.0f} to {high:,.0f} GeV: {what} has {n} events to learn from, and "
                f"{FEWEST_EVENTS} are needed. End the regions where there are enough, or make them wider."
            )
