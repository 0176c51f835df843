"""Runs side by side, as plain rows for the terminal and JSON."""

from typing import Any

from lhcq.records.validations import Evaluation, Trees
from lhcq.report.table import printed_interval, printed_metric, printed_sic, printed_template
from lhcq.report.views import RunView

COLUMNS = {
    "run": "run",
    "split": "split",
    "model": "model",
    "template": "template",
    "steps": "steps",
    "step": "best",
    "part": "part",
    "accuracy": "accuracy [95%]",
    "auc": "AUC [95%]",
    "max_sic": "max SIC",
    "unknown": "unknown",
    "prompt_trees": "AUC, trees on the prompt's numbers",
    "trees": "AUC, trees on all features",
}
"""Printed columns in order, with their headings."""

_TEMPLATE = ("name", "version", "columns", "constituents", "frame")

_METRICS = (
    "n", "n_signal", "accuracy", "accuracy_low", "accuracy_high", "auc", "auc_low", "auc_high", "max_sic",
    "max_sic_background_floor", "unknown", "generated_accuracy", "generated_accuracy_low", "generated_accuracy_high",
    "agreement",
)  # fmt: skip


def comparison_row(view: RunView) -> dict[str, Any]:
    """A run with the metrics of its best checkpoint, on the test subset once that is scored, and the trees' beside.

    `prompt_trees` see the numbers of the prompt, `trees` all features of the dataset; each has its `name`. What is
    not there is None.
    """
    template = (view.manifest or {}).get("template") or {}
    steps = view.history.steps
    return {
        "run": view.name,
        "state": view.state,
        "split": view.split,
        "model": view.model,
        "template": {key: template[key] for key in _TEMPLATE if key in template} or None,
        "steps": int(steps[-1]) if steps.size else 0,
        "total_steps": view.total_steps,
        "best_step": view.best_step,
        "step": view.shown.step if view.shown else None,
        "part": view.shown_subset if view.shown else None,
        **_metrics(view.shown),
        "prompt_trees": _trees(view, view.baseline.prompt),
        "trees": _trees(view, view.baseline.all),
    }


def printed_comparison(row: dict[str, Any]) -> dict[str, str]:
    """The row as text under `COLUMNS`; a dash stands for what is not there."""
    template = row["template"]
    return {
        "run": row["run"],
        "split": row["split"],
        "model": row["model"],
        "template": printed_template(template) if template else "–",
        "steps": f"{row['steps']}/{row['total_steps']}" if row["total_steps"] else str(row["steps"]),
        "step": "–" if row["step"] is None else str(row["step"]),
        "part": row["part"] or "–",
        "accuracy": printed_interval(row, "accuracy"),
        "auc": printed_interval(row, "auc"),
        "max_sic": printed_sic(row),
        "unknown": printed_metric(row, "unknown"),
        "prompt_trees": printed_interval(row["prompt_trees"], "auc"),
        "trees": printed_interval(row["trees"], "auc"),
    }


def _trees(view: RunView, trees: Trees) -> dict[str, Any]:
    return {"name": trees.name, **_metrics(trees.on(view.shown_subset) if view.shown else None)}


def _metrics(evaluation: Evaluation | None) -> dict[str, Any]:
    known = evaluation.metrics.model_dump() if evaluation else {}
    return {name: known.get(name) for name in _METRICS}
