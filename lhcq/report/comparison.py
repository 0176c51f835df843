"""Runs side by side, as plain rows for the terminal and JSON, and what tests say of two on the same events."""

from collections.abc import Callable
from typing import Any

from lhcq.frozen import Frozen
from lhcq.records.scores import Scores
from lhcq.records.validations import Evaluation, Trees
from lhcq.report.table import digits_apart, printed_interval, printed_metric, printed_sic, printed_template
from lhcq.report.views import RunView

Compare = Callable[[Scores, Scores], Frozen | None]
"""`evaluate.comparison.compare_scores`, handed over by whoever has both stages: they do not import each other."""

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


def pairs_with_trees(view: RunView, compare: Compare) -> list[dict[str, Any]]:
    """A run against both kinds of its split's trees, as `compared_pair` has them, on the test subset."""
    return [
        compared_pair((view.name, view.test), (trees.name, trees.test), compare, reason=trees.missing)
        for trees, _ in view.baseline.beside("test")
    ]


def compared_pair(
    first: tuple[str, Evaluation | None],
    second: tuple[str, Evaluation | None],
    compare: Compare,
    *,
    reason: str,
) -> dict[str, Any]:
    """The comparison of two named test results, or the reason that there is none; `reason` if it is known already."""
    (name, one), (other_name, other) = first, second
    found: Frozen | None = None
    if one is None or other is None:
        reason = (one and reason) or f"{name if one is None else other_name} has not been tested yet"
    elif not reason:
        found = compare(one.scores, other.scores)
        reason = "" if found else "their test subsets share no event"
    return {
        "first": name,
        "second": other_name,
        "comparison": found.model_dump() if found else None,
        "reason": reason,
    }


def said_pair(pair: dict[str, Any]) -> str:
    """A sentence of what `compared_pair` gave."""
    title, found = f"{pair['first']} against {pair['second']}", pair["comparison"]
    if found is None:
        return f"{title}: not compared, {pair['reason']}."
    said = (
        f"{title}, {found['n']:,} test events: right alone {found['only_first_right']:,} and "
        f"{found['only_second_right']:,}, p = {found['p_value']:.3g} (McNemar)"
    )
    auc = found["auc"]
    if auc is None:
        return f"{said}."
    if auc["error"] is None:
        return f"{said}; AUC {auc['value']:+.4f}."
    digits = digits_apart((auc["value"], auc["low"], auc["high"]), 0.0, least=4)
    interval = f"{auc['value']:+.{digits}f} [{auc['low']:+.{digits}f}, {auc['high']:+.{digits}f}]"
    return f"{said}; AUC {interval}, p = {auc['p_value']:.3g} (DeLong)."


def _trees(view: RunView, trees: Trees) -> dict[str, Any]:
    return {"name": trees.name, **_metrics(trees.on(view.shown_subset) if view.shown else None)}


def _metrics(evaluation: Evaluation | None) -> dict[str, Any]:
    known = evaluation.metrics.model_dump() if evaluation else {}
    return {name: known.get(name) for name in _METRICS}
