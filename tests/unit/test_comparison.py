"""Runs side by side, and whether one of them is better on the same events."""

import json
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from lhcq.cli.compare import command
from lhcq.errors import BadInput, NotThere
from lhcq.evaluate.baseline import fit_baseline
from lhcq.evaluate.comparison import auc_difference, compare_scores
from lhcq.evaluate.metrics import delong_error
from lhcq.evaluate.validation import write_validation
from lhcq.manifests import write_manifest
from lhcq.records.commits import digests_of
from lhcq.records.events import events_sha256
from lhcq.records.scores import Scores
from lhcq.report.table import printed_template
from lhcq.storage import MANIFEST, read_json, write_json
from tests.older import without_prompt_trees
from tests.specs import job_of


def scores(rows, labels, p_signal) -> Scores:
    return Scores(
        rows=np.asarray(rows, np.int64),
        labels=np.asarray(labels, np.int8),
        p_signal=np.asarray(p_signal, float),
    )


def test_the_difference_of_two_aucs_knows_that_they_are_correlated() -> None:
    random = np.random.default_rng(1)
    labels = (np.arange(400) % 2).astype(np.int64)
    first = labels + random.normal(0, 1.0, 400)
    second = first + random.normal(0, 0.3, 400)
    found = auc_difference(labels, first, second)
    assert found
    assert found.error
    apart = math.hypot(delong_error(labels, first) or 0, delong_error(labels, second) or 0)
    assert found.error < 0.5 * apart
    # Resampling the events tells the same error without any formula.
    values = []
    for _ in range(300):
        drawn = np.concatenate([random.choice(np.flatnonzero(labels == label), 200) for label in (0, 1)])
        again = auc_difference(labels[drawn], first[drawn], second[drawn])
        assert again
        values.append(again.value)
    assert np.std(values) == pytest.approx(found.error, rel=0.2)


def test_equal_scores_differ_by_nothing_and_one_class_has_no_auc() -> None:
    labels = np.array([0, 1, 0, 1], np.int64)
    same = auc_difference(labels, labels * 0.5, labels * 0.5)
    assert same
    assert (same.value, same.error, same.p_value) == (0.0, None, None)
    assert auc_difference(np.zeros(3, np.int64), np.ones(3), np.ones(3)) is None


def test_scores_are_compared_on_the_rows_that_both_have_in_whatever_order() -> None:
    first = scores([1, 2, 3, 4, 5], [1, 0, 1, 0, 1], [0.9, 0.6, 0.8, 0.1, 0.9])
    second = scores([9, 4, 3, 2, 1], [0, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4, 0.7])
    found = compare_scores(first, second)
    assert found
    assert (found.n, found.n_signal) == (4, 2)
    assert (found.only_first_right, found.only_second_right) == (1, 1)  # rows 3 and 2
    assert found.auc
    assert found.auc.value == pytest.approx(1.0 - 0.75)
    assert compare_scores(first, scores([7], [1], [0.5])) is None
    with pytest.raises(BadInput, match="other labels"):
        compare_scores(first, scores([1], [0], [0.5]))


@pytest.fixture
def runs(place, monkeypatch):
    """Two tested runs on one split, a run on another source, and one that has just been queued."""
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    random = np.random.default_rng(2)
    for split, source in (("one", "a"), ("two", "b")):
        place.split(split).mkdir(parents=True)
        for first, part in ((0, "train"), (100, "validation"), (200, "calibration"), (300, "test")):
            labels = np.arange(100) % 2
            columns = {
                "row": np.arange(first, first + 100),
                "label": labels.astype(np.int8),
            }
            masses = {name: random.normal(100 + 40 * labels, 30) for name in ("mjj", "m_heavy", "m_light")}
            columns["prompt"] = [f"{mass:.0f}:" for mass in masses["mjj"]]  # less than there is to know
            pq.write_table(pa.table(columns | masses), place.split(split) / f"{part}.parquet")
        write_manifest(
            place.split(split),
            source_sha256=source,
            features=["mjj", "m_heavy", "m_light"],
            template={"name": "compact", "version": 3, "columns": ["mjj"]},
        )
    fit_baseline(place.split("one"), place.baseline("one"))
    for run, split, skill in (
        ("good", "one", 2.0),
        ("poor", "one", 0.5),
        ("other", "two", 1.0),
        ("new", "one", None),
    ):
        digests = digests_of(read_json(place.split(split) / MANIFEST))
        job = job_of(
            "train",
            run,
            parts=0,
            split=split,
            split_sha256=digests,
            total_steps=8,
            checkpoint_steps=[8],
        )
        write_json(place.run(run) / "job.json", job.model_dump())
        if skill is not None:
            for first, final in ((100, place.validation(run, 8)), (300, place.run(run) / "test")):
                labels = np.arange(100) % 2
                p_signal = 1 / (1 + np.exp(-random.normal(skill * (2 * labels - 1), 1)))
                rows = np.arange(first, first + 100)
                write_validation(final, step=8, rows=rows, labels=labels, p_signal=p_signal, answers=None)
    return place


def compare(*names):
    done = CliRunner().invoke(command, list(names), standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.output


def test_runs_stand_side_by_side_and_are_compared_where_the_test_events_are_the_same(runs) -> None:
    answer = json.loads(compare("good", "poor", "other", "new", "--json"))
    assert [row["run"] for row in answer["runs"]] == ["good", "poor", "other", "new"]
    assert [(row["part"], row["step"], row["n"]) for row in answer["runs"]] == [("test", 8, 100)] * 3 + [
        (None,) * 3
    ]
    pairs = {(pair["first"], pair["second"]): pair for pair in answer["pairs"]}
    clear = pairs["good", "poor"]["comparison"]
    assert clear["n"] == 100
    assert clear["only_first_right"] > clear["only_second_right"]
    assert clear["p_value"] < 0.01
    assert clear["auc"]["low"] > 0
    assert pairs["good", "other"]["reason"] == "their splits are of different events"
    assert pairs["good", "new"]["reason"] == "new has not been tested yet"
    for row in answer["runs"]:
        assert row["prompt_trees"]["name"] == "trees on the prompt's numbers"
    good = answer["runs"][0]
    assert good["trees"]["name"] == "trees on all 3 features"
    assert good["prompt_trees"]["auc"] < good["trees"]["auc"]
    for kind in ("prompt_trees", "trees"):
        found = pairs["good", good[kind]["name"]]["comparison"]
        assert found["n"] == 100
        assert found["auc"]["value"] == pytest.approx(good["auc"] - good[kind]["auc"])
        assert found["auc"]["p_value"] is not None
        assert pairs["new", good[kind]["name"]]["reason"] == "new has not been tested yet"

    text = compare("good", "poor", "new")
    head, good, _, new, *_ = [line for line in text.splitlines() if line and not set(line) <= {"─", " "}]
    assert re.search("AUC, trees on the prompt's numbers +AUC, trees on all features$", head)
    assert good.split()[:6] == ["good", "one", "smollm2", "compact", "v3", "0/8"]
    assert new.split()[-7:] == ["–"] * 7
    for other in ("poor", "trees on the prompt's numbers", "trees on all 3 features"):
        assert f"good against {other}, 100 test events: right alone" in text


def test_trees_of_an_earlier_version_are_compared_as_what_they_are(runs) -> None:
    before = json.loads(compare("good", "--json"))
    without_prompt_trees(runs.baseline("one"))
    answer = json.loads(compare("good", "--json"))
    (row,) = answer["runs"]
    assert row["trees"] == before["runs"][0]["trees"]
    assert {value for name, value in row["prompt_trees"].items() if name != "name"} == {None}
    missing, there = answer["pairs"]
    assert (missing["second"], missing["comparison"]) == ("trees on the prompt's numbers", None)
    assert there == before["pairs"][1]
    missing_since = "not compared, not fitted by the earlier lhcq that made this split."
    assert f"good against trees on the prompt's numbers: {missing_since}" in compare("good")


def test_a_run_that_does_not_exist_is_named(runs) -> None:
    with pytest.raises(NotThere, match="nobody"):
        compare("good", "nobody")


def test_a_template_with_constituents_says_how_many_and_in_which_frame():
    wide = {"name": "wide", "version": 1, "columns": ["mjj"], "sha256": ""}
    assert printed_template(wide) == "wide v1"
    ten = {**wide, "name": "particles", "constituents": 10, "frame": "detector"}
    assert printed_template(ten) == "particles v1 (10 constituents, detector)"


@pytest.mark.parametrize(("axes", "told"), [(("kt", "wta-kt"), True), (("wta-kt", "wta-kt"), False)])
def test_runs_on_tau_about_other_axes_are_told_apart(runs, axes, told) -> None:
    for split, kind in zip(("one", "two"), axes, strict=True):
        directory = runs.dataset(f"of-{split}")
        directory.mkdir(parents=True)
        (directory / "events.parquet").write_text(split)
        write_manifest(directory, tau_axes=kind)
        manifest = read_json(runs.split(split) / MANIFEST)
        manifest["template"]["columns"].append("tau21_heavy")
        write_json(
            runs.split(split) / MANIFEST,
            {
                **manifest,
                "dataset": directory.name,
                "dataset_sha256": events_sha256(read_json(directory / MANIFEST)),
            },
        )
    (pair,) = [one for one in json.loads(compare("good", "other", "--json"))["pairs"] if "axes" in one]
    assert bool(pair["axes"]) == told
    assert ("Beware: their tau_N are about other axes (kt and wta-kt)" in compare("good", "other")) == told
