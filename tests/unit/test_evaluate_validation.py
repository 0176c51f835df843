"""Scores, validations and the boosted trees on disk."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import classification_report, roc_auc_score

from lhcq.errors import BadInput, NotThere
from lhcq.evaluate.baseline import EARLY_STOPPING_FROM, build_trees, fit_baseline
from lhcq.evaluate.metrics import metrics_of
from lhcq.evaluate.text import text_report
from lhcq.evaluate.validation import write_validation
from lhcq.manifests import read_manifest, verify_files, write_manifest
from lhcq.records.run_state import best_step, validated_steps
from lhcq.records.scores import Scores, read_scores, write_scores
from lhcq.records.validations import read_metrics

LABELS = np.array([0, 1, 1, 0, 1, 0], dtype=np.int8)
P_SIGNAL = np.array([0.1, 0.9, 0.4, 0.2, 0.8, 0.7])
ANSWERS = np.array([0, 1, -1, 0, 1, 0], dtype=np.int8)
ROWS = np.array([30, 11, 12, 2, 900, 7])
SCORES = Scores.of(rows=ROWS, labels=LABELS, p_signal=P_SIGNAL, answers=ANSWERS)


def test_scores_of_an_older_lhcq_have_no_answers(tmp_path: Path) -> None:
    columns = {"row": ROWS, "label": LABELS, "p_signal": P_SIGNAL, "unknown": ANSWERS < 0}
    pq.write_table(pa.table(columns), tmp_path / "scores.parquet")
    scores = read_scores(tmp_path / "scores.parquet")
    assert scores.answers is None
    np.testing.assert_array_equal(scores.p_signal, P_SIGNAL)
    write_scores(tmp_path / "trees.parquet", scores)
    assert read_scores(tmp_path / "trees.parquet").answers is None


def test_scores_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.parquet", SCORES)
    scores = read_scores(tmp_path / "scores.parquet")
    for found, written in zip(
        (scores.rows, scores.labels, scores.p_signal, scores.answers),
        (ROWS, LABELS, P_SIGNAL, ANSWERS),
        strict=True,
    ):
        assert found.dtype == written.dtype
        np.testing.assert_array_equal(found, written)


def test_equal_scores_are_equal_bytes(tmp_path: Path) -> None:
    write_scores(tmp_path / "one.parquet", SCORES)
    lists = {name: column.tolist() for name, column in vars(SCORES).items()}
    write_scores(tmp_path / "two.parquet", Scores.of(**lists))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_scores_that_do_not_fit_each_other_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not equally many"):
        write_scores(tmp_path / "scores.parquet", replace(SCORES, rows=ROWS[:-1]))
    with pytest.raises(BadInput, match="diverged"):
        write_scores(tmp_path / "scores.parquet", replace(SCORES, p_signal=P_SIGNAL * np.nan))
    assert list(tmp_path.iterdir()) == []


def test_missing_and_damaged_scores_say_which_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    with pytest.raises(NotThere, match=r"scores\.parquet: there are no scores"):
        read_scores(path)
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(BadInput, match=r"scores\.parquet: not readable as scores"):
        read_scores(path)
    pq.write_table(pa.table({"row": [1]}), path)
    with pytest.raises(BadInput, match=r"scores\.parquet: not readable as scores"):
        read_scores(path)


def test_a_validation_is_committed_with_figures_report_and_manifest(tmp_path: Path) -> None:
    final = tmp_path / "validations" / "00000040"
    figures = write_validation(
        final, step=40, rows=ROWS, labels=LABELS, p_signal=P_SIGNAL, answers=ANSWERS, model="smollm2"
    )
    manifest = read_manifest(final, what="validation", remedy="")
    verify_files(final, manifest)
    assert sorted(manifest["files"]) == ["figures.json", "report.txt", "scores.parquet"]
    assert (manifest["step"], manifest["model"]) == (40, "smollm2")
    assert read_metrics(final) == figures == metrics_of(LABELS, P_SIGNAL, ANSWERS)
    assert (final / "report.txt").read_text() == text_report(LABELS, P_SIGNAL, ANSWERS)
    assert [path.name for path in final.parent.iterdir()] == ["00000040"], "nothing temporary stays"


def test_the_first_validation_stands(tmp_path: Path) -> None:
    final = tmp_path / "validations" / "00000040"
    first = write_validation(final, step=40, rows=ROWS, labels=LABELS, p_signal=P_SIGNAL, answers=ANSWERS)
    write_validation(final, step=40, rows=ROWS, labels=LABELS, p_signal=1 - P_SIGNAL, answers=ANSWERS)
    assert read_metrics(final) == first


def write_one(run: Path, step: int, p_signal: np.ndarray) -> None:
    final = run / "validations" / f"{step:08d}"
    write_validation(final, step=step, rows=ROWS, labels=LABELS, p_signal=p_signal, answers=ANSWERS)


def test_only_committed_validations_count(tmp_path: Path) -> None:
    assert validated_steps(tmp_path) == []
    assert best_step(tmp_path) is None
    write_one(tmp_path, 200, P_SIGNAL)
    write_one(tmp_path, 40, P_SIGNAL)
    (tmp_path / "validations" / "00000300").mkdir()
    (tmp_path / "validations" / ".00000400.1-ab.tmp").mkdir()
    (tmp_path / "validations" / ".00000400.1-ab.tmp" / "manifest.json").write_text("{}")
    assert validated_steps(tmp_path) == [40, 200]


def test_the_best_step_has_the_highest_auc_then_accuracy_then_comes_first(tmp_path: Path) -> None:
    ranked = np.array([0.1, 0.9, 0.8, 0.2, 0.95, 0.3])  # AUC 1
    write_one(tmp_path, 10, P_SIGNAL)
    assert best_step(tmp_path) == 10
    write_one(tmp_path, 20, ranked / 2)  # AUC 1, but nothing reaches one half
    assert best_step(tmp_path) == 20
    write_one(tmp_path, 30, ranked)
    assert best_step(tmp_path) == 30
    write_one(tmp_path, 40, ranked)
    assert best_step(tmp_path) == 30


def test_the_best_step_of_one_class_goes_by_accuracy(tmp_path: Path) -> None:
    for step, p_signal in ((10, 0.2), (20, 0.8)):
        write_validation(
            tmp_path / "validations" / f"{step:08d}",
            step=step, rows=[1, 2], labels=[1, 1], p_signal=[p_signal, 0.9], answers=[0, 0],
        )  # fmt: skip
    assert best_step(tmp_path) == 20


def test_missing_and_damaged_figures_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotThere, match=r"Validate the checkpoint again"):
        read_metrics(tmp_path)
    for damage in ("[]", "{", '{"n": 3}'):
        (tmp_path / "figures.json").write_text(damage)
        write_manifest(tmp_path)
        with pytest.raises(BadInput):
            read_metrics(tmp_path)


def test_figures_that_are_not_those_of_the_commit_are_refused(tmp_path: Path) -> None:
    write_one(tmp_path, 10, P_SIGNAL)
    path = tmp_path / "validations" / "00000010" / "figures.json"
    path.write_text(path.read_text().replace('"n": 6', '"n": 7'))
    with pytest.raises(BadInput, match=r"figures\.json: differs from its manifest"):
        read_metrics(path.parent)


def test_the_text_report_is_the_studys_when_nothing_is_unknown() -> None:
    report = text_report(LABELS, P_SIGNAL, P_SIGNAL >= 0.5)
    expected = classification_report(LABELS, P_SIGNAL >= 0.5, target_names=["background", "signal"])
    assert report.startswith(
        "Validation Accuracy: 0.6667\nGenerated Accuracy: 0.6667\nNumber of unknown predictions: 0\n"
        + expected
    )
    assert report.endswith(
        "truth \\ predicted  background      signal\n"
        "       background           2           1\n"
        "           signal           1           2\n"
    )


def test_an_unknown_prediction_is_counted_and_the_likelier_label_stays_the_prediction() -> None:
    report = text_report(LABELS, P_SIGNAL, np.array([-1, 1, 0, 0, 1, 1]))
    assert report.startswith(
        "Validation Accuracy: 0.6667\nGenerated Accuracy: 0.5\nNumber of unknown predictions: 1\n  (generated"
    )
    assert "       background           2           1\n" in report


FEATURES = ["mjj", "m_heavy", "empty"]


def write_small_split(split: Path, *, n: int = 400, seed: int = 0, one_class: bool = False) -> None:
    rng = np.random.default_rng(seed)
    split.mkdir(parents=True)
    for part in ("train", "validation", "test"):
        label = np.zeros(n, dtype=np.int8) if one_class else rng.integers(0, 2, n).astype(np.int8)
        m_heavy = np.where(label == 1, rng.normal(480, 90, n), 80 + rng.gamma(2, 110, n))
        columns = {
            "row": rng.permutation(n),
            "label": label,
            "prompt": ["1:"] * n,
            "mjj": np.where(rng.random(n) < 0.05, np.nan, rng.normal(3000, 500, n) + 250.0 * label),
            "m_heavy": m_heavy,
            "empty": np.full(n, np.nan),
        }
        pq.write_table(pa.table(columns), split / f"{part}.parquet")
    write_manifest(split, features=FEATURES)


def test_the_trees_learn_with_missing_values_and_are_scored_on_events_they_did_not_see(
    tmp_path: Path,
) -> None:
    write_small_split(tmp_path / "split")
    final = tmp_path / "baselines" / "split"
    fit_baseline(tmp_path / "split", final)
    manifest = read_manifest(final, what="baseline", remedy="")
    verify_files(final, manifest)
    assert (manifest["features"], manifest["n_train"]) == (["mjj", "m_heavy"], 400), "no event has the third"
    assert "scikit-learn" in manifest["versions"]
    assert manifest["prompt"]["numbers"] == 1
    assert sorted(manifest["files"]) == [
        "figures.json", "prompt-test.parquet", "prompt-validation.parquet", "test.parquet", "validation.parquet",
    ]  # fmt: skip
    figures = json.loads((final / "figures.json").read_text())
    for part in ("validation", "test"):
        scores = read_scores(final / f"{part}.parquet")
        np.testing.assert_array_equal(
            scores.rows, pq.read_table(tmp_path / "split" / f"{part}.parquet")["row"].to_numpy()
        )
        assert figures[part] == metrics_of(scores.labels, scores.p_signal).model_dump()
        # One cut on the mass, the best a single feature does here; the trees must not be worse than that.
        one_cut = roc_auc_score(
            scores.labels, pq.read_table(tmp_path / "split" / f"{part}.parquet")["m_heavy"].to_numpy()
        )
        assert 0.75 < one_cut < figures[part]["auc"] < 0.99


def test_the_trees_are_the_same_each_time_and_a_committed_fit_is_left_alone(tmp_path: Path) -> None:
    write_small_split(tmp_path / "split")
    fit_baseline(tmp_path / "split", tmp_path / "one")
    fit_baseline(tmp_path / "split", tmp_path / "two")
    assert (tmp_path / "one" / "test.parquet").read_bytes() == (
        tmp_path / "two" / "test.parquet"
    ).read_bytes()
    before = (tmp_path / "one" / "manifest.json").stat()
    fit_baseline(tmp_path / "split", tmp_path / "one")
    assert (tmp_path / "one" / "manifest.json").stat() == before


def test_early_stopping_waits_for_enough_events() -> None:
    assert not build_trees(EARLY_STOPPING_FROM - 1).early_stopping
    assert build_trees(EARLY_STOPPING_FROM).early_stopping


def test_trees_without_a_split_or_with_one_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotThere, match=r"split 'split' does not exist .* `lhcq prepare`"):
        fit_baseline(tmp_path / "split", tmp_path / "out")
    write_small_split(tmp_path / "split", one_class=True)
    with pytest.raises(BadInput, match=r"train\.parquet: boosted trees need events of both classes"):
        fit_baseline(tmp_path / "split", tmp_path / "out")
    assert not (tmp_path / "out").exists()
