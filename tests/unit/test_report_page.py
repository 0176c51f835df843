"""The report of a run, from a workspace that holds what the other stages would have written."""

import itertools
import json
import re
import shutil
from dataclasses import replace
from functools import partial
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import hypothesis
import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lhcq.cli.main import cli
from lhcq.config import SplitConfig, TrainConfig
from lhcq.errors import BadInput, NotThere
from lhcq.evaluate.baseline import fit_baseline
from lhcq.evaluate.calibration import calibrated_metrics, fit_calibration
from lhcq.evaluate.checkpoint_review import judge_run
from lhcq.evaluate.comparison import compare_scores
from lhcq.evaluate.metrics import metrics_of
from lhcq.evaluate.validation import write_validation
from lhcq.manifests import write_manifest
from lhcq.records.commits import digests_of
from lhcq.records.run_state import Alarm, best_step, go_back, go_on, read_course, write_alarm, write_answer
from lhcq.records.validations import read_metrics, write_calibrated
from lhcq.report.card import _evaluations
from lhcq.report.collect import RunView, collect_run
from lhcq.report.page import PICTURES, render_page, verdict_of, write_report
from lhcq.report.plots import (
    binomial_band,
    draw_by_checkpoint,
    draw_roc,
    nice_edges,
    plot_run,
    reliability,
    running_mean,
)
from lhcq.report.style import DARK, PARAMETERS, SIZE, Plot, darkened, scale_log
from lhcq.report.table import COLUMNS, checkpoint_table, digits_apart, printed_interval, printed_row
from lhcq.results import Run
from lhcq.storage import MANIFEST, append_line, read_json, write_json
from lhcq.workspace import Workspace
from tests.browser import running_browser
from tests.older import without_prompt_trees
from tests.specs import job_of

FEATURES = ["mjj", "m_heavy", "m_light", "pt_heavy", "delta_r", "n_particles"]
STEPS = [20, 40, 60, 80]
PARTS = {"train": 640, "validation": 400, "calibration": 100, "test": 600}


def events_like_lhco(n: int, rng: np.random.Generator, *, signal_share: float = 0.5) -> dict[str, np.ndarray]:
    """Labels and features of `n` events that look like QCD dijets and W' -> X Y, GeV; some lack the second jet."""
    label = (rng.random(n) < signal_share).astype(np.int8)
    is_signal = label == 1
    mjj = np.where(
        is_signal, rng.normal(3450, 220, n) - rng.exponential(120, n), 2350 + rng.exponential(420, n)
    )
    m_heavy = np.where(is_signal, rng.normal(470, 55, n), 60 + rng.gamma(1.7, 110, n))
    m_light = np.where(is_signal, rng.normal(100, 16, n), 25 + rng.gamma(1.6, 45, n))
    alone = rng.random(n) < 0.03
    m_light[alone] = mjj[alone] = np.nan
    return {
        "label": label,
        "mjj": mjj,
        "m_heavy": np.abs(m_heavy),
        "m_light": np.abs(m_light),
        "pt_heavy": 1200 + rng.exponential(180, n),
        "delta_r": rng.normal(3.1, 0.25, n),
        "n_particles": rng.normal(170, 45, n),
    }


def write_split(split: Path, *, signal_share: float = 0.5, seed: int = 7, template: str = "compact") -> None:
    rng = np.random.default_rng(seed)
    first, counts = 0, {}
    split.mkdir(parents=True)
    for part, n in PARTS.items():
        events = events_like_lhco(n, rng, signal_share=signal_share)
        rows = rng.permutation(np.arange(first, first + n))
        told = np.column_stack([events["mjj"] / 10, events["m_heavy"], events["m_light"]])
        prompts = [f"{one:.0f} {heavy:.0f} {light:.0f}:" for one, heavy, light in np.nan_to_num(told)]
        columns = {"row": rows, "label": events["label"], "prompt": prompts}
        pq.write_table(
            pa.table(columns | {name: events[name] for name in FEATURES}), split / f"{part}.parquet"
        )
        counts[part] = {"signal": int(events["label"].sum()), "background": int((events["label"] == 0).sum())}
        first += n
    write_manifest(
        split,
        dataset="demo",
        config=SplitConfig().model_dump(),
        counts=counts,
        features=FEATURES,
        template={"name": template, "version": 1, "sha256": "ab" * 32},
        tokens={"mean": 18.2, "p99": 22, "max": 24},
    )


def model_scores(split: Path, part: str, *, sharpness: float) -> dict[str, np.ndarray]:
    """Scores of a made-up model that gets better with `sharpness`."""
    table = pq.read_table(split / f"{part}.parquet")
    rng = np.random.default_rng(int(100 * sharpness) + len(part))
    label = table["label"].to_numpy()
    logit = sharpness * (label - 0.5) * 2 + rng.normal(0, 1.35, label.size) * np.sqrt(sharpness)
    return {
        "rows": table["row"].to_numpy(),
        "labels": label,
        "p_signal": 1 / (1 + np.exp(-logit)),
        "answers": np.where(rng.random(label.size) < 0.004, -1, logit >= 0),
    }


def write_run(
    workspace: Workspace, name: str, *, steps_done: int = 80, validated: int = 4, ended: bool = True
) -> None:
    """A run of the split `half`, with as much done as asked."""
    run = workspace.run(name)
    job = job_of(
        "train",
        name,
        parts=0,
        created=1_790_000_000.0,
        split="half",
        split_sha256=digests_of(read_json(workspace.split("half") / MANIFEST)),
        config=TrainConfig().model_dump(),
        total_steps=STEPS[-1],
        checkpoint_steps=STEPS,
    )
    write_json(run / "job.json", job.model_dump())
    rng = np.random.default_rng(3)
    for step in range(1, steps_done + 1):
        loss = 0.28 + 0.5 * np.exp(-step / 14) + rng.normal(0, 0.09) * np.exp(-step / 90)
        rate = 1e-3 * min(step / 5, 0.5 * (1 + np.cos(np.pi * step / STEPS[-1])))
        line = {"event": "step", "step": step, "loss": float(abs(loss)), "learning_rate": float(rate)}
        append_line(
            run / "events.jsonl", {**line, "grad_norm": 1.0, "samples_per_second": 5.5, "time": 1.79e9 + step}
        )
        if step in STEPS:
            append_line(run / "events.jsonl", {"event": "checkpoint", "step": step, "time": 1.79e9 + step})
    split = workspace.split("half")
    for step, sharpness in list(zip(STEPS, (0.8, 2.0, 3.1, 2.9), strict=False))[:validated]:
        scores = model_scores(split, "validation", sharpness=sharpness)
        write_validation(workspace.validation(name, step), step=step, **scores)
    if ended:
        best = best_step(run)
        assert best is not None
        write_validation(run / "test", step=best, **model_scores(split, "test", sharpness=3.1))
        outcome = {"state": "done", "message": f"best checkpoint: step {best}", "finished": 1_790_000_160.0}
        write_json(run / "outcome.json", outcome)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("finished"))
    write_split(workspace.split("half"))
    fit_baseline(workspace.split("half"), workspace.baseline("half"))
    write_run(workspace, "demo")
    return workspace


class PageReader(HTMLParser):
    """The text of a page, and every address that it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in {"src", "srcset", "href", "data", "poster"}
        ]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


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


def test_the_page_prints_the_figures_of_the_best_checkpoint_and_of_the_trees(finished: Workspace) -> None:
    path = write_report(finished, "demo", compare_scores)
    words = PageReader(path.read_text(encoding="utf-8")).words
    tested = read_metrics(finished.run("demo") / "test")
    trees = json.loads((finished.baseline("half") / "figures.json").read_text())
    assert trees["prompt-test"]["auc"] != trees["test"]["auc"]
    for figures in (tested.model_dump(), trees["prompt-test"], trees["test"]):
        for name in ("accuracy", "auc"):
            assert printed_interval(figures, name) in words
        assert f"{figures['ece']:.3f}" in words
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
    assert page.count("<td>–</td>") >= both.count("<td>–</td>") + 2 * 8, "a column of dashes for each subset"


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


def test_a_page_without_its_split_still_opens(young: Workspace) -> None:
    write_run(young, "demo", steps_done=25, validated=1, ended=False)
    shutil.rmtree(young.split("half"))
    words = PageReader(render_page(collect_run(young, "demo"), compare_scores)).words
    assert "the split is gone" in words


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


@pytest.mark.parametrize(
    ("right", "n", "said"),
    [
        (560, 600, "passes the reference study's 0.835: the whole interval lies above it"),
        (510, 600, "is above the reference study's 0.835, but its interval includes it"),
        (495, 600, "does not pass the reference study's 0.835, though its interval includes it"),
        (400, 600, "falls short of the reference study's 0.835: the whole interval lies below it"),
    ],
)
def test_the_verdict_goes_no_further_than_the_interval(
    finished: Workspace, right: int, n: int, said: str
) -> None:
    assert said in verdict_of(with_test_accuracy(finished, right, n, n_signal=n // 2))[0]


def test_no_verdict_is_contradicted_by_the_numbers_that_it_prints(finished: Workspace) -> None:
    for right in range(480, 560):
        said = verdict_of(with_test_accuracy(finished, right, 600, n_signal=300))[0]
        value, low, high = map(float, re.findall(r"accuracy ([\d.]+) \[([\d.]+), ([\d.]+)\]", said)[0])
        kept = {
            "lies above": low > 0.835,
            "not settled": low <= 0.835 < value,
            "does not pass": value <= 0.835 <= high,
            "lies below": high < 0.835,
        }
        assert [what for what, true in kept.items() if true and what in said], said


def test_a_difference_of_auc_never_rounds_to_the_other_side_of_zero() -> None:
    assert digits_apart((0.00123, 0.00004, 0.00242), 0.0, least=4) == 5
    assert digits_apart((0.0123, -0.0004, 0.0242), 0.0, least=4) == 4


def test_unknown_answers_are_said_and_counted_as_the_study_counts_them(finished: Workspace) -> None:
    view = collect_run(finished, "demo")
    assert view.test is not None
    scores = view.test.scores
    said = {
        "none": np.full(len(scores.labels), -1),
        "all": scores.p_signal >= 0.5,
    }
    verdicts = {
        what: " ".join(
            verdict_of(
                replace(
                    view,
                    test=replace(view.test, metrics=metrics_of(scores.labels, scores.p_signal, answers)),
                )
            )
        )
        for what, answers in said.items()
    }
    assert (
        "600 of 600 are neither label, and 0.0% are the likelier one; counting the unknown as wrong, as the study "
        "did, they are right for 0.000 [0.000, 0.006]" in verdicts["none"]
    )
    assert "the model answers each event with the likelier label, and with nothing else" in verdicts["all"]
    old = view.test.metrics.model_copy(update={"unknown": 7, "generated_accuracy": None})
    assert "For 7 of 600 events neither label is the likeliest token" in " ".join(
        verdict_of(replace(view, test=replace(view.test, metrics=old)))
    )


def test_an_unequal_test_part_is_not_compared_with_the_study(finished: Workspace) -> None:
    verdict = " ".join(verdict_of(with_test_accuracy(finished, 560, 600, n_signal=54)))
    assert "cannot be compared" in verdict
    assert "one constant answer would be right for 91.0%" in verdict


def with_test_accuracy(workspace: Workspace, right: int, n: int, *, n_signal: int) -> RunView:
    low, high = binomial_band(np.array([float(right)]), n, z=1.96)
    view = collect_run(workspace, "demo")
    assert view.test is not None
    known = {"accuracy": right / n, "n": n, "n_signal": n_signal}
    known |= {"accuracy_low": float(low[0]), "accuracy_high": float(high[0])}
    return replace(view, test=replace(view.test, metrics=view.test.metrics.model_copy(update=known)))


def test_a_name_from_outside_cannot_become_markup(finished: Workspace) -> None:
    view = replace(collect_run(finished, "demo"), model="<script>alert(1)</script>")
    page = render_page(view, compare_scores)
    assert "<script" not in page
    assert "<script>alert(1)</script>" in unescape(page)


def test_equal_views_draw_equal_bytes(finished: Workspace) -> None:
    view = collect_run(finished, "demo")
    once, again = (Plot(draw=partial(draw_roc, view=view), left="demo", right="test").svg() for _ in range(2))
    assert once == again


def test_the_dark_picture_differs_in_colours_alone(finished: Workspace) -> None:
    view = collect_run(finished, "demo")
    plot = Plot(draw=partial(draw_by_checkpoint, view=view, name="accuracy"), left="demo", right="validation")
    light = plot.svg()
    dark = darkened(light)
    assert not any(colour in dark for colour in DARK)
    back = {value: key for key, value in DARK.items()}
    assert re.sub("|".join(back), lambda match: back[match.group()], dark) == light


@given(st.lists(st.floats(20, 9000), min_size=1, max_size=200))
def test_histogram_edges_are_round_equal_and_cover_the_bulk(values: list[float]) -> None:
    edges = nice_edges(np.array(values))
    widths = np.diff(edges)
    low, high = np.quantile(values, [0.005, 0.995])
    assert 1 <= widths.size <= 61
    np.testing.assert_allclose(widths, widths[0])
    assert edges[0] <= low + 1e-9
    assert edges[-1] >= high - 1e-9


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60), st.integers(1, 9))
def test_a_running_mean_stays_between_the_extremes(values: list[float], width: int) -> None:
    smooth = running_mean(np.array(values), min(width, len(values)))
    assert smooth.size == len(values)
    assert smooth.min() >= min(values) - 1e-9
    assert smooth.max() <= max(values) + 1e-9


def test_reliability_of_perfectly_calibrated_scores_lies_on_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    p_signal = rng.random(40_000)
    mean, observed, low, high = reliability((rng.random(40_000) < p_signal).astype(int), p_signal)
    assert mean.size == 10
    assert np.abs(mean - observed).max() < 0.03
    assert np.all((low <= observed) & (observed <= high))


def test_each_picture_is_written_as_png_and_pdf_the_same_each_time(
    finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(finished.root))
    told = []
    for name in ("once", "again"):
        asked = [
            "report",
            "demo",
            "--out",
            str(tmp_path / "page.html"),
            "--figures",
            str(tmp_path / name),
            "--json",
        ]
        result = CliRunner().invoke(cli, asked, catch_exceptions=False)
        told.append([Path(path) for path in json.loads(result.output)["figures"]])
    names = [path.name for path in told[0]]
    assert names == [f"demo-{name}.{form}" for name in PICTURES for form in ("png", "pdf")]
    starts = {".png": b"\x89PNG", ".pdf": b"%PDF"}
    for path, same in zip(*told, strict=True):
        assert path.read_bytes().startswith(starts[path.suffix])
        assert path.read_bytes() == same.read_bytes()


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


@given(low=st.floats(1e-7, 1e3), decades=st.floats(0.02, 9.0))
@hypothesis.settings(max_examples=25)
def test_numbers_of_a_logarithmic_axis_are_there_and_do_not_overlap(low: float, decades: float) -> None:
    with mpl.rc_context(PARAMETERS):
        figure = Figure(figsize=SIZE)
        axes = figure.add_axes((0.145, 0.135, 0.82, 0.785))
        scale_log(axes, low, low * 10**decades)
        figure.canvas.draw()
        bottom, top = sorted(axes.get_ylim())
        shown = [
            label.get_window_extent()
            for label in axes.get_yticklabels(which="both")
            if label.get_text() and bottom <= label.get_position()[1] <= top
        ]
    assert len(shown) >= 2
    assert min(box.x0 for box in shown) > 0, "a number is cut off"
    ordered = sorted(shown, key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(ordered))


@pytest.mark.torture
def test_in_a_browser_nothing_is_cut_at_1280_pixels_on_a_phone_it_scrolls_by_keyboard_and_on_paper_all_is_there(
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

        browser.resize(390, 800)
        assert browser.ask(hidden) >= 2
        assert browser.ask("document.documentElement.scrollWidth") <= 390
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


def test_a_plot_has_all_letters_that_its_titles_are_written_in() -> None:
    def draw(axes: Axes) -> None:
        axes.set_xlabel("τ₂₁ of the heavier jet – 1σ ± … √ [GeV]")
        axes.set_ylabel(r"$\varepsilon_S/$√$\varepsilon_B$, $m_{jj}$, $\tau_{21}$")

    for form in ("svg", "pdf", "png"):  # a letter that is missing is a warning, and so an error here
        assert Plot(draw=draw, left="naïve", right="1σ").file(form)
