"""P-values against the background of a reference, ranks, and the spectrum of what is selected."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lhcq.evaluate.p_values import p_values, p_values_among, passing_background, ranks
from lhcq.evaluate.spectrum import spectrum

PROBABILITIES = st.floats(0, 1).map(lambda p: round(p, 2))  # so that many are equal


@given(
    arrays(np.float64, st.integers(1, 20), elements=PROBABILITIES),
    arrays(np.float64, 30, elements=PROBABILITIES),
)
def test_a_p_value_counts_the_background_that_scores_at_least_as_high(p_signal, background) -> None:
    expected = [(1 + sum(other >= one for other in background)) / 31 for one in p_signal]
    assert p_values(p_signal, background).tolist() == pytest.approx(expected, rel=1e-12)


def test_background_passes_no_more_often_than_its_p_value_says() -> None:
    random = np.random.default_rng(5)
    passed = [p_values(random.random(200), random.random(19)) <= 0.1 for _ in range(300)]
    assert np.mean(passed) == pytest.approx(0.1, abs=0.01)  # 2 of 20 places, exactly 0.1 on average
    # Equal scores count as at least as high, so many ties make it more careful, never less.
    tied = [
        p_values(random.integers(0, 3, 200) / 2.0, random.integers(0, 3, 19) / 2.0) <= 0.1 for _ in range(300)
    ]
    assert np.mean(tied) < 0.1


@pytest.mark.parametrize("largest_p_value", [0.01, 0.1, 0.17, 1.0])
def test_what_background_alone_gives_is_what_it_gives_of_references_of_that_size(largest_p_value) -> None:
    random = np.random.default_rng(9)
    shares = [
        np.mean(p_values(random.random(400), random.random(18)) <= largest_p_value) for _ in range(1000)
    ]
    share, error = passing_background(18, largest_p_value)
    assert np.mean(shares) == pytest.approx(share, abs=0.01)
    assert np.std(shares) == pytest.approx(np.hypot(error, np.sqrt(share * (1 - share) / 400)), abs=0.01)


@given(arrays(np.float64, st.integers(1, 20), elements=PROBABILITIES))
def test_an_event_of_the_reference_is_compared_with_the_others_of_it(background) -> None:
    expected = [
        (1 + sum(other >= one for other in np.delete(background, place))) / (len(background) + 1)
        for place, one in enumerate(background)
    ]
    assert p_values_among(background).tolist() == pytest.approx(expected, rel=1e-12)


@given(st.integers(1, 300), st.sampled_from([0.001, 0.01, 0.03, 0.1, 0.25, 0.5]))
def test_the_reference_passes_as_often_as_background_is_said_to(n, largest_p_value) -> None:
    passed = np.count_nonzero(p_values_among(np.arange(n) / n) <= largest_p_value)
    assert passed / (n + 1) == pytest.approx(passing_background(n, largest_p_value)[0])


@given(arrays(np.float64, st.integers(0, 20), elements=PROBABILITIES))
def test_ranks_go_down_with_the_score_and_each_comes_once(p_signal) -> None:
    found = ranks(p_signal)
    assert sorted(found.tolist()) == list(range(1, len(p_signal) + 1))
    by_rank = p_signal[np.argsort(found)]
    assert (np.diff(by_rank) <= 0).all()


def test_the_spectrum_holds_every_event_that_has_a_mass() -> None:
    mjj = np.array([2050.0, 2099.9, 2100.0, 15_000.0, np.nan])
    selected = np.array([True, False, True, True, True])
    found = spectrum(mjj, selected, np.array([1, 0, 0, 1, 1], np.int8))
    assert found["edges"][0] == 2000.0
    assert found["edges"][-1] == 14_000.0
    assert found["counts"]["all"][:2] == [2, 1]
    assert {name: sum(counts) for name, counts in found["counts"].items()} == {
        "all": 4,
        "selected": 3,
        "selected_signal": 2,
        "selected_background": 1,
    }
    assert found["without_mjj"] == {"all": 1, "selected": 1}
