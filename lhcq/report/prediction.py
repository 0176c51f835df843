"""The page of a prediction: what was selected, its m_jj spectrum, and the metrics where labels are known."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lhcq.records.labels import LABELS
from lhcq.records.metrics import Metrics, Sculpting
from lhcq.records.shared_events import describe_shared
from lhcq.report.sculpting import mass_warning, said_expectation, said_sculpting
from lhcq.report.style import BACKGROUND, FAINT, INK, MODEL, SIGNAL, Plot, pictured, scale_log
from lhcq.report.table import METRIC_ROWS, interval_of, printed_metric
from lhcq.report.templates import html_template

_TRUTH: dict[int | None, str] = {**dict(enumerate(LABELS)), None: ""}
_METRICS = ("accuracy", "auc", "balanced_accuracy", "max_sic", "ece", "nll")


def render_prediction(summary: dict[str, Any]) -> str:
    """The page as text, from a prediction's summary."""
    page: str = html_template("prediction.html.j2").render(
        summary=summary,
        facts=_facts(summary),
        verdict=prediction_verdict(summary),
        **pictured(plot_selection(summary)),
        alt=f"Histogram of the dijet mass of {summary['judged']['n']:,} events, of which "
        f"{summary['selection']['n_selected']:,} are selected.",
        metrics=prediction_metrics(summary),
        top=[_top_row(event) for event in summary["top"]],
    )
    return page


def prediction_verdict(summary: dict[str, Any]) -> list[str]:
    """What may be said of a prediction, in sentences."""
    judged, selection, reference = summary["judged"], summary["selection"], summary["reference"]
    sentences = []
    if summary["parts"] is not None:
        sentences.append(
            f"{summary['dataset']} is what the run was trained on: metrics, selection and spectrum are of the "
            f"{judged['n']:,} events of its test subset alone."
        )
    sentences += describe_shared(summary.get("shared"))  # a prediction of before has not looked
    threshold = selection["largest_p_value"]
    can_pass = reference["smallest_p_value"] <= threshold
    error = selection.get("expected_of_background_error")  # a prediction of before has none
    sentences.append(
        f"Selected, by a p-value of at most {threshold:g}: {selection['n_selected']:,} of {judged['n']:,} events"
        + (
            f"; background alone would give {selection['expected_of_background']:,.1f} ± {error:,.1f}, with "
            f"{reference['n_background']:,} background events to compare with."
            if can_pass and error is not None
            else "."
        )
    )
    if not can_pass:
        sentences.append(
            f"No event can pass: with {reference['n_background']:,} background events to compare with, no p-value is "
            f"below {reference['smallest_p_value']:.3g}. Select by a larger one, or train on a larger split."
        )
    for name in reversed(LABELS):
        found = selection[f"{name}_efficiency"]
        if found is not None:
            sentences.append(
                f"Of the {name}, {found['value']:.4g} [{found['low']:.4g}, {found['high']:.4g}] is selected."
            )
    return sentences + _spectrum_verdict(summary)


_BACKGROUNDS = {
    "reference": "the calibration subset's background",
    "judged": "the background among these events",
}


def _spectrum_verdict(summary: dict[str, Any]) -> list[str]:
    """What may be said of the selected m_jj; of a prediction of before it was looked at, nothing but the warning."""
    sentences = said_expectation(summary["expectation"]) if summary.get("expectation") else []
    for name, found in summary.get("sculpting", {}).items():
        if found is not None:
            sentences.append(said_sculpting(Sculpting.checked(**found), _BACKGROUNDS[name]))
    return sentences + mass_warning(summary["template"]["name"])


def prediction_metrics(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the metrics; empty where no label is known."""
    if summary["figures"] is None:
        return []
    # A prediction of before lacks what came later.
    metrics = Metrics.checked(**summary["figures"]).model_dump()
    return [("Events", f"{metrics['n']:,}"), ("of them signal", f"{metrics['n_signal']:,}")] + [
        (METRIC_ROWS[name] + (" [95%]" if interval_of(metrics, name) else ""), printed_metric(metrics, name))
        for name in _METRICS
    ]


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Run", summary["run"]),
        ("Checkpoint", f"step {summary['step']}"),
        ("Dataset", summary["dataset"]),
        ("Events", f"{summary['n_events']:,}"),
        ("Background to compare with", f"{summary['reference']['n_background']:,} of the calibration subset"),
        ("Answers in words that are neither label", f"{summary['unknown']:,}"),
    ]


def _top_row(event: dict[str, Any]) -> list[str]:
    mjj = "–" if event["mjj"] is None else f"{event['mjj']:,.0f}"
    return [
        str(event["row"]),
        f"{event['p_signal']:.6f}",
        f"{event['p_value']:.2e}",
        mjj,
        _TRUTH[event["label"]],
    ]


def plot_selection(summary: dict[str, Any]) -> Plot | None:
    """The spectrum of a prediction; None where no event has an m_jj."""
    if not summary["spectrum"]["edges"]:
        return None
    judged = summary["judged"]
    return Plot(
        draw=lambda axes: draw_selection(axes, summary),
        left=summary["name"],
        right=f"{judged['events']}, {judged['n']:,} events",
    )


def draw_selection(axes: Axes, summary: dict[str, Any]) -> None:
    """m_jj of all and of the selected events, on a logarithmic axis."""
    spectrum = summary["spectrum"]
    edges = np.array(spectrum["edges"])
    counts = {name: np.array(values, dtype=float) for name, values in spectrum["counts"].items()}
    axes.stairs(counts["all"], edges, color=FAINT, lw=1.4, label="all events")
    if spectrum["expected"] is not None:
        expected, error = (np.array(spectrum[name]) for name in ("expected", "expected_error"))
        band = {"baseline": (expected - error).clip(min=0), "fill": True, "color": BACKGROUND, "alpha": 0.2}
        axes.stairs(expected + error, edges, **band)
        axes.stairs(expected, edges, color=BACKGROUND, lw=1.4, ls="--", label="expected of background")
    if "selected_signal" in counts:
        axes.stairs(
            counts["selected_signal"],
            edges,
            color=SIGNAL,
            fill=True,
            alpha=0.35,
            label="selected, true signal",
        )
    centres, there = (edges[:-1] + edges[1:]) / 2, counts["selected"] > 0
    axes.errorbar(
        centres[there],
        counts["selected"][there],
        yerr=np.sqrt(counts["selected"][there]),
        fmt="o",
        ms=3.5,
        color=MODEL,
        label=f"selected, p-value up to {summary['selection']['largest_p_value']:g}",
    )
    scale_log(axes, 0.3, 30 * max(counts["all"].max(), 1.0))
    axes.set_xlabel(r"$m_{jj}$ [GeV]", color=INK)
    axes.set_ylabel(f"Events / {edges[1] - edges[0]:g} GeV")
    axes.legend(loc="upper right")
