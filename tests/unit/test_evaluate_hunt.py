"""All tests of a search together: what is selected, and what the largest of many excesses is worth."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from lhcq.evaluate.excess import describe_excess
from lhcq.evaluate.hunt import (
    RegionTest,
    bin_edges,
    hunt,
    judge_by_truth,
    pseudo_experiments,
    select,
    spread_of,
    summarize,
)
from lhcq.evaluate.weak import WeakEvents, assign_folds
from lhcq.report.search import search_verdict

REGIONS = [(3100.0, 3500.0), (3300.0, 3700.0), (3500.0, 3900.0)]
SHARES = (0.05, 0.01)
EDGES = bin_edges(2700.0, 6300.0, REGIONS[0])


def made_up(n_signal: int = 0, n: int = 20_000) -> tuple[WeakEvents, np.ndarray, list[np.ndarray]]:
    """Events, whether each is signal, and scores that know signal a little."""
    random = np.random.default_rng(2)
    mjj = np.concatenate([2700 + random.exponential(450, n), random.normal(3500, 60, n_signal)])
    signal = np.arange(n + n_signal) >= n
    rows = np.arange(n + n_signal)
    events = WeakEvents(
        rows=rows, mjj=mjj, folds=assign_folds(rows, 5, "key"), values=random.normal(size=(len(rows), 2))
    )
    return events, signal, [random.normal(size=len(rows)) + 3 * signal for _ in REGIONS]


def summarized(events: WeakEvents, tests: list[RegionTest], **chance: Any) -> dict[str, Any]:
    """What was found; with a few pseudo-experiments, which take most of the time, where nothing is said of them."""
    pseudo = chance["pseudo"] if "pseudo" in chance else pseudo_experiments(tests, EDGES, seed=[1], n=2)
    shuffles = chance.get("shuffles", np.zeros((0, len(tests))))
    return summarize(events, tests, [], shuffles, pseudo, EDGES)


def test_of_each_fold_the_same_share_is_selected() -> None:
    events, _, scores = made_up()
    shifted = scores[0] + 100.0 * events.folds  # one fold's model says more to everything
    selected = select(shifted, events.folds, 0.01)
    for fold in range(5):
        members = events.folds == fold
        assert selected[members].sum() == round(0.01 * members.sum())
        assert shifted[members & selected].min() >= shifted[members & ~selected].max()


def test_equal_scores_do_not_select_more() -> None:
    assert select(np.zeros(1000), np.zeros(1000, np.int8), 0.05).sum() == 50


def test_equal_scores_of_a_file_that_is_sorted_by_mass_do_not_select_by_mass() -> None:
    n, folds = 100_000, np.arange(100_000) % 5
    places = np.flatnonzero(select(np.zeros(n), folds.astype(np.int8), 0.01)) / n
    assert len(places) == 1000
    # Uniform: the mean of a thousand is within four of its standard deviations, and so is each fifth's count.
    assert abs(places.mean() - 0.5) < 4 / np.sqrt(12 * len(places))
    assert np.abs(np.histogram(places, 5, (0, 1))[0] - 200).max() < 4 * np.sqrt(160)
    fewer = np.flatnonzero(select(np.zeros(n), folds.astype(np.int8), 0.001)) / n
    assert set(fewer) < set(places), "a smaller selection is of the larger one"


def test_edges_fall_on_those_of_every_region() -> None:
    assert {edge for region in REGIONS for edge in region} <= set(EDGES.tolist())
    assert EDGES[0] >= 2700
    assert EDGES[-1] <= 6300


def test_a_resonance_is_found_where_it_is() -> None:
    events, signal, scores = made_up(n_signal=200)
    tests = hunt(events, scores, REGIONS, SHARES, EDGES)
    found = summarized(events, tests, pseudo=pseudo_experiments(tests, EDGES, seed=[1], n=20))
    best = found["tests"][found["best"]]
    assert (best["low"], best["high"]) == (3300, 3700)
    assert best["z"] > 5
    assert found["global"]["how"] == "bound"
    assert found["global"]["p_value"] == pytest.approx(6 * norm.sf(best["z"]))
    truth = judge_by_truth(signal.astype(np.int8), events.mjj, tests)[found["best"]]
    assert truth["improvement"] is not None
    assert truth["improvement"] > 2


def test_what_the_excess_looks_like_is_what_was_put_in() -> None:
    events, signal, scores = made_up(n_signal=300)
    random = np.random.default_rng(4)
    looks = {
        "m_sd_heavy": np.where(
            signal, random.normal(500, 20, len(signal)), random.exponential(80, len(signal))
        )
    }
    tests = hunt(events, scores, REGIONS, SHARES, EDGES)
    found = summarized(events, tests)
    excess = describe_excess(events, tests, found, looks, EDGES)
    assert excess is not None
    assert abs(excess["mass"]["value"] - 3500) < 4 * excess["mass"]["error"]
    look = excess["looks"]["m_sd_heavy"]
    assert abs(look["median"] - 500) < 20
    assert 0 < look["error"] < 20
    kept = int((tests[found["best"]].selected & signal).sum())
    assert abs(excess["events"] - kept) < 4 * excess["events_error"]


def test_of_background_alone_the_global_p_value_counts_pseudo_experiments() -> None:
    events, _, scores = made_up()
    tests = hunt(events, scores, REGIONS, SHARES, EDGES)
    pseudo = pseudo_experiments(tests, EDGES, seed=[1], n=60)
    found = summarized(events, tests, pseudo=pseudo)
    z = max(test["z"] for test in found["tests"])
    beyond = int((pseudo.max(axis=1) >= z).sum())
    assert found["global"]["beyond"] == beyond
    assert found["global"]["p_value"] == (1 + beyond) / 61
    assert found["global"]["p_value"] > norm.sf(z)


def test_pseudo_experiments_are_those_of_their_seed_however_they_are_cut() -> None:
    events, _, scores = made_up()
    tests = hunt(events, scores, REGIONS, SHARES, EDGES)
    one, again, other = (pseudo_experiments(tests, EDGES, seed=[1, at], n=2) for at in (3, 3, 4))
    np.testing.assert_array_equal(one, again)
    assert (one != other).all()


def test_a_smaller_selection_is_drawn_from_the_larger_one() -> None:
    events, _, scores = made_up()
    tests = hunt(events, scores[:1], REGIONS[:1], (0.05, 0.04), EDGES)
    z = pseudo_experiments(tests, EDGES, seed=[1], n=60)
    assert np.corrcoef(z.T)[0, 1] > 0.7


def test_significances_are_divided_by_how_far_they_are_spread_without_signal() -> None:
    events, _, scores = made_up(n_signal=200)
    tests = hunt(events, scores, REGIONS, SHARES, EDGES)
    shuffles = np.random.default_rng(6).normal(0, 1, (500, len(tests))) * np.where(np.arange(6) % 2, 0.5, 2.0)
    found = summarized(events, tests, shuffles=shuffles)
    wide, narrow = found["spread"]
    assert (wide["share"], narrow["share"]) == SHARES
    assert wide["width"] == pytest.approx(2.0, rel=0.1)
    assert narrow["width"] == 1.0  # none gains by luck
    for test in found["tests"]:
        assert test["z"] == pytest.approx(
            test["z_of_fit"] / (wide["width"] if test["share"] == 0.05 else 1.0)
        )
        assert test["p_value"] == pytest.approx(norm.sf(test["z"]))


def test_an_excess_is_worth_describing_by_the_significance_that_is_told() -> None:
    events, _, scores = made_up(n_signal=200)
    tests = hunt(events, scores, REGIONS, SHARES, EDGES)
    narrow = summarized(events, tests)
    z = narrow["tests"][narrow["best"]]["z"]
    spread = np.where(np.random.default_rng(7).random((500, len(tests))) < 0.5, -z / 1.9, z / 1.9)
    wide = summarized(events, tests, shuffles=spread)
    assert 0 < wide["tests"][wide["best"]]["z"] < 2 < wide["tests"][wide["best"]]["z_of_fit"]
    assert describe_excess(events, tests, wide, {}, EDGES) is None
    assert describe_excess(events, tests, narrow, {}, EDGES) is not None


@pytest.mark.parametrize("kept", [False, True])
def test_an_excess_of_events_whose_values_are_missing_is_told(kept: bool) -> None:
    events, signal, scores = made_up(n_signal=200)
    if not kept:
        events.values[signal, 0] = np.nan
    events.values[np.flatnonzero(~signal)[::50], 1] = np.nan  # as anywhere
    tests = hunt(events, scores, REGIONS, SHARES, EDGES)
    found = summarized(events, tests)
    found["excess"] = describe_excess(events, tests, found, {}, EDGES)
    found["inclusive"] = [{"low": low, "fit": {"p_value": 0.5}} for low, _ in REGIONS]
    assert found["excess"]["lacking"]["share_elsewhere"] == pytest.approx(0.02, rel=0.1)
    warned = [line for line in search_verdict(found) if line.startswith("Beware: of the ")]
    assert len(warned) == (0 if kept else 1)
    assert kept or "2.0" in warned[0]


def test_shuffles_without_a_fit_say_nothing_of_the_spread() -> None:
    assert spread_of(np.full((3, 2), np.nan)).width == 1.0


def test_a_fit_that_failed_is_no_number() -> None:
    events, _, scores = made_up(n=300)
    tests = hunt(events, scores, REGIONS, (0.01,), EDGES)
    found = summarize(
        events, tests, [], np.zeros((0, 3)), pseudo_experiments(tests, EDGES, seed=[1], n=2), EDGES
    )
    assert {test["reason"] for test in found["tests"]} == {"there are fewer than 10 events beside the region"}
    assert {test["z"] for test in found["tests"]} == {None}
    assert found["global"] is None
    assert found["best"] is None
