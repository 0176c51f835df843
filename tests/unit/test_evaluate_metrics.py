"""The figures against independent computations: brute force, bootstrap, and published properties."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from lhcq.errors import BadInput
from lhcq.evaluate.metrics import (
    SIC_BACKGROUND_FLOOR,
    Z95,
    Metrics,
    calibration_error,
    delong_error,
    metrics_of,
    wilson_interval,
)


def scored_events(
    n: int, seed: int, *, share: float = 0.5, ties: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < share).astype(np.int8)
    p_signal = 1 / (1 + np.exp(-(2.2 * labels - 1.1 + rng.normal(0, 1.2, n))))
    return labels, np.round(p_signal, 2) if ties else p_signal


LABELS_AND_SCORES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 100)), min_size=1, max_size=120).map(
    lambda pairs: (np.array([label for label, _ in pairs]), np.array([score for _, score in pairs]) / 100.0)
)


@given(LABELS_AND_SCORES)
def test_figures_are_json_without_nan_whatever_the_events(events: tuple[np.ndarray, np.ndarray]) -> None:
    figures = metrics_of(*events)
    written = json.dumps(figures.model_dump(), allow_nan=False)
    assert Metrics(**json.loads(written)) == figures
    assert figures.accuracy_low <= figures.accuracy <= figures.accuracy_high
    if figures.auc_low is not None:
        assert 0 <= figures.auc_low <= figures.auc <= figures.auc_high <= 1
    confusion = figures.confusion
    assert confusion.tp + confusion.fp + confusion.tn + confusion.fn == figures.n
    assert confusion.tp + confusion.fn == figures.n_signal


@given(LABELS_AND_SCORES, st.randoms())
def test_the_order_of_the_events_does_not_matter(
    events: tuple[np.ndarray, np.ndarray], random: object
) -> None:
    labels, p_signal = events
    order = list(range(labels.size))
    random.shuffle(order)
    one, other = (
        metrics_of(labels, p_signal).model_dump(),
        metrics_of(labels[order], p_signal[order]).model_dump(),
    )
    for name, value in one.items():
        assert other[name] == (pytest.approx(value, abs=1e-12) if isinstance(value, float) else value), name


def test_counts_and_accuracies_are_those_of_sklearn() -> None:
    labels, p_signal = scored_events(700, 1, share=0.3)
    figures = metrics_of(labels, p_signal)
    assert figures.accuracy == pytest.approx(accuracy_score(labels, p_signal >= 0.5))
    assert figures.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, p_signal >= 0.5))
    assert figures.brier == pytest.approx(np.mean((p_signal - labels) ** 2))
    chosen = np.where(labels == 1, p_signal, 1 - p_signal)
    assert figures.nll == pytest.approx(-np.log(chosen).mean())


def test_the_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    labels, p_signal = scored_events(300, 2, ties=True)
    difference = p_signal[labels == 1][:, None] - p_signal[labels == 0][None, :]
    pairs = ((difference > 0) + 0.5 * (difference == 0)).mean()
    assert metrics_of(labels, p_signal).auc == pytest.approx(pairs)


def test_the_error_of_the_auc_is_that_of_delongs_definition() -> None:
    """The definition by the m x n matrix of comparisons, without midranks."""
    labels, p_signal = scored_events(240, 3, ties=True)
    difference = p_signal[labels == 1][:, None] - p_signal[labels == 0][None, :]
    wins = (difference > 0) + 0.5 * (difference == 0)
    m, n = wins.shape
    expected = math.sqrt(wins.mean(axis=1).var(ddof=1) / m + wins.mean(axis=0).var(ddof=1) / n)
    assert delong_error(labels.astype(np.int64), p_signal) == pytest.approx(expected)


def test_the_error_of_the_auc_agrees_with_a_bootstrap() -> None:
    labels, p_signal = scored_events(500, 4)
    rng = np.random.default_rng(0)
    signal, background = p_signal[labels == 1], p_signal[labels == 0]
    truth = np.repeat([1, 0], [signal.size, background.size])
    drawn = [
        roc_auc_score(
            truth, np.concatenate([rng.choice(signal, signal.size), rng.choice(background, background.size)])
        )
        for _ in range(1000)
    ]
    # 1,000 draws know their spread to 2.2%; the rest is the bootstrap's own bias.
    assert metrics_of(labels, p_signal).auc_error == pytest.approx(np.std(drawn), rel=0.08)


def test_the_interval_of_the_auc_covers_the_truth_nineteen_times_in_twenty() -> None:
    truth = 0.5 * (1 + math.erf(2.2 / (1.2 * math.sqrt(2)) / math.sqrt(2)))  # two equal Gaussians, 2.2 apart
    covered = 0
    for seed in range(300):
        figures = metrics_of(*scored_events(200, 1000 + seed))
        covered += figures.auc_low <= truth <= figures.auc_high
    assert abs(covered / 300 - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 300)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 0, 0, 1]])
def test_a_perfect_separation_has_no_error_rather_than_an_error_of_zero(labels: list[int]) -> None:
    figures = metrics_of(labels, [0.1, 0.2, 0.3, 0.9])
    assert figures.auc == 1.0
    assert (figures.auc_error, figures.auc_low, figures.auc_high) == (None, None, None)


@pytest.mark.parametrize("ties", [False, True])
def test_the_largest_significance_improvement_is_that_of_a_search_over_all_thresholds(ties: bool) -> None:
    labels, p_signal = scored_events(900, 5, share=0.4, ties=ties)
    best = 0.0
    for threshold in np.unique(p_signal):
        chosen = p_signal >= threshold
        if (chosen & (labels == 0)).sum() >= SIC_BACKGROUND_FLOOR:
            eps_s, eps_b = chosen[labels == 1].mean(), chosen[labels == 0].mean()
            best = max(best, eps_s / math.sqrt(eps_b))
    figures = metrics_of(labels, p_signal)
    assert figures.max_sic == pytest.approx(best)
    assert figures.max_sic == pytest.approx(
        figures.max_sic_signal_efficiency / math.sqrt(figures.max_sic_background_efficiency)
    )


def test_too_little_background_gives_no_significance_improvement() -> None:
    labels = np.repeat([1, 0], [100, SIC_BACKGROUND_FLOOR - 1])
    assert metrics_of(labels, np.linspace(1, 0, labels.size)).max_sic is None
    labels = np.repeat([1, 0], [100, SIC_BACKGROUND_FLOOR])
    assert metrics_of(labels, np.linspace(1, 0, labels.size)).max_sic == 1.0


def test_a_perfect_separation_cannot_beat_the_background_floor() -> None:
    labels = np.repeat([1, 0], [500, 500])
    figures = metrics_of(labels, np.linspace(1, 0, 1000))
    assert figures.max_sic == pytest.approx(1 / math.sqrt(SIC_BACKGROUND_FLOOR / 500))


def test_one_class_leaves_undefined_what_is_undefined() -> None:
    figures = metrics_of([1, 1, 1], [0.9, 0.4, 0.8])
    assert (figures.auc, figures.balanced_accuracy, figures.max_sic) == (None, None, None)
    assert figures.accuracy == pytest.approx(2 / 3)
    assert (figures.confusion.tp, figures.confusion.fn) == (2, 1)


def test_a_sure_mistake_costs_a_finite_likelihood() -> None:
    assert metrics_of([1, 0], [0.0, 0.0]).nll == pytest.approx(-math.log(1e-6) / 2, rel=1e-5)


def test_unknowns_are_counted_and_change_nothing_else() -> None:
    labels, p_signal = scored_events(50, 6)
    answers = (p_signal >= 0.5).astype(np.int8)
    answers[[3, 8]] = -1
    figures = metrics_of(labels, p_signal, answers)
    assert figures.unknown == 2
    assert figures.generated_accuracy == np.mean(answers == labels) < figures.accuracy
    assert figures.generated_accuracy_low < figures.generated_accuracy < figures.generated_accuracy_high
    assert figures.agreement == 0.96
    asked = (
        "unknown",
        "generated_accuracy",
        "generated_accuracy_low",
        "generated_accuracy_high",
        "agreement",
    )
    assert figures.model_copy(update=dict.fromkeys(asked)) == metrics_of(labels, p_signal)


def test_calibrated_scores_have_a_small_calibration_error_and_shifted_ones_their_shift() -> None:
    rng = np.random.default_rng(7)
    p_signal = rng.uniform(0, 0.8, 60_000)
    labels = (rng.random(60_000) < p_signal).astype(np.int64)
    assert calibration_error(labels, p_signal)[0] < 0.01
    assert calibration_error(labels, p_signal + 0.2)[0] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.1])
def test_the_interval_of_the_calibration_error_covers_the_truth_where_the_error_itself_is_above_it(
    shift: float,
) -> None:
    """Of scores that are all too high by `shift`, the true error of any bin."""
    rng = np.random.default_rng(8)
    covered, above = 0, 0
    for _ in range(400):
        p_signal = rng.uniform(0, 0.8, 300)
        labels = (rng.random(300) < p_signal).astype(np.int64)
        error, low, high = calibration_error(labels, p_signal + shift)
        covered += low <= shift + 1e-12 <= high
        above += error > shift
    assert covered >= 375  # 380 are expected of 95%, give or take 4
    assert above > 220


def test_the_calibration_error_of_sure_and_right_scores_is_as_good_as_nothing_and_its_interval_is_in_bounds() -> (
    None
):
    labels = np.array([0, 1] * 8)
    assert calibration_error(labels, labels.astype(float)) == (0.0, 0.0, 0.0)
    error, low, high = calibration_error(np.array([1]), np.array([0.0]))
    assert (error, high) == (1.0, 1.0)
    assert low < 0.05  # one event says next to nothing


@pytest.mark.parametrize(("n_signal", "n_background"), [(40, 40), (15, 400)])
def test_the_interval_of_the_balanced_accuracy_covers_the_truth_nineteen_times_in_twenty(
    n_signal: int, n_background: int
) -> None:
    rng = np.random.default_rng(9)
    labels = np.repeat([1, 0], [n_signal, n_background])
    covered = 0
    for _ in range(600):
        right = rng.random(labels.size) < np.where(labels == 1, 0.9, 0.7)
        found = metrics_of(labels, np.where(right, labels, 1 - labels).astype(float))
        assert found.balanced_accuracy_low is not None
        assert found.balanced_accuracy_high is not None
        covered += found.balanced_accuracy_low <= 0.8 <= found.balanced_accuracy_high
    assert 555 <= covered <= 588  # 570 are expected, give or take 5


def test_the_intervals_of_likelihood_and_brier_score_are_those_of_a_bootstrap() -> None:
    labels, p_signal = scored_events(900, 10)
    found = metrics_of(labels, p_signal)
    rng = np.random.default_rng(0)
    losses = {
        "brier": (p_signal - labels) ** 2,
        "nll": -np.log(np.where(labels == 1, p_signal, 1 - p_signal)),
    }
    for name, of_events in losses.items():
        drawn = [rng.choice(of_events, of_events.size).mean() for _ in range(2000)]
        low, high = np.quantile(drawn, [0.025, 0.975])
        width = high - low
        assert getattr(found, f"{name}_low") == pytest.approx(low, abs=0.08 * width)
        assert getattr(found, f"{name}_high") == pytest.approx(high, abs=0.08 * width)


def test_a_single_event_gives_no_interval_of_a_mean_and_no_loss_has_one_below_0() -> None:
    one = metrics_of([1], [0.9])
    assert (one.brier_low, one.brier_high, one.nll_low, one.nll_high) == (None, None, None, None)
    few = metrics_of([1, 0, 1], [0.99, 0.01, 0.01])
    assert few.nll_low == few.brier_low == 0.0


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_bounds_solve_the_score_test(k_of_n: tuple[int, int]) -> None:
    """A bound p is where |k/n - p| is 1.96 standard deviations of a share with true value p."""
    k, n = k_of_n
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1
    for bound, end in ((low, k == 0), (high, k == n)):
        if not end:
            assert abs(k / n - bound) == pytest.approx(
                Z95 * math.sqrt(bound * (1 - bound) / n), rel=1e-6, abs=1e-12
            )


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_treats_both_classes_alike(k_of_n: tuple[int, int]) -> None:
    k, n = k_of_n
    low, high = wilson_interval(k, n)
    assert (1 - high, 1 - low) == pytest.approx(wilson_interval(n - k, n), abs=1e-12)


def test_wilson_of_the_study_is_the_interval_that_is_quoted() -> None:
    assert wilson_interval(835, 1000) == pytest.approx((0.8107, 0.8567), abs=1e-4)


@pytest.mark.parametrize("k_of_n", [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_not_a_share(k_of_n: tuple[int, int]) -> None:
    with pytest.raises(BadInput, match="is not a share"):
        wilson_interval(*k_of_n)


@pytest.mark.parametrize(
    ("labels", "p_signal", "message"),
    [
        ([], [], "no event to evaluate"),
        ([0, 2], [0.1, 0.2], "label 2 at position 1"),
        ([0, 1], [0.1, float("nan")], "P\\(signal\\) is nan at position 1"),
        ([0, 1], [0.1, 1.1], "P\\(signal\\) is 1.1 at position 1"),
        ([0, 1], [0.1], "do not fit"),
    ],
)
def test_bad_scores_are_refused_with_their_place(
    labels: list[int], p_signal: list[float], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        metrics_of(labels, p_signal)
