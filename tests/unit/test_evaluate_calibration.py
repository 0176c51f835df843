"""Temperature, thresholds and natural ratios."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhcq.errors import BadInput
from lhcq.evaluate.calibration import (
    apply_temperature,
    calibrated_metrics,
    fit_calibration,
    fit_temperature,
    likelihood_gain,
    natural_metrics,
)
from lhcq.evaluate.metrics import metrics_of


def sample(n, *, temperature=1.0, seed=1, signal_share=0.5):
    """Labels that follow their probabilities, and what a model says whose logits are `temperature` times as large."""
    rng = np.random.default_rng(seed)
    centre = np.log(signal_share / (1 - signal_share))
    logits = rng.normal(centre, 2.0, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(np.int8)
    return labels, 1 / (1 + np.exp(-logits * temperature))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_model_that_is_too_sure_or_not_enough_is_put_right(temperature) -> None:
    labels, p_signal = sample(20_000, temperature=temperature)
    assert fit_temperature(labels, p_signal) == pytest.approx(temperature, rel=0.06)


@given(st.lists(st.floats(0.01, 0.99), min_size=2, max_size=50), st.floats(0.1, 10))
def test_a_temperature_keeps_the_order(p_signal, temperature) -> None:
    order = np.argsort(p_signal, kind="stable")
    assert (np.diff(apply_temperature(p_signal, temperature)[order]) >= 0).all()


def test_what_was_fitted_on_one_sample_improves_another() -> None:
    calibration = fit_calibration(*sample(4000, temperature=4.0))
    labels, p_signal = sample(4000, temperature=4.0, seed=2)
    raw = metrics_of(labels, p_signal)
    found = calibrated_metrics(calibration, labels, p_signal, np.zeros(labels.size, dtype=bool))
    assert found.calibrated.nll < 0.8 * raw.nll
    assert found.calibrated.ece < 0.5 * raw.ece
    assert found.calibrated.auc == pytest.approx(raw.auc, abs=1e-5)
    assert len(found.natural) == 6
    assert found.gain == likelihood_gain(labels, p_signal, calibration.temperature)


def test_the_selection_of_rare_signal_is_held_to_the_background_s_masses() -> None:
    calibration = fit_calibration(*sample(4000))
    labels, p_signal = sample(4000, seed=2)
    unknown = np.zeros(labels.size, dtype=bool)
    even = np.random.default_rng(3).exponential(500, labels.size)
    found = [
        calibrated_metrics(calibration, labels, p_signal, unknown, mjj).sculpting
        for mjj in (even, 2000 + 1000 * p_signal, None)
    ]
    chosen = apply_temperature(p_signal, calibration.temperature) >= calibration.rare_threshold
    assert found[0] is not None
    assert found[0].n_selected == np.count_nonzero(chosen & (labels == 0)) >= 20
    assert found[0].p_value > 0.01
    assert found[1] is not None
    assert found[1].distance == 1.0  # the score is the mass
    assert found[2] is None
    without = calibration.model_copy(update={"rare_threshold": None})
    assert calibrated_metrics(without, labels, p_signal, unknown, even).sculpting is None


def test_the_balanced_threshold_is_not_one_half_where_signal_is_rare() -> None:
    labels, p_signal = sample(20_000, signal_share=0.05)
    calibration = fit_calibration(labels, p_signal)
    here = metrics_of(labels, p_signal, threshold=calibration.balanced_threshold)
    assert calibration.balanced_threshold < 0.3
    assert here.balanced_accuracy > metrics_of(labels, p_signal).balanced_accuracy + 0.05


def test_a_sample_without_a_mistake_has_finite_figures() -> None:
    labels = np.tile([0, 1], 40)
    calibration = fit_calibration(labels, np.where(labels == 1, 0.9, 0.1))
    assert 0.05 <= calibration.temperature < 0.1
    (natural,) = natural_metrics(labels, np.where(labels == 1, 0.9, 0.1), [0.5], [0.01])
    assert (natural.precision, natural.significance_improvement) == (1.0, None)
    assert 0 < natural.precision_low < 0.2


@given(st.integers(1, 8))
@settings(max_examples=8)
def test_natural_metrics_do_not_depend_on_the_ratio_of_the_sample(times) -> None:
    labels, p_signal = sample(400)
    background = np.flatnonzero(labels == 0)
    more = np.concatenate([np.arange(labels.size), *([background] * times)])
    (one,) = natural_metrics(labels, p_signal, [0.5], [0.01])
    (other,) = natural_metrics(labels[more], p_signal[more], [0.5], [0.01])
    assert other.precision == pytest.approx(one.precision)
    assert other.significance_improvement == pytest.approx(one.significance_improvement)
    kept = metrics_of(labels, p_signal).confusion
    expected = 0.01 * kept.tp / (kept.tp + kept.fn)
    assert one.precision == pytest.approx(expected / (expected + 0.99 * kept.fp / (kept.fp + kept.tn)))


def test_one_class_cannot_calibrate() -> None:
    with pytest.raises(BadInput, match="both classes"):
        fit_calibration([1, 1], [0.5, 0.6])


def test_it_is_told_whether_a_temperature_helps_the_events_that_are_shown() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0.0, 2.0, 4_000)
    labels = (rng.random(4_000) < 1.0 / (1.0 + np.exp(-logits))).astype(int)
    too_sure = 1.0 / (1.0 + np.exp(-3.0 * logits))
    helped = likelihood_gain(labels, too_sure, 3.0)
    assert helped.low > 0
    before, after = (metrics_of(labels, one).nll for one in (too_sure, apply_temperature(too_sure, 3.0)))
    assert helped.mean == pytest.approx(before - after, rel=1e-6)
    harmed = likelihood_gain(labels, apply_temperature(too_sure, 3.0), 1 / 3)
    assert harmed.high < 0
    nothing = likelihood_gain(labels, too_sure, 1.0)
    assert nothing.low <= 0 <= nothing.high


def test_a_single_event_bounds_no_gain() -> None:
    gain = likelihood_gain([1], [0.9], 2.0)
    assert gain.mean < 0
    assert gain.low is None
    assert gain.high is None
