"""Whether a selection sculpts m_jj, and what background alone would give after it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from lhcq.evaluate.sculpting import compare, expect, passing_share, sculpting_of
from lhcq.report.sculpting import said_expectation

EDGES = np.arange(2300.0, 8001.0, 100.0)


def falling(n: int, random: np.random.Generator) -> np.ndarray:
    """Masses of background, GeV, as steeply falling as dijets above a trigger."""
    return 2300 + random.exponential(500, n)


def keep(mjj: np.ndarray, random: np.random.Generator, *, peak: bool) -> np.ndarray:
    """Which of these events a selection keeps: about 1% everywhere, or most of them about 3.5 TeV."""
    share = 0.08 * np.exp(-0.5 * ((mjj - 3500) / 200) ** 2) + 0.0005 if peak else np.full(len(mjj), 0.01)
    return random.random(len(mjj)) < share


def test_the_distance_is_scipy_s_and_events_without_a_mass_do_not_count() -> None:
    random = np.random.default_rng(1)
    mjj = falling(12_000, random)
    selected = keep(mjj, random, peak=True)
    found = sculpting_of(np.r_[mjj, np.nan, np.nan], np.r_[selected, True, False])
    assert selected.sum() >= 30
    expected = ks_2samp(mjj[selected], mjj[~selected], method="asymp")
    assert found is not None
    assert (found.n_selected, found.n_others) == (selected.sum(), (~selected).sum())
    assert (found.distance, found.p_value) == (expected.statistic, expected.pvalue)
    assert 0 < found.low < found.distance < found.high <= 1
    assert found.p_value < 1e-6


@pytest.mark.parametrize("selected", [True, False])
def test_nothing_can_be_compared_where_all_or_no_event_is_selected(selected) -> None:
    assert sculpting_of(np.array([2500.0, 3000.0]), np.full(2, selected)) is None
    assert sculpting_of(np.array([]), np.array([], bool)) is None
    assert sculpting_of(np.array([2500.0, 3000.0]), np.array([True, False])) is None


def test_the_interval_covers_the_true_distance_and_an_even_selection_is_not_called_sculpting() -> None:
    covered, rejected = [], []
    for seed in range(200):
        random = np.random.default_rng(seed)
        mjj, shifted = falling(2000, random), falling(60, random) + 100
        # Exponentials that lie 100 GeV apart are 1 - exp(-100 / 500) from each other.
        found = sculpting_of(np.r_[mjj, shifted], np.r_[np.zeros(2000, bool), np.ones(60, bool)])
        assert found is not None
        covered.append(found.low <= 1 - np.exp(-0.2) <= found.high)
        even = sculpting_of(mjj, keep(mjj, random, peak=False))
        assert even is not None
        rejected.append(even.p_value < 0.05)
    assert np.mean(covered) >= 0.95
    assert np.mean(rejected) < 0.1


@pytest.mark.parametrize("peak", [False, True])
@pytest.mark.parametrize(("n_reference", "n_judged"), [(5000, 2000), (5000, 100_000), (20_000, 100_000)])
def test_background_alone_agrees_with_what_is_expected_of_it(peak, n_reference, n_judged) -> None:
    found = []
    for seed in range(200_000 // n_judged if n_judged < 5000 else 30):
        random = np.random.default_rng(seed)
        reference, judged = falling(n_reference, random), falling(n_judged, random)
        passing = passing_share(reference, keep(reference, random, peak=peak))
        found.append(compare(passing, judged, keep(judged, random, peak=peak)))
    compared = [one for one in found if one["bins"]]
    assert len(compared) > 0.9 * len(found)
    assert 0.7 < np.mean([one["chi2"] / one["bins"] for one in compared if one["chi2"] is not None]) < 1.3
    assert np.mean([one["excess"]["p_value_anywhere"] < 0.05 for one in compared]) <= 0.1
    pulls = [
        (one["seen"] - one["expected"]) / np.hypot(one["error"], np.sqrt(one["expected"])) for one in found
    ]
    assert abs(np.mean(pulls)) < 0.5
    assert np.std(pulls) < 1.4


def test_an_excess_is_found_where_it_is() -> None:
    random = np.random.default_rng(4)
    reference, judged = falling(100_000, random), falling(100_000, random)
    passing = passing_share(reference, keep(reference, random, peak=False))
    signal = random.normal(3500, 50, 60)
    mjj = np.r_[judged, signal]
    excess = compare(passing, mjj, np.r_[keep(judged, random, peak=False), np.ones(60, bool)])["excess"]
    assert excess["low"] < 3500 < excess["high"]
    assert excess["p_value_anywhere"] < 1e-3


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.booleans())
def test_of_the_reference_s_own_spectrum_as_many_are_expected_as_were_selected(seed, n, peak) -> None:
    random = np.random.default_rng(seed)
    mjj = falling(n, random)
    selected = random.random(n) < 0.2 if not peak else mjj > np.quantile(mjj, 0.8)
    passing = passing_share(mjj, selected)
    assert len(passing.share) == len(passing.error) == len(passing.edges) + 1
    assert (passing.error > 0).all()
    expected, error = expect(passing, mjj, np.array([0.0, 2500.0, 1e6]))
    assert expected.sum() == pytest.approx(selected.sum() * n / (n + 1))  # as another event would be
    assert (error >= 0).all()
    apart = passing_share(np.r_[mjj, np.nan], np.r_[selected, False])  # counts, and lies in no bin
    assert apart.share == pytest.approx(passing.share * (n + 1) ** 2 / (n * (n + 2)))
    found = compare(passing, mjj, selected)
    assert found["expected"] == pytest.approx(found["seen"] * n / (n + 1))


def test_within_a_bin_of_the_share_the_expectation_has_the_spectrum_s_shape() -> None:
    mjj = np.repeat([2350.0, 2450.0, 2550.0], [600, 300, 100])
    passing = passing_share(mjj, np.arange(1000) % 250 == 0)  # four: too few for more than one bin
    expected, error = expect(passing, np.repeat([2350.0, 2550.0], [30, 10]), EDGES)
    assert passing.share.tolist() == pytest.approx([4 / 1001])
    assert expected[:3].tolist() == pytest.approx([120 / 1001, 0.0, 40 / 1001])
    assert error[0] == pytest.approx(3 * error[2])


def test_where_fewer_than_five_events_are_expected_no_spectra_are_compared() -> None:
    random = np.random.default_rng(6)
    reference, judged = falling(1000, random), falling(100, random)
    found = compare(
        passing_share(reference, keep(reference, random, peak=False)), judged, np.zeros(100, bool)
    )
    assert (found["bins"], found["chi2"], found["excess"]) == (0, None, None)
    assert found["expected"] > 0


def test_one_bin_has_an_excess_and_no_shape_that_could_be_compared() -> None:
    mjj = np.linspace(2400.0, 3000.0, 1000)
    passing = passing_share(mjj, np.arange(1000) % 250 == 0)  # four: too few for more than one bin
    found = compare(passing, np.linspace(2400.0, 3000.0, 3000), np.arange(3000) < 60)
    assert (found["bins"], found["chi2"], found["p_value"]) == (1, None, None)
    assert found["excess"]["seen"] == 60
    assert found["excess"]["p_value"] < 0.001
    assert "shape is not compared. The largest excess: 60 events" in " ".join(said_expectation(found))


@pytest.mark.parametrize("n_selected", [3, 4, 9])
def test_of_few_events_the_p_value_is_the_share_of_random_selections_that_are_as_far_apart(
    n_selected: int,
) -> None:
    n = 85
    rng = np.random.default_rng(5)
    mjj = np.sort(rng.exponential(800.0, n) + 2000.0)
    selected = np.zeros(n, bool)
    selected[np.linspace(72 - 3 * n_selected, n - 3, n_selected).astype(int)] = True
    found = sculpting_of(mjj, selected)
    assert found is not None
    drawn = rng.permuted(np.tile(selected, (100_000, 1)), axis=1)  # the masses are sorted
    steps = np.where(drawn, 1 / n_selected, -1 / (n - n_selected))
    distances = np.abs(steps.cumsum(axis=1)).max(axis=1)
    share = np.mean(distances >= found.distance - 1e-12)
    assert 0.001 < share < 0.05
    assert found.p_value == pytest.approx(share, abs=4 * np.sqrt(share / 100_000))
