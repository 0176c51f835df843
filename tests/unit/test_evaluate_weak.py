"""Labels by region: what counts how much, and that no event is scored by what saw it."""

from dataclasses import replace

import numpy as np
import pytest

from lhcq.errors import BadInput
from lhcq.evaluate.weak import (
    WeakEvents,
    assign_folds,
    score_fold,
    shuffled,
    weak_labels,
    weak_weights,
)

REGION, SIDEBAND = (3300.0, 3700.0), 200.0


def made_up(n: int = 3000, seed: int = 1) -> WeakEvents:
    random = np.random.default_rng(seed)
    return WeakEvents(
        rows=np.arange(n),
        mjj=2700 + random.exponential(450, n),
        folds=assign_folds(np.arange(n), 3, "key"),
        values=random.normal(size=(n, 3)),
    )


def test_labels_are_of_the_region_and_of_what_lies_beside_it() -> None:
    mjj = np.array([3099.9, 3100.0, 3299.9, 3300.0, 3699.9, 3700.0, 3899.9, 3900.0])
    assert weak_labels(mjj, REGION, SIDEBAND).tolist() == [-1, 0, 0, 1, 1, 0, 0, -1]


def test_a_region_weighs_as_much_as_its_sidebands_and_these_alike() -> None:
    events = made_up()
    labels = weak_labels(events.mjj, REGION, SIDEBAND)
    weights = weak_weights(events.mjj, labels, REGION)
    lower, upper = (labels == 0) & (events.mjj < 3300), (labels == 0) & (events.mjj >= 3700)
    assert lower.sum() > 1.5 * upper.sum()
    assert weights[lower].sum() == pytest.approx(weights[upper].sum())
    assert weights[labels == 1].sum() == pytest.approx(weights[labels == 0].sum())
    assert (weights[labels < 0] == 0).all()


def test_duplicates_of_an_event_are_in_its_fold() -> None:
    firsts = np.array([0, 1, 2, 1, 4, 0])
    folds = assign_folds(firsts, 5, "key")
    assert folds[3] == folds[1]
    assert folds[5] == folds[0]
    many = assign_folds(np.arange(10_000), 5, "key")
    assert np.bincount(many).min() > 1800


def test_a_score_knows_nothing_of_the_m_jj_of_its_fold() -> None:
    events = made_up()
    own = events.folds == 1
    moved = replace(events, mjj=np.where(own, 3500.0, events.mjj))
    before, after = (score_fold(one, REGION, SIDEBAND, fold=1, seed=1) for one in (events, moved))
    np.testing.assert_array_equal(before, after)
    elsewhere = replace(events, mjj=np.where(own, events.mjj, np.roll(events.mjj, 7)))
    assert (score_fold(elsewhere, REGION, SIDEBAND, fold=1, seed=1) != before).any()


def test_the_same_seed_gives_the_same_scores() -> None:
    events = made_up()
    first, again = (score_fold(events, REGION, SIDEBAND, fold=0, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_shuffled_events_have_each_others_masses_and_their_own_features() -> None:
    events = made_up()
    mixed = shuffled(events, [1, 2])
    np.testing.assert_array_equal(np.sort(mixed.mjj), np.sort(events.mjj))
    np.testing.assert_array_equal(mixed.values, events.values)
    assert (mixed.mjj != events.mjj).mean() > 0.99
    np.testing.assert_array_equal(mixed.mjj, shuffled(events, [1, 2]).mjj)


def test_a_region_without_enough_events_is_refused_with_its_place() -> None:
    with pytest.raises(
        BadInput, match=r"region from 6,000 to 6,400 GeV: .* has \d+ events to learn from, and 50"
    ):
        score_fold(made_up(), (6000.0, 6400.0), SIDEBAND, fold=0, seed=1)
