"""Boosted trees on features and on flattened constituents, as lhcq's own baseline is."""

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.particles_data import (
    MORE_EVENTS,
    Subset,
    flattened,
    keep,
    read_events,
    row_path,
    scored_subsets,
    training_events,
)
from benchmarks.rows import say
from lhcq.config import Frame
from lhcq.evaluate.baseline import build_trees
from lhcq.prompts.particles import Constituents
from lhcq.workspace import Workspace


class Set(NamedTuple):
    """What trees see beside the 34 features."""

    what: str
    kind: str
    most: int = 0
    """Constituents of either jet."""
    frame: Frame = "principal-axis"
    letters: bool = False
    """As a prompt has them: the numbers of their bins."""
    more: bool = False
    """Whether of the events of `--more` too."""


FEATURES = "trees on 34 features"
BOTH = "trees on 34 features and constituents"
TREES: dict[str, Set] = {
    "trees": Set(FEATURES, FEATURES),
    "trees-more": Set(f"{FEATURES}{MORE_EVENTS}", f"{FEATURES}{MORE_EVENTS}", more=True),
    "trees-5": Set("and 5 constituents of either jet", BOTH, 5),
    "trees-10": Set("and 10 constituents", BOTH, 10),
    "trees-10-detector": Set("and 10 constituents, in the detector's frame", BOTH, 10, "detector"),
    "trees-10-letters": Set("and 10 constituents, by their letters", BOTH, 10, letters=True),
    "trees-20": Set("and 20 constituents", BOTH, 20),
    "trees-40": Set("and 40 constituents", BOTH, 40),
}


def fit_trees(
    place: Workspace, names: list[str], sizes: list[int] | None, seeds: int, processes: int
) -> None:
    """Fit and score what has no row yet; a seed changes which tenth decides when to stop."""
    counts = {
        (name, size): len(training_events(place, more=TREES[name].more).first(size).rows)
        for name in names
        for size in sizes or [None]
    }
    work = [
        (place.root, name, n, seed)
        for seed in range(1, seeds + 1)
        for (name, _), n in counts.items()
        if not row_path(place, name, n, seed).exists()
    ]
    say(f"trees: {len(work)} fits on {processes} processes")
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(_fit, *one) for one in work]:
            say(done.result())


def _fit(root: Path, name: str, n: int, seed: int) -> str:
    train = training_events(Workspace(root), more=TREES[name].more).first(n)
    began = time.process_time()
    with threadpool_limits(1, user_api="openmp"):
        trees = build_trees(len(train.rows)).set_params(random_state=seed)
        trees.fit(_values(train, TREES[name]), train.labels)
        seconds = time.process_time() - began
        said = {
            subset: (trees.predict_proba(_values(read_events(root, subset), TREES[name]))[:, 1], None)
            for subset in scored_subsets(Workspace(root))
        }
    one = TREES[name]
    facts = {
        "what": one.what,
        "kind": one.kind,
        "more": one.more,
        "cpu_seconds": seconds,
        "n_trees": int(trees.n_iter_),
    }
    auc = keep(Workspace(root), name, seed, len(train.rows), said, **facts)
    return (
        f"trees: {name}, {len(train.rows):,} events, seed {seed}: validation AUC {auc:.5f}, {seconds:.0f} s"
    )


def _values(events: Subset, one: Set) -> NDArray[np.float64]:
    if not one.most:
        return events.features
    values = flattened(events, one.most, one.frame)
    if one.letters:
        kept = Constituents(events.constituents.values[:, :, : one.most]).turned(one.frame)
        values = np.where(np.isnan(values), np.nan, kept.bins().reshape(values.shape))
    return np.hstack([events.features, values])
