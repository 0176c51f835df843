"""`lhcq compare RUN...`."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import answer, json_option, printed_table
from lhcq.cli.parameters import NameOf, example

if TYPE_CHECKING:
    from lhcq.report.views import RunView
    from lhcq.workspace import Workspace


@click.command("compare", epilog=example("lhcq compare first second"))
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=NameOf("runs"))
@json_option
def command(runs: tuple[str, ...], as_json: bool) -> int:
    """Put runs side by side: what they are, the metrics of their best checkpoints, and the boosted trees' beside.

    Where runs were tested on the same events, each pair is compared on those: McNemar's test of their decisions and
    DeLong's of their AUCs. So is each run with the trees of its split, with those on the numbers of its prompts and
    with those on all features of the dataset. A run without metrics shows dashes.
    """
    from lhcq.cli.session import find_workspace

    value, text = compared(find_workspace(), runs)
    answer(as_json, value, text)
    return 0


def compared(workspace: "Workspace", runs: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Runs side by side, and what their tests say of each pair, as a record and as text."""
    from lhcq.report.collect import collect_run
    from lhcq.report.comparison import comparison_row

    views = [collect_run(workspace, run) for run in dict.fromkeys(runs)]
    rows = [comparison_row(view) for view in views]
    pairs = _pairs(views, {view.name: _axes(workspace, view) for view in views})
    return {"runs": rows, "pairs": pairs}, "\n".join([_table(rows), *(_sentence(pair) for pair in pairs)])


def _axes(workspace: "Workspace", view: "RunView") -> str | None:
    """About which axes the tau_N in a run's prompts are; None where it has none, or its dataset is gone."""
    from lhcq.errors import LhcqError
    from lhcq.jets.definitions import axes_of
    from lhcq.records.events import events_sha256, find_dataset

    split = view.manifest
    if split is None or not any(name.startswith("tau") for name in split["template"]["columns"]):
        return None
    try:
        dataset = find_dataset(workspace.dataset(split["dataset"]))
    except LhcqError:
        return None
    return axes_of(dataset) if events_sha256(dataset) == split["dataset_sha256"] else None


def _pairs(views: "list[RunView]", axes: dict[str, str | None]) -> list[dict[str, Any]]:
    """Every pair of runs, then every run with its trees: the comparison, or the reason that there is none."""
    from lhcq.evaluate.comparison import compare_scores
    from lhcq.jets.definitions import compared_axes
    from lhcq.report.comparison import compared_pair, pairs_with_trees

    between: list[dict[str, Any]] = []
    for first, second in itertools.combinations(views, 2):
        one, other = axes[first.name], axes[second.name]
        pair = compared_pair(
            (first.name, first.test),
            (second.name, second.test),
            compare_scores,
            reason=_other_events(first, second),
        )
        between.append({**pair, "axes": compared_axes(one, other) if one and other else None})
    return between + [pair for view in views for pair in pairs_with_trees(view, compare_scores)]


def _other_events(first: "RunView", second: "RunView") -> str:
    """Why the rows of two runs do not count the same events; empty where they do."""
    unknown = [view.split for view in (first, second) if view.manifest is None]
    if unknown:
        return f"the split {unknown[0]!r} is gone or has been made again"
    sources = [(view.manifest or {})["source_sha256"] for view in (first, second)]
    return "" if sources[0] == sources[1] else "their splits are of different events"


def _table(rows: list[dict[str, Any]]) -> str:
    from lhcq.report.comparison import COLUMNS, printed_comparison

    return printed_table(COLUMNS, map(printed_comparison, rows), left=tuple(COLUMNS))


def _sentence(pair: dict[str, Any]) -> str:
    from lhcq.report.comparison import said_pair

    warning = pair.get("axes")
    return f"{said_pair(pair)} Beware: {warning}." if warning else said_pair(pair)
