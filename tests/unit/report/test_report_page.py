"""The report of a run, from a workspace that holds what the other stages would have written."""

import json
import os
import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from lhcq.cli.main import cli
from lhcq.config import TrainConfig
from lhcq.errors import BadInput, NotThere
from lhcq.evaluate.calibration import calibrated_metrics, fit_calibration
from lhcq.evaluate.checkpoint_review import judge_run
from lhcq.evaluate.comparison import compare_scores
from lhcq.evaluate.validation import write_validation
from lhcq.manifests import write_manifest
from lhcq.records.run_state import Alarm, go_back, go_on, read_course, write_alarm, write_answer
from lhcq.records.validations import read_metrics, write_calibrated
from lhcq.report.collect import collect_run
from lhcq.report.page import render_page, write_report
from lhcq.report.plots import (
    plot_run,
)
from lhcq.report.table import COLUMNS, checkpoint_table, printed_interval, printed_row
from lhcq.storage import append_line, write_json
from lhcq.workspace import Workspace
from tests.browser import running_browser
from tests.pages import PageReader
from tests.reported import PARTS, STEPS, model_scores, write_run, write_split


@pytest.mark.usefixtures("undrawn")
def test_a_report_is_written_elsewhere_when_asked(
    finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(finished.root))
    before = sorted(finished.root.rglob("*"))
    out = tmp_path / "elsewhere" / "page.html"
    result = CliRunner().invoke(cli, ["report", "demo", "--out", str(out), "--json"], catch_exceptions=False)
    assert json.loads(result.output)["report"] == str(out)
    assert "Test accuracy" in PageReader(out.read_text(encoding="utf-8")).words
    assert sorted(finished.root.rglob("*")) == before


def test_of_a_run_that_may_only_be_read_the_report_is_told_without_a_page(
    finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(finished.root))
    monkeypatch.setattr("os.access", lambda _, mode: mode != os.W_OK)
    (finished.run("demo") / "report.html").unlink(missing_ok=True)
    before = sorted(finished.root.rglob("*"))
    result = CliRunner().invoke(cli, ["report", "demo", "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert (
        f"{finished.run('demo')} may only be read: no page is written. --out PATH writes one" in result.stderr
    )
    told = json.loads(result.stdout)
    assert told["report"] is None
    assert told["checkpoints"]
    assert sorted(finished.root.rglob("*")) == before


@pytest.mark.usefixtures("undrawn")
def test_the_page_prints_the_figures_of_the_best_checkpoint_and_of_the_trees(finished: Workspace) -> None:
    path = write_report(finished, "demo", compare_scores)
    words = PageReader(path.read_text(encoding="utf-8")).words
    tested = read_metrics(finished.run("demo") / "test")
    trees = json.loads((finished.baseline("half") / "figures.json").read_text())
    assert trees["prompt-test"]["auc"] != trees["test"]["auc"]
    for figures in (tested.model_dump(), trees["prompt-test"], trees["test"]):
        for name in ("accuracy", "auc", "ece", "nll"):
            assert figures[f"{name}_low"] is not None
            assert printed_interval(figures, name) in words
    assert f"Test accuracy {tested.accuracy:.3f}" in words
    own, on_prompt, on_all = (
        printed_interval(one, "auc") for one in (tested.model_dump(), trees["prompt-test"], trees["test"])
    )
    assert (
        f"AUC {own}, beside {on_prompt} for trees on the prompt's numbers and {on_all} for trees on all 6 features, "
        "on the same events." in words
    )
    for subset in ("test", "validation"):
        for heading in ("LLM", "Trees on the prompt's numbers", "Trees on all 6 features"):
            assert f"{heading}, {subset} {PARTS[subset]:,} events" in words
    assert "smollm2" in words
    assert "ab" * 32 in words, "the template's hash"
    assert path == finished.run("demo") / "report.html"


def test_the_page_needs_nothing_from_outside(finished: Workspace) -> None:
    page = write_report(finished, "demo", compare_scores).read_text(encoding="utf-8")
    reader = PageReader(page)
    assert len(reader.addresses) == 18, "nine plots, each for a light and a dark page"
    assert all(address.startswith("data:image/svg+xml;base64,") for address in reader.addresses)
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", page)


def test_every_validated_checkpoint_is_in_the_table_with_the_trees_below(finished: Workspace) -> None:
    view = collect_run(finished, "demo")
    rows = checkpoint_table(view)
    assert [(row["step"], row["part"]) for row in rows] == [
        *((step, "validation") for step in STEPS),
        *[(None, "validation")] * 2,
        (view.best_step, "test"),
        *[(None, "test")] * 2,
    ]
    assert [row["classifier"] for row in rows if row["state"] == "fitted"] == [
        "trees on the prompt's numbers",
        "trees on all 6 features",
    ] * 2
    assert [row["step"] for row in rows if row["best"]] == [view.best_step]
    for step, row in zip(STEPS, rows, strict=False):
        figures = read_metrics(finished.validation("demo", step))
        assert (row["accuracy"], row["auc"], row["nll"]) == (figures.accuracy, figures.auc, figures.nll)
    json.dumps(rows, allow_nan=False)
    assert all(list(printed_row(row)) == list(COLUMNS) for row in rows)
    for row in rows:  # nobody asks trees for words
        assert (row["unknown"] is None) == (row["step"] is None)


def test_training_loss_of_a_checkpoint_is_the_mean_since_the_one_before(finished: Workspace) -> None:
    view = collect_run(finished, "demo")
    assert view.checkpoints[1].train_loss == pytest.approx(view.history.loss[20:40].mean())


def test_masses_are_matched_to_the_scores_by_row(finished: Workspace) -> None:
    view = collect_run(finished, "demo")
    assert view.masses is not None
    assert view.shown is not None
    table = pq.read_table(finished.split("half") / "test.parquet", columns=["row", "mjj"])
    by_row = dict(zip(table["row"].to_pylist(), table["mjj"].to_pylist(), strict=True))
    expected = [by_row[row] for row in view.shown.scores.rows.tolist()]
    np.testing.assert_array_equal(view.masses["mjj"], expected)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("template", "warned"), [("compact", True), ("compact-without-mass", False)])
def test_the_page_says_how_far_m_jj_is_sculpted_and_warns_of_prompts_that_know_it(
    tmp_path: Path, template: str, warned: bool
) -> None:
    workspace = Workspace(tmp_path)
    write_split(workspace.split("half"), template=template)
    write_run(workspace, "demo")
    fitted, shown = (
        model_scores(workspace.split("half"), part, sharpness=3.1) for part in ("calibration", "test")
    )
    mjj = pq.read_table(workspace.split("half") / "test.parquet")["mjj"].to_numpy()
    calibration = fit_calibration(fitted["labels"], fitted["p_signal"])
    for masses in (mjj, None):
        found = calibrated_metrics(calibration, shown["labels"], shown["p_signal"], shown["answers"], masses)
        write_calibrated(workspace.run("demo"), found)
        words = PageReader(write_report(workspace, "demo", compare_scores).read_text(encoding="utf-8")).words
        assert ("Kolmogorov-Smirnov distance" in words) is (masses is not None)
        assert ("--without-mass" in words) is warned


@pytest.fixture
def young(finished: Workspace, tmp_path: Path) -> Workspace:
    """The same split, with neither trees nor runs."""
    workspace = Workspace(tmp_path)
    shutil.copytree(finished.split("half"), workspace.split("half"))
    return workspace


def test_a_run_that_was_only_queued_has_a_page(young: Workspace) -> None:
    write_run(young, "queued", steps_done=0, validated=0, ended=False)
    view = collect_run(young, "queued")
    words = PageReader(render_page(view, compare_scores)).words
    assert view.state == "open"
    assert "No checkpoint has been validated yet" in words
    assert "Trees on the prompt's numbers not fitted yet Trees on all features not fitted yet" in words
    assert words.count("not yet,") >= 4, "the missing plots say so"
    assert all(svg is None for svg in plot_run(view).values())


@pytest.mark.usefixtures("undrawn")
def test_a_run_between_two_validations_shows_validation_and_says_that_it_is_too_good(
    young: Workspace,
) -> None:
    write_run(young, "half-way", steps_done=65, validated=2, ended=False)
    view = collect_run(young, "half-way")
    words = PageReader(render_page(view, compare_scores)).words
    assert (view.state, view.shown_subset, view.best_step) == ("open", "validation", 40)
    assert "a little too good" in words
    assert "LLM, test" not in words
    states = [row["state"] for row in checkpoint_table(view)]
    assert states == ["validated", "validated", "written", "planned"]
    assert "not validated yet" in words
    assert "not trained yet" in words


@pytest.mark.usefixtures("undrawn")
def test_a_paused_run_and_an_incomplete_one_say_so(young: Workspace) -> None:
    write_run(young, "demo", steps_done=25, validated=1, ended=False)
    write_json(young.run("demo") / "wish.json", {"wish": "pause"})
    assert collect_run(young, "demo").state == "paused"
    outcome = {"state": "incomplete", "message": "segment 2 failed five times", "finished": 1.79e9}
    write_json(young.run("demo") / "outcome.json", outcome)
    assert (
        "The run is incomplete: segment 2 failed five times"
        in PageReader(render_page(collect_run(young, "demo"), compare_scores)).words
    )


@pytest.mark.usefixtures("undrawn")
def test_alarms_and_what_followed_are_plain_on_the_page(young: Workspace) -> None:
    write_run(young, "demo", steps_done=65, validated=2, ended=False)
    run = young.run("demo")
    young.checkpoint("demo", 40).mkdir(parents=True)
    write_manifest(young.checkpoint("demo", 40), step=40)
    fields = {"step": 45, "after": 40, "message": "loss 6.10 over 8 steps, 0.40 before"}
    write_alarm(run, Alarm(kind="divergence", act="rollback", **fields))
    course = read_course(run, 40)
    write_answer(run, course, go_back(course, 20))
    write_alarm(run, Alarm(kind="unknown", act="pause", round=1, **fields | {"message": "<b>many</b>"}))
    view = collect_run(young, "demo")
    assert view.state == "paused"
    page = render_page(view, compare_scores)
    assert "loss 6.10 over 8 steps, 0.40 before (back to step 20, at 0.3 of the planned rate)." in page
    assert "&lt;b&gt;many&lt;/b&gt; (the run is paused)." in page
    course = read_course(run, 40)
    write_answer(run, course, go_on(course))
    assert collect_run(young, "demo").state == "open"


def test_each_validation_is_tested_against_the_best_before_it(finished: Workspace) -> None:
    judge_run(finished.run("demo"), TrainConfig(), last_step=STEPS[-1], on_alarm=print)
    first, second, *_ = checkpoint_table(collect_run(finished, "demo"))
    assert first["mcnemar_p"] is None
    assert printed_row(first)["mcnemar"] == ""
    assert second["only_this_right"] > second["only_previous_right"]
    assert second["mcnemar_p"] < 0.05
    assert printed_row(second)["mcnemar"].startswith(f"+{second['only_this_right']} −")


@pytest.mark.usefixtures("undrawn")
def test_a_page_without_its_split_still_opens(young: Workspace) -> None:
    write_run(young, "demo", steps_done=25, validated=1, ended=False)
    shutil.rmtree(young.split("half"))
    words = PageReader(render_page(collect_run(young, "demo"), compare_scores)).words
    assert "the split is gone" in words


@pytest.mark.usefixtures("undrawn")
def test_a_split_that_was_made_again_draws_no_masses(young: Workspace) -> None:
    write_run(young, "demo", steps_done=25, validated=1, ended=False)
    shutil.rmtree(young.split("half"))
    write_split(young.split("half"), seed=8)
    view = collect_run(young, "demo")
    assert (view.masses, view.manifest, view.baseline.beside("validation")) == (None, None, [])
    assert "has been made again of other events" in PageReader(render_page(view, compare_scores)).words


def test_a_validation_of_one_class_has_dashes_and_no_roc(young: Workspace) -> None:
    write_run(young, "demo", steps_done=25, validated=0, ended=False)
    rows = pq.read_table(young.split("half") / "validation.parquet")["row"].to_numpy()
    nothing = np.zeros(rows.size, dtype=bool)
    write_validation(
        young.validation("demo", 20),
        step=20,
        rows=rows,
        labels=nothing,
        p_signal=nothing + 0.2,
        answers=nothing,
    )
    view = collect_run(young, "demo")
    plots = plot_run(view)
    assert plots["roc"] is None
    assert plots["sic"] is None
    assert plots["auc"] is None
    assert plots["accuracy"] is not None
    assert printed_row(checkpoint_table(view)[0])["auc"] == "–"
    assert "None" not in PageReader(render_page(view, compare_scores)).words


def test_a_repeated_step_counts_as_it_went_the_last_time(young: Workspace) -> None:
    write_run(young, "demo", steps_done=3, validated=0, ended=False)
    log = young.run("demo") / "events.jsonl"
    append_line(log, {"event": "step", "step": 2, "loss": None, "learning_rate": 1e-4})
    append_line(log, {"event": "step", "step": 3, "loss": 0.25, "learning_rate": 1e-4})
    with log.open("a") as stream:
        stream.write('{"event": "step", "st')  # being written
    history = collect_run(young, "demo").history
    assert history.steps.tolist() == [1, 2, 3]
    assert np.isnan(history.loss[1])
    assert history.loss[2] == 0.25
    assert plot_run(collect_run(young, "demo"))["loss"] is not None


def test_a_damaged_line_inside_the_log_is_named(young: Workspace) -> None:
    write_run(young, "demo", steps_done=3, validated=0, ended=False)
    log = young.run("demo") / "events.jsonl"
    log.write_text("not json\n" + log.read_text())
    with pytest.raises(BadInput, match=r"events\.jsonl: line 1 cannot be read"):
        collect_run(young, "demo")


def test_a_run_that_does_not_exist_is_named(young: Workspace) -> None:
    with pytest.raises(NotThere, match=r"run 'other' does not exist .* `lhcq status`"):
        write_report(young, "other", compare_scores)


@pytest.mark.usefixtures("undrawn")
def test_a_name_from_outside_cannot_become_markup(finished: Workspace) -> None:
    view = replace(collect_run(finished, "demo"), model="<script>alert(1)</script>")
    page = render_page(view, compare_scores)
    assert "<script" not in page
    assert "<script>alert(1)</script>" in unescape(page)


@pytest.mark.usefixtures("undrawn")
def test_every_table_says_what_its_headings_are_of_and_scrolls_by_keyboard(finished: Workspace) -> None:
    page = render_page(collect_run(finished, "demo"), compare_scores)
    tables = page.count("<table>")
    assert tables >= 2
    assert (
        len(
            re.findall(
                r'<div class="card scroll" tabindex="0" role="region" aria-label="[^"]+"><table>', page
            )
        )
        == tables
    )
    headings = re.findall(r"<th\b[^>]*>", page)
    assert headings
    assert all(re.search(r'scope="(col|row)"', heading) for heading in headings)


@pytest.mark.torture
def test_in_a_browser_nothing_is_cut_at_1280_pixels_nor_on_a_phone_nor_on_paper_and_wide_tables_scroll_by_keyboard(
    finished: Workspace, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    write_report(finished, "demo", compare_scores, page)
    hidden = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth + 1).length"
    with running_browser(tmp_path / "profile") as browser:
        browser.resize(1280, 900)
        browser.open(page.as_uri())
        assert browser.ask("document.querySelectorAll('.scroll').length") >= 2
        assert browser.ask(hidden) == 0
        assert browser.ask("document.documentElement.scrollWidth") <= 1280

        browser.resize(390, 800)  # where each value stands beside the heading of its column
        assert browser.ask(hidden) == 0
        assert browser.ask("document.documentElement.scrollWidth") <= 390
        headings = browser.ask(
            "[...document.querySelectorAll('.scroll tbody td')]"
            ".map((one) => getComputedStyle(one, '::before').content)"
        )
        assert '"AUC [95%]"' in headings
        assert {"none", "normal", '""'}.isdisjoint(headings)

        browser.resize(700, 800)
        assert browser.ask(hidden) >= 1
        browser.press("Tab")
        assert browser.ask("document.activeElement.className") == "card scroll"
        browser.press("ArrowRight", 5)
        browser.until("document.activeElement.scrollLeft > 0", 10)

        browser.tell("Emulation.setEmulatedMedia", media="print")
        browser.resize(int(186 / 25.4 * 96), 1000)  # A4 without its margins
        browser.tell("Emulation.setEmulatedMedia", media="print")
        assert browser.ask(hidden) == 0
        assert browser.ask("document.documentElement.scrollWidth") <= int(186 / 25.4 * 96)
        paper = tmp_path / "page.pdf"
        browser.printed(paper)
    sizes = {
        tuple(map(float, box.split())) for box in re.findall(rb"/MediaBox \[([^]]*)\]", paper.read_bytes())
    }
    assert {(round(width), round(height)) for _, _, width, height in sizes} == {(595, 842)}
