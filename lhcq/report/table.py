"""The table of checkpoints, as plain rows for the page, the terminal and JSON."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from lhcq.records.metrics import Metrics
from lhcq.records.run_state import Judgement
from lhcq.report.views import RunView

COLUMNS = {
    "classifier": "classifier",
    "part": "part",
    "accuracy": "accuracy [95%]",
    "auc": "AUC [95%]",
    "max_sic": "max SIC",
    "ece": "ECE",
    "nll": "NLL",
    "train_loss": "training loss",
    "unknown": "unknown",
    "mcnemar": "against best before",
}
"""Printed columns in order, with their headings."""

_METRICS = (
    "n", "n_signal", "accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "balanced_accuracy_low",
    "balanced_accuracy_high", "auc", "auc_low", "auc_high", "auc_error", "max_sic", "max_sic_background_floor",
    "ece", "ece_low", "ece_high", "nll", "nll_low", "nll_high", "brier", "brier_low", "brier_high", "unknown",
    "generated_accuracy", "generated_accuracy_low", "generated_accuracy_high", "agreement",
)  # fmt: skip

METRIC_ROWS = {
    "accuracy": "Accuracy",
    "generated_accuracy": "Accuracy of generated answers",
    "balanced_accuracy": "Balanced accuracy",
    "auc": "AUC",
    "max_sic": "Max. significance improvement",
    "max_sic_signal_efficiency": "at a signal efficiency of",
    "ece": "Calibration error (ECE)",
    "brier": "Brier score",
    "nll": "Negative log-likelihood",
    "unknown": "Unknown answers",
    "agreement": "Generated answers that are the likelier label",
}
"""Printed metrics of one classifier in order, with their titles."""

_MOST_DIGITS = 12


def checkpoint_table(view: RunView) -> list[dict[str, Any]]:
    """One row a checkpoint (validation), then the boosted trees, then both on the test subset when it is scored.

    A row has `classifier`, `part`, `step`, `state` (planned, written, validated, tested, fitted or, of one kind of
    trees where only the other was fitted, absent), `best`, `train_loss`, the metrics and McNemar's test against the
    best checkpoint before it (`mcnemar_p`, with the events on which only one of the two is right); what is not known
    yet is None.
    """
    rows = [
        _row(
            f"step {checkpoint.step}",
            "validation",
            checkpoint.metrics,
            step=checkpoint.step,
            state="validated" if checkpoint.metrics else "written" if checkpoint.written else "planned",
            best=checkpoint.step == view.best_step,
            train_loss=checkpoint.train_loss,
            judgement=checkpoint.judgement,
        )
        for checkpoint in view.checkpoints
    ]
    rows += _trees(view, "validation")
    if view.test:
        name = f"step {view.test.step}"
        rows.append(_row(name, "test", view.test.metrics, step=view.test.step, state="tested"))
        rows += _trees(view, "test")
    return rows


def _trees(view: RunView, subset: str) -> list[dict[str, Any]]:
    return [
        _row(trees.name, subset, metrics, state="fitted" if metrics else "absent")
        for trees, metrics in view.baseline.beside(subset)
    ]


def printed_row(row: dict[str, Any]) -> dict[str, str]:
    """The row as text under `COLUMNS`: the page and the terminal print the same digits."""
    waiting = {"planned": "not trained yet", "written": "not validated yet"}.get(row["state"], "")
    return {
        "classifier": row["classifier"] + (" (best)" if row["best"] else ""),
        "part": row["part"],
        "accuracy": waiting or printed_interval(row, "accuracy"),
        "auc": printed_interval(row, "auc"),
        "max_sic": printed_sic(row),
        "ece": printed(row["ece"]),
        "nll": printed(row["nll"]),
        "train_loss": printed(row["train_loss"]),
        "unknown": printed(row["unknown"], digits=0) if row["accuracy"] is not None else "",
        "mcnemar": _printed_test(row),
    }


def _printed_test(row: dict[str, Any]) -> str:
    """`+34 −12, p 0.001`: events that only this one has right, that only the other has, and McNemar's p-value."""
    if row["mcnemar_p"] is None:
        return ""
    return f"+{row['only_this_right']} −{row['only_previous_right']}, p {row['mcnemar_p']:.2g}"


def printed(value: float | None, *, digits: int = 3) -> str:
    """A metric, or a dash where it is undefined or not there yet."""
    return "–" if value is None else f"{value:.{digits}f}"


def printed_sic(metrics: dict[str, Any]) -> str:
    """`2.1 of 2.2`: the largest significance improvement, and the largest that these events can show.

    A threshold has to keep `max_sic_background_floor` background events to count, so that no classifier, however
    good, is seen to pass sqrt(background events / floor).
    """
    if metrics["max_sic"] is None:
        return printed(None)
    n_background = metrics["n"] - metrics["n_signal"]
    largest = math.sqrt(n_background / metrics["max_sic_background_floor"])
    return f"{metrics['max_sic']:.1f} of {largest:.1f}"


def printed_metric(metrics: dict[str, Any], name: str) -> str:
    """One of `METRIC_ROWS`, or a threshold, with its interval where it has one."""
    if interval_of(metrics, name):
        return printed_interval(metrics, name)
    if name == "max_sic":
        return printed_sic(metrics)
    if name == "unknown":
        return printed(metrics[name], digits=0)
    return printed(metrics[name], digits={"max_sic_signal_efficiency": 2}.get(name, 3))


def printed_interval(metrics: dict[str, Any], name: str, *, beside: float | None = None) -> str:
    """`0.884 [0.860, 0.905]`, without brackets where there is no interval.

    `beside` is the number that a sentence compares it with: so many digits are printed that they say the same.
    """
    value, interval = metrics[name], interval_of(metrics, name)
    if interval is None:
        return printed(value)
    low, high = interval
    digits = 3 if beside is None else digits_apart((value, low, high), beside, least=3)
    return " ".join((printed(value, digits=digits), f"[{low:.{digits}f}, {high:.{digits}f}]"))


def interval_of(metrics: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """The 95% interval of a metric; None where it has none, or an earlier lhcq did not know one."""
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return None if low is None or high is None else (low, high)


def digits_apart(values: Iterable[float], reference: float, *, least: int) -> int:
    """The fewest decimals, from `least` on, that keep each value on its own side of the reference when printed."""
    return max((_digits_apart(value, reference, least) for value in values), default=least)


def _digits_apart(value: float, reference: float, least: int) -> int:
    if value == reference:
        return least
    return next(
        (
            digits
            for digits in range(least, _MOST_DIGITS)
            if (float(f"{value:.{digits}f}") > reference, float(f"{value:.{digits}f}") < reference)
            == (value > reference, value < reference)
        ),
        _MOST_DIGITS,
    )


def _row(
    classifier: str,
    subset: str,
    metrics: Metrics | None,
    *,
    state: str,
    step: int | None = None,
    best: bool = False,
    train_loss: float | None = None,
    judgement: Judgement | None = None,
) -> dict[str, Any]:
    known = metrics.model_dump() if metrics else {}
    return {
        "classifier": classifier,
        "part": subset,
        "step": step,
        "state": state,
        "best": best,
        "train_loss": train_loss,
        "mcnemar_p": judgement and judgement.p_value,
        "only_this_right": judgement and judgement.only_this_right,
        "only_previous_right": judgement and judgement.only_previous_right,
        **{name: known.get(name) for name in _METRICS},
    }


def printed_template(recorded: Mapping[str, Any]) -> str:
    """A template as a split's manifest has it: `wide v1`, or `particles v1 (10 constituents, principal-axis)`."""
    name = f"{recorded['name']} v{recorded['version']}"
    if not (most := recorded.get("constituents")):
        return name
    return f"{name} ({most} constituents, {recorded['frame']})"
