"""The report: one HTML page about a run that needs nothing beside itself."""

import datetime
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lhcq.report.calibrated import calibrated_section
from lhcq.report.collect import collect_run
from lhcq.report.comparison import Compare, pairs_with_trees, said_pair
from lhcq.report.plots import plot_run
from lhcq.report.style import pictured
from lhcq.report.table import (
    COLUMNS,
    METRIC_ROWS,
    checkpoint_table,
    printed,
    printed_metric,
    printed_row,
    printed_template,
)
from lhcq.report.templates import html_template
from lhcq.report.verdict import said_alarm, verdict_of
from lhcq.report.views import RunView
from lhcq.storage import write_text
from lhcq.version import version
from lhcq.workspace import RunPaths, Workspace

PACKAGES = ("numpy", "scikit-learn", "pyarrow", "matplotlib")


class Picture(NamedTuple):
    """A plot on the page."""

    title: str
    caption: str
    missing: str
    """Why it may not be there."""


PICTURES = {
    "loss": Picture(
        "Loss",
        "Cross-entropy over the two labels at every optimizer step, with the likelihood on the validation subset and "
        "the learning rate (dashed).",
        "not yet, no step has been trained.",
    ),
    "accuracy": Picture(
        "Accuracy by checkpoint",
        "On the validation subset, with 95% Wilson intervals; bands: boosted trees on the same events.",
        "not yet, no checkpoint has been validated.",
    ),
    "auc": Picture(
        "AUC by checkpoint",
        "On the validation subset, with 95% DeLong intervals; bands: boosted trees on the same events. The filled "
        "point is the checkpoint that is chosen.",
        "not yet, or the events are of one class.",
    ),
    "roc": Picture(
        "Background rejection",
        "Against signal efficiency, with 68% bands from the background's statistics; dots: P(signal) = 0.5.",
        "not yet, or the events are of one class.",
    ),
    "sic": Picture(
        "Significance improvement",
        "Signal efficiency over the root of the background efficiency, with 68% bands. A curve ends where too few "
        "background events pass for an improvement to be told.",
        "not yet, no checkpoint has been validated.",
    ),
    "scores": Picture(
        "Scores",
        "P(signal) for true signal and background, each normalised to one, with statistical errors.",
        "not yet, no checkpoint has been validated.",
    ),
    "calibration": Picture(
        "Calibration",
        "Observed share of signal against the predicted one, in ten bins of equal occupancy, with 95% intervals.",
        "not yet, no checkpoint has been validated.",
    ),
    "m_heavy": Picture(
        "Jet mass",
        "Heavier of the two leading jets: truth, and what the model selects at P(signal) of at least 0.5. "
        "The outermost bins hold the overflow.",
        "not yet, or the split is gone.",
    ),
    "mjj": Picture(
        "Dijet mass",
        "Invariant mass of the two leading jets: the selected background shows whether the choice sculpts it.",
        "not yet, or the split is gone.",
    ),
}


def write_report(workspace: Workspace, run: str, compare: Compare, out: Path | None = None) -> Path:
    """Write `report.html` of a run, or the file `out`, replacing an earlier one in one step; gives its path.

    `compare` tests the run against its trees. Works at any time after the run was queued. Raises `NotThere` when
    there is no such run.
    """
    view = collect_run(workspace, run)
    path = out or RunPaths(workspace.run(run)).page
    write_text(path, render_page(view, compare))
    return path


def render_page(view: RunView, compare: Compare) -> str:
    """The page as text; `compare` tests the run against its trees."""
    rows = checkpoint_table(view)
    page: str = html_template("page.html.j2").render(
        view=view,
        title=f"{view.name}: {view.model} on {view.split}",
        facts=_facts(view),
        verdict=verdict_of(view),
        alarms=[said_alarm(*found, paused=view.state == "paused") for found in view.alarms],
        comparison=_comparison(view),
        tests=[said_pair(pair) for pair in pairs_with_trees(view, compare) if pair["comparison"]],
        calibrated=calibrated_section(view),
        columns=COLUMNS,
        rows=[(row, printed_row(row)) for row in rows],
        pictures=_pictures(view),
        config=[(name, _said(value)) for name, value in sorted(view.config.items())],
        provenance=_provenance(view),
    )
    return page


def _selection(view: RunView) -> str:
    return str(view.config.get("select", "auc")).upper()


def _facts(view: RunView) -> list[tuple[str, str]]:
    reached = int(view.history.steps[-1]) if view.history.steps.size else 0
    best = (
        f"step {view.best_step}, by validation {_selection(view)}"
        if view.best_step is not None
        else "not yet"
    )
    if view.test and view.test.step != view.best_step:
        best += f"; tested: step {view.test.step}"
    speed = view.history.samples_per_second[np.isfinite(view.history.samples_per_second)]
    facts = [
        ("State", view.state),
        ("Model", view.model),
        ("Split", view.split),
        ("Steps", f"{reached} of {view.total_steps}" if view.total_steps else str(reached)),
        ("Speed", f"{np.median(speed):.3g} samples/s" if speed.size else "not yet"),
        ("Best checkpoint", best),
    ]
    if view.alarms:
        facts.append(("Alarms", str(len(view.alarms))))
    facts += [(trees.name.capitalize(), trees.missing) for trees in view.baseline if trees.missing]
    return facts


def _comparison(view: RunView) -> dict[str, Any]:
    """The best checkpoint beside the trees: headings, and a line of cells a metric; no lines before a validation."""
    columns: list[tuple[str, str, dict[str, Any] | None]] = []
    for subset, model in (("test", view.test), ("validation", view.validation)):
        if model is None:
            continue
        columns.append((f"LLM, {subset}", f"{model.metrics.n:,} events", model.metrics.model_dump()))
        for trees, metrics in view.baseline.beside(subset):
            heading = f"{trees.name.capitalize()}, {subset}"
            if metrics:
                columns.append((heading, f"{metrics.n:,} events", metrics.model_dump()))
            else:
                columns.append((heading, trees.missing, None))
    there = [metrics for *_, metrics in columns]
    return {
        "headings": [(heading, remark) for heading, remark, _ in columns],
        "lines": [
            (title, [printed_metric(one, name) if one else printed(None) for one in there])
            for name, title in METRIC_ROWS.items()
        ]
        if there
        else [],
        "floor": there[0]["max_sic_background_floor"] if there and there[0] else None,
    }


def _pictures(view: RunView) -> list[dict[str, str]]:
    drawn = plot_run(view)
    return [
        {
            "title": picture.title,
            "caption": picture.caption,
            "missing": picture.missing,
            **pictured(drawn[name]),
        }
        for name, picture in PICTURES.items()
    ]


def _provenance(view: RunView) -> list[tuple[str, str]]:
    manifest = view.manifest or {}
    template, tokens = manifest.get("template") or {}, manifest.get("tokens") or {}
    lines = [
        ("Dataset", str(manifest.get("dataset", "the split is gone"))),
        (
            "Template",
            f"{printed_template(template)}, sha256 {template.get('sha256')}" if template else "",
        ),
        (
            "Split",
            ", ".join(f"{key} {_said(value)}" for key, value in (manifest.get("config") or {}).items()),
        ),
        (
            "Events",
            "; ".join(_counted(subset, count) for subset, count in (manifest.get("counts") or {}).items()),
        ),
        ("Features", ", ".join(manifest.get("features") or [])),
        ("Tokens", ", ".join(f"{key} {_rounded(value)}" for key, value in tokens.items())),
        ("Queued", _time(view.created)),
        ("Ended", _time(view.finished)),
        ("Trained with", ", ".join(f"{name} {version}" for name, version in sorted(view.versions.items()))),
        ("Page written", f"{_time(datetime.datetime.now(datetime.UTC).timestamp())} by {_own_versions()}"),
    ]
    return [(name, text) for name, text in lines if text]


def _rounded(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _said(value: Any) -> str:
    return "not set" if value is None else str(value)


def _counted(subset: str, count: dict[str, int]) -> str:
    return f"{subset} {count['signal']:,} signal, {count['background']:,} background"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _own_versions() -> str:
    found = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    return ", ".join([f"lhcq {version()}", *found, f"Python {platform.python_version()}"])
