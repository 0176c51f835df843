"""What deserves an alarm: decided on recorded figures and steps."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhcq.evaluate.mcnemar import compare_decisions
from lhcq.evaluate.metrics import metrics_of
from lhcq.evaluate.watchdog import (
    WINDOW,
    SegmentSummary,
    StepWatch,
    find_collapse,
    find_overfitting,
    find_unknown,
)

USUAL = SegmentSummary(loss=0.4, grad_norm=1.0)


def first_fault(losses, norms=None, before=USUAL):
    """The number of the step at which the watch speaks, and what it says."""
    watch = StepWatch(before)
    for number, (loss, norm) in enumerate(zip(losses, norms or itertools.repeat(1.0), strict=False), start=1):
        if fault := watch.see(loss, norm):
            return number, fault
    return None


@given(st.lists(st.floats(0.0, 2.0), min_size=1, max_size=60))
def test_losses_as_training_has_them_raise_nothing(losses) -> None:
    assert first_fault(losses) is None


@given(st.lists(st.floats(0.1, 1.0), min_size=20, max_size=40), st.integers(0, 39))
def test_one_unlucky_step_is_no_divergence(losses, at) -> None:
    losses[at % len(losses)] = 9.0
    assert first_fault(losses) is None


def test_a_loss_that_stays_above_the_ceiling_is_a_divergence() -> None:
    step, fault = first_fault([0.4] * 12 + [6.0] * 12)
    assert 12 < step <= 12 + WINDOW
    assert fault.startswith("loss ")
    assert fault.endswith("0.40 before")


def test_an_untrained_model_that_is_sure_and_wrong_at_first_is_none() -> None:
    assert first_fault(np.linspace(5.0, 0.5, 40), before=None) is None
    assert first_fault([1.0] * 10 + [9.0] * 10, before=None) is not None


def test_a_gradient_that_explodes_while_the_loss_rises_is_a_divergence() -> None:
    norms = [1.0] * 12 + [80.0] * 12
    assert first_fault([0.4] * 12 + [0.9] * 12, norms)[1].startswith("gradient norm 40.5")
    assert first_fault([0.4] * 12 + [0.1] * 12, norms) is None


def test_a_segment_is_summed_up() -> None:
    watch = StepWatch(None)
    assert watch.summary() is None
    for loss, norm in ((1.0, 2.0), (0.5, 9.0), (0.0, 3.0)):
        watch.see(loss, norm)
    assert watch.summary() == SegmentSummary(loss=0.5, grad_norm=3.0)


def figures(n_signal, n_background, signal_scores, background_scores, unknown=0):
    scores = np.concatenate([np.resize(signal_scores, n_signal), np.resize(background_scores, n_background)])
    labels = np.repeat([1, 0], [n_signal, n_background])
    return metrics_of(labels, scores, np.where(np.arange(labels.size) < unknown, -1, labels))


def test_answers_of_one_class_are_a_collapse() -> None:
    assert "200 of 200 answers are signal, which 100" in find_collapse(
        figures(100, 100, [0.9, 0.8], [0.7, 0.95])
    )
    assert "200 of 200 answers are background" in find_collapse(figures(100, 100, [0.4, 0.3], [0.1, 0.2]))
    assert find_collapse(figures(100, 100, [0.9, 0.4], [0.2, 0.6])) is None


def test_a_rare_signal_below_the_threshold_is_no_collapse_while_the_scores_order_it() -> None:
    assert find_collapse(figures(20, 400, [0.3, 0.4], [0.1, 0.2])) is None
    assert find_collapse(figures(20, 400, [0.2], [0.2])) is not None


def test_few_events_cannot_tell_a_collapse() -> None:
    assert find_collapse(figures(8, 7, [0.9], [0.9])) is None


def test_unknown_answers_are_told_when_they_are_more_than_before() -> None:
    few, many = (figures(100, 100, [0.9], [0.1], unknown) for unknown in (4, 60))
    assert find_unknown(many, few) == "60 of 200 answers are neither label, 4 at the best checkpoint"
    assert find_unknown(many, many) is None
    assert find_unknown(few, figures(100, 100, [0.9], [0.1])) is None
    assert find_unknown(many, None) is None
    assert find_unknown(figures(100, 100, [0.9], [0.1], 190), None) is None  # nobody asked for words


OVERFITTED = {"nll": 0.5, "lowest_nll": 0.4, "rise_error": 0.01, "train_loss": 0.1, "train_loss_then": 0.3}


def test_overfitting_is_a_sure_rise_of_validation_while_training_falls() -> None:
    assert "validation NLL 0.500 after 0.400" in find_overfitting(**OVERFITTED)


@pytest.mark.parametrize(
    "change",
    [
        {"nll": 0.41},
        {"rise_error": 0.05},
        {"train_loss": 0.35},
        {"train_loss": None},
        {"train_loss_then": None},
    ],
)
def test_anything_less_is_not(change) -> None:
    assert find_overfitting(**{**OVERFITTED, **change}) is None


def test_mcnemar_agrees_with_the_sum_over_all_outcomes() -> None:
    from math import comb

    first = np.array([True] * 9 + [False] * 3 + [True] * 40)
    second = np.array([False] * 9 + [True] * 3 + [True] * 40)
    found = compare_decisions(first, second)
    assert (found.only_first, found.only_second) == (9, 3)
    tail = [comb(12, k) / 2**12 for k in range(4)]
    assert found.p_value == pytest.approx(2 * (sum(tail[:3]) + 0.5 * tail[3]))
    assert compare_decisions(second, first).p_value == found.p_value
    assert compare_decisions(first, first).p_value == 1.0
    assert compare_decisions([True, True], [False, False]).p_value == pytest.approx(0.25)
