"""Signal events put among background, so many by a seed, and the two classifiers that a search is held to there.

Both need labels, which no search has. The *idealised* one learns what a search learns, events of the region against
others, but the others are background of the region itself, so that nothing but signal tells them apart (Hallin et
al., Phys. Rev. D 106 (2022) 055006): a bound for whatever learns without labels. The *supervised* one is taught by
signal that was not put in, and bounds all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lhcq.errors import BadInput
from lhcq.evaluate.weak import FEWEST_EVENTS, Region, WeakEvents, assign_folds, learn_and_score

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Injected:
    """Background with some signal events among it, as a search would be given them, and what it is not told."""

    events: WeakEvents
    labels: NDArray[np.int8]
    """(n_events,): 1 for signal."""
    others: Floats
    """(n_others, n_features): signal that was not put in."""


def inject(
    events: WeakEvents,
    labels: NDArray[np.int8],
    firsts: Integers,
    *,
    n_signal: int,
    seed: int,
    n_folds: int,
    key: str,
) -> Injected:
    """All background of labelled events with `n_signal` of their signal events, drawn by `seed`, in folds anew.

    `labels` (n,) are 0 or 1; `firsts` (n,) the first row with the same event, and `key` are those of `assign_folds`.
    Raises `BadInput` where too little signal is left to teach the supervised classifier.
    """
    signal = np.flatnonzero(labels == 1)
    if len(signal) < n_signal + FEWEST_EVENTS:
        raise BadInput(
            f"{n_signal:,} signal events are to be put in, and {FEWEST_EVENTS} more to teach the supervised "
            f"classifier, but the range of the fit has {len(signal):,}. Put in fewer, or take more signal."
        )
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, n_signal])))
    drawn = random.permutation(signal)
    kept = np.sort(np.concatenate([np.flatnonzero(labels == 0), drawn[:n_signal]]))
    return Injected(
        events=replace(
            events,
            rows=events.rows[kept],
            mjj=events.mjj[kept],
            folds=assign_folds(firsts[kept], n_folds, key),
            values=events.values[kept],
        ),
        labels=labels[kept],
        others=events.values[drawn[n_signal:]],
    )


def idealised_fold(put: Injected, region: Region, *, fold: int, seed: int) -> Floats:
    """P(region) of the events of one fold, in their order, by trees that know which of the others are background.

    The region's events of the other folds are halved. One half, signal and all, is told from the background of the
    other; then the halves change places, and the mean of both is the score: so no event is on both sides of one
    training, and all are used. Raises `BadInput` where a half holds too few events.
    """
    events = put.events
    inside = (events.mjj >= region[0]) & (events.mjj < region[1])
    seen = np.flatnonzero((events.folds != fold) & inside)
    half = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, fold, 1]))).permutation(
        np.arange(len(seen)) % 2
    )
    background = put.labels[seen] == 0
    asked = events.values[events.folds == fold]
    scores = np.zeros(len(asked))
    for data in (0, 1):
        sides = [seen[half == data], seen[(half != data) & background]]
        _check_enough(sides, f"half of the region from {region[0]:,.0f} to {region[1]:,.0f} GeV")
        scores += _told_apart(events.values, sides, asked, seed=[seed, fold, 2 + data]) / 2
    return scores


def supervised_fold(put: Injected, *, fold: int, seed: int) -> Floats:
    """P(signal) of the events of one fold, in their order, by trees that labels taught.

    They saw the background of the other folds, and signal that is not among the events. Raises `BadInput` where there
    is too little of either.
    """
    events = put.events
    background = np.flatnonzero((events.folds != fold) & (put.labels == 0))
    values = np.concatenate([events.values[background], put.others])
    sides = [np.arange(len(background), len(values)), np.arange(len(background))]
    _check_enough(sides, "the range of the fit")
    return _told_apart(values, sides, events.values[events.folds == fold], seed=[seed, fold, 4])


def _told_apart(values: Floats, sides: Sequence[Integers], asked: Floats, *, seed: Sequence[int]) -> Floats:
    """P of the first of two sides, which weigh alike, for the values asked (n, n_features)."""
    rows = np.concatenate(sides)
    labels = (np.arange(len(rows)) < len(sides[0])).astype(np.int8)
    weights = np.where(labels == 1, len(rows) / (2 * len(sides[0])), len(rows) / (2 * len(sides[1])))
    return learn_and_score(values[rows], labels, weights, asked, seed=seed)


def _check_enough(sides: Sequence[Integers], where: str) -> None:
    fewest = min(map(len, sides))
    if fewest < FEWEST_EVENTS:
        raise BadInput(
            f"{where} has {fewest} events to learn from by labels, and {FEWEST_EVENTS} are needed. Take more events, "
            "or wider regions."
        )
