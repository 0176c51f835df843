"""What a table says of a number: which of its values these events could have shown at all."""

from types import SimpleNamespace
from typing import Any

import pytest

from lhcq.evaluate.metrics import metrics_of
from lhcq.records.metrics import CalibratedMetrics, Calibration, Gain, NaturalMetrics
from lhcq.report.calibrated import calibrated_section
from lhcq.report.table import printed_metric, printed_sic


@pytest.mark.parametrize(("n_background", "largest"), [(25, "1.0"), (127, "2.3"), (2500, "10.0")])
def test_a_perfect_classifier_shows_all_that_its_background_can_show(n_background, largest) -> None:
    labels = [1] * 50 + [0] * n_background
    # The floor of 25 background events has to pass, so these are told from signal by nothing but their order.
    scores = [0.9] * 50 + [0.8] * 25 + [0.1] * (n_background - 25)
    assert printed_sic(metrics_of(labels, scores).model_dump()) == f"{largest} of {largest}"


def test_too_few_background_events_show_no_improvement() -> None:
    metrics = metrics_of([1] * 50 + [0] * 24, [0.9] * 50 + [0.1] * 24).model_dump()
    assert printed_sic(metrics) == "–"


def test_nobody_asked_the_trees_for_words() -> None:
    metrics = metrics_of([1, 0], [0.9, 0.1], [-1, 0]).model_dump()
    assert printed_metric(metrics, "unknown") == "1"
    assert printed_metric(metrics | {"unknown": None}, "unknown") == "–"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.001, 0.003, "helped"),
        (-0.003, -0.001, "did harm"),
        (-0.001, 0.003, "cannot tell"),
        (0.00003, 0.003, "helped on these events: the log-likelihood changed by +0.0015"),
        (0.00003, 0.003, "interval +0.00003 to +0.00300."),
        (-0.003, -0.00002, "interval -0.00300 to -0.00002."),
        (-0.00004, 0.003, "interval -0.00004 to"),
    ],
)
def test_the_page_says_of_calibration_no_more_than_its_interval(low, high, said) -> None:
    metrics = metrics_of([1, 0] * 50, [0.8, 0.2] * 50)
    fitted = Calibration(n=100, n_signal=50, temperature=1.2, balanced_threshold=0.5, rare_threshold=None)
    gain = Gain(mean=(low + high) / 2, low=low, high=high)
    shown = CalibratedMetrics(calibration=fitted, calibrated=metrics, natural=(), gain=gain)
    view: Any = SimpleNamespace(test=SimpleNamespace(metrics=metrics), calibrated=shown, manifest=None)
    verdict = calibrated_section(view)["verdict"]
    assert said in verdict
    view.calibrated = shown.model_copy(update={"gain": None})
    assert calibrated_section(view)["verdict"] == ""


def test_a_selection_below_the_floor_claims_no_improvement() -> None:
    metrics = metrics_of([1, 0] * 50, [0.8, 0.2] * 50)
    one = NaturalMetrics(
        threshold=0.9,
        signal_fraction=0.01,
        signal_efficiency=0.5,
        background_efficiency=0.02,
        precision=0.2,
        precision_low=0.1,
        significance_improvement=3.6,
        significance_improvement_low=1.1,
    )
    fitted = Calibration(n=100, n_signal=50, temperature=1.2, balanced_threshold=0.5, rare_threshold=0.9)
    enough = one.model_copy(update={"background_efficiency": 0.5})
    shown = CalibratedMetrics(calibration=fitted, calibrated=metrics, natural=(one, enough))
    view: Any = SimpleNamespace(test=SimpleNamespace(metrics=metrics), calibrated=shown, manifest=None)
    assert [cells[-1] for cells in calibrated_section(view)["natural"]] == [
        "– (1 background events)",
        "3.6 (above 1.1)",
    ]
