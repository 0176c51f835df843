"""A run's report beside boosted trees: what each is called, and what an earlier version fitted."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from lhcq.cli.main import cli
from lhcq.evaluate.comparison import compare_scores
from lhcq.report.card import _evaluations
from lhcq.report.collect import collect_run
from lhcq.report.page import render_page, write_report
from lhcq.report.plots import plot_run
from lhcq.report.table import checkpoint_table, printed_row
from lhcq.results import Run
from lhcq.storage import read_json
from lhcq.workspace import Workspace
from tests.older import without_prompt_trees
from tests.pages import PageReader
from tests.reported import PARTS


@pytest.mark.usefixtures("undrawn")
def test_the_page_says_of_both_kinds_of_trees_what_compare_says(
    finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(finished.root))
    told = CliRunner().invoke(cli, ["compare", "demo"], catch_exceptions=False).output
    lines = [line for line in told.splitlines() if line.startswith("demo against trees")]
    assert len(lines) == 2
    words = PageReader(write_report(finished, "demo", compare_scores).read_text(encoding="utf-8")).words
    for line, trees in zip(lines, ("trees on the prompt's numbers", "trees on all 6 features"), strict=True):
        assert line.startswith(f"demo against {trees}, {PARTS['test']:,} test events: ")
        assert line.endswith("(DeLong).")
        assert line in words


def test_a_run_has_both_trees_by_name_from_python(finished: Workspace) -> None:
    trees = Run("demo", finished).trees
    figures = read_json(finished.baseline("half") / "figures.json")
    assert {name: metrics.auc for name, metrics in trees.items()} == {
        "trees on the prompt's numbers": figures["prompt-test"]["auc"],
        "trees on all 6 features": figures["test"]["auc"],
    }


def test_a_model_card_has_both_trees_beside_the_checkpoint(finished: Workspace) -> None:
    view = collect_run(finished, "demo")
    assert view.best_step is not None
    assert [(subset, classifier) for subset, classifier, _ in _evaluations(view, view.best_step)] == [
        (subset, classifier)
        for subset in ("validation", "test")
        for classifier in ("this model", "trees on the prompt's numbers", "trees on all 6 features")
    ]


@pytest.mark.usefixtures("undrawn")
def test_trees_that_an_earlier_version_fitted_are_shown_as_what_they_are(
    finished: Workspace, tmp_path: Path
) -> None:
    both = write_report(finished, "demo", compare_scores).read_text(encoding="utf-8")
    workspace = Workspace(tmp_path)
    shutil.copytree(finished.root, workspace.root, dirs_exist_ok=True)
    without_prompt_trees(workspace.baseline("half"))
    view = collect_run(workspace, "demo")
    before, now = collect_run(finished, "demo").baseline, view.baseline
    assert now.all.test
    assert before.all.test
    assert now.all.test.metrics == before.all.test.metrics
    rows = [row for row in checkpoint_table(view) if row["step"] is None]
    assert [(row["classifier"], row["state"]) for row in rows] == [
        ("trees on the prompt's numbers", "absent"),
        ("trees on all 6 features", "fitted"),
    ] * 2
    assert [rows[0]["auc"], printed_row(rows[0])["auc"], printed_row(rows[0])["accuracy"]] == [None, "–", "–"]
    page = render_page(view, compare_scores)
    words = PageReader(page).words
    assert "Trees on the prompt's numbers not fitted by the earlier lhcq that made this split" in words
    assert (
        "[" in words.partition("for trees on all 6 features, on the same events.")[0].rpartition("beside")[2]
    )
    assert "for trees on the prompt's numbers" not in words
    assert page.count(">–</td>") >= both.count(">–</td>") + 2 * 8, "a column of dashes for each subset"
    for plot in (plot_run(view)[name] for name in ("accuracy", "auc")):  # which show the trees, too
        assert plot is not None
        assert plot.file("svg")
