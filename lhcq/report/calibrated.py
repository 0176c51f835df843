"""The report's section on the calibrated probabilities, and on selections where signal is rare."""

from typing import Any

from lhcq.records.metrics import Gain, Metrics, NaturalMetrics
from lhcq.report.sculpting import mass_warning, said_sculpting
from lhcq.report.table import METRIC_ROWS, digits_apart, printed, printed_metric
from lhcq.report.views import RunView

_ROWS = ("accuracy", "balanced_accuracy", "ece", "brier", "nll")


def calibrated_section(view: RunView) -> dict[str, Any]:
    """The test subset, raw and calibrated, and the selections where signal is rare; empty before it is scored."""
    if view.calibrated is None or view.test is None:
        return {}
    fitted, calibrated = view.calibrated.calibration, view.calibrated.calibrated.model_dump()
    raw = view.test.metrics.model_dump()
    rows = {"threshold": "Threshold", **{name: METRIC_ROWS[name] for name in _ROWS}}
    return {
        "fitted": f"temperature {fitted.temperature:.3f}, on {fitted.n:,} events of the calibration subset",
        "lines": [
            (title, printed_metric(raw, name), printed_metric(calibrated, name))
            for name, title in rows.items()
        ],
        "natural": [
            (
                f"{one.signal_fraction:.3%}",
                f"{one.threshold:.3f}",
                printed(one.signal_efficiency),
                f"{one.background_efficiency:.2g}",
                f"{printed(one.precision)} (above {printed(one.precision_low)})",
                _improvement(one, view.test.metrics),
            )
            for one in view.calibrated.natural
        ],
        "verdict": _whether_it_helped(view.calibrated.gain),
        "sculpting": _sculpting(view),
    }


def _sculpting(view: RunView) -> list[str]:
    """What the selection for rare signal makes of m_jj, and what the prompts let one expect of it."""
    found = view.calibrated.sculpting if view.calibrated else None
    template = ((view.manifest or {}).get("template") or {}).get("name")
    sentences = (
        [said_sculpting(found, "the test subset's background, at the threshold for rare signal")]
        if found
        else []
    )
    return sentences + (mass_warning(template) if template else [])


def _improvement(one: NaturalMetrics, metrics: Metrics) -> str:
    """The improvement of a selection, unless it kept fewer background events than count for the largest one."""
    kept = round(one.background_efficiency * (metrics.n - metrics.n_signal))
    if kept < metrics.max_sic_background_floor:
        return f"– ({kept} background events)"
    return (
        f"{printed(one.significance_improvement, digits=1)} "
        f"(above {printed(one.significance_improvement_low, digits=1)})"
    )


def _whether_it_helped(gain: Gain | None) -> str:
    """In a sentence that goes no further than the interval; nothing where it was not looked at."""
    if gain is None or gain.low is None or gain.high is None:
        return ""
    digits = digits_apart((gain.mean, gain.low, gain.high), 0.0, least=4)
    mean, low, high = (f"{value:+.{digits}f}" for value in (gain.mean, gain.low, gain.high))
    interval = f"by {mean} nats an event, 95% interval {low} to {high}"
    if gain.low > 0:
        return f"Calibration helped on these events: the log-likelihood changed {interval}."
    if gain.high < 0:
        return f"Calibration did harm on these events: the log-likelihood changed {interval}."
    return f"These events cannot tell whether calibration helps: the log-likelihood changed {interval}."
