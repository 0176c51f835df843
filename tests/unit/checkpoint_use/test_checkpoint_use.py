"""What a checkpoint is for: prediction as a job in this process, and its export; with the real small model."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import lhcq
from lhcq.cli.predict import command
from lhcq.config import SplitConfig
from lhcq.errors import BadInput, NameTaken, NotThere
from lhcq.prompts.writing import write_split
from lhcq.records.jobs import load_job, outcome_of
from lhcq.report.prediction import prediction_verdict
from lhcq.storage import read_json
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.client import do_here
from tasks.jobs.kinds import queue_of
from tasks.jobs.planner import pending_units
from tests.checkpoint_used import N, made_up_records, write_dataset


def ask(monkeypatch, broker_url, *arguments):
    """The command as a user gives it to workers elsewhere; raises what it refuses."""
    monkeypatch.setenv("LHCQ_BROKER_URL", broker_url)
    done = CliRunner().invoke(command, [*map(str, arguments), "--detach", "--json"], standalone_mode=False)
    if done.exception:
        raise done.exception
    return json.loads(done.stdout)


def work(place, name, *, units=None, queue="validate"):
    """Do what is left of a prediction, as its worker would."""
    app.loader.import_default_modules()
    job = load_job(place, "predict", name)
    done = []
    while outcome_of(place, job) is None and (units is None or len(done) < units):
        unit = pending_units(place, job)[0]
        assert queue_of(unit) == queue
        assert app.tasks[unit.task](*unit.args) == "done"
        done.append(unit)
    return done


def test_a_prediction_goes_on_where_it_was_stopped_and_judges_what_training_did_not_see(
    trained, broker_url, monkeypatch
) -> None:
    asked = ("run", "events", "--name", "own", "--events-per-chunk", "20")
    assert ask(monkeypatch, broker_url, *asked) == {"job": "predict own"}
    assert len(work(trained, "own", units=2)) == 2
    with pytest.raises(NameTaken, match=r"^'predict own' is under way .*--select 0.5, was 0.01"):
        ask(monkeypatch, broker_url, *asked, "--select", "0.5")
    ask(monkeypatch, broker_url, *asked)
    assert [unit.task for unit in work(trained, "own")] == ["lhcq.predict_part"] * 2 + ["lhcq.predict_merge"]
    outcome = outcome_of(trained, load_job(trained, "predict", "own"))
    assert outcome
    assert outcome.state == "done"
    assert "test subset alone" in outcome.message

    summary = read_json(trained.prediction("own") / "summary.json")
    counts = {
        part: sum(count.values())
        for part, count in read_json(trained.split("split") / "manifest.json")["counts"].items()
    }
    assert summary["parts"] == {**counts, "none": N - sum(counts.values())}
    assert summary["judged"]["n"] == summary["figures"]["n"] == counts["test"]
    assert summary["reference"]["n_background"] == counts["calibration"] // 2
    assert summary["spectrum"]["expected"] == [0.0] * (len(summary["spectrum"]["edges"]) - 1)  # none can pass
    assert summary["expectation"]["error"] > 0  # the reference has its m_jj
    assert "template compact" in prediction_verdict(summary)[-1]
    table = pq.read_table(trained.prediction("own") / "scores.parquet")
    assert table["row"].to_pylist() == list(range(N))
    # The reference is in the dataset too: the best of its background has one p-value, of itself and one.
    calibration = pq.read_table(trained.split("split") / "calibration.parquet")
    background = {
        row
        for row, label in zip(*(calibration[c].to_pylist() for c in ("row", "label")), strict=True)
        if not label
    }
    n = len(background)
    values = sorted(
        value
        for row, value in zip(*(table[c].to_pylist() for c in ("row", "p_value")), strict=True)
        if row in background
    )
    assert values == pytest.approx([(1 + rank) / (n + 1) for rank in range(1, n + 1)])


def test_a_black_box_is_scored_blind_and_opened_by_its_key(
    trained, broker_url, monkeypatch, tmp_path
) -> None:
    ask(monkeypatch, broker_url, "run", "box", "--step", "1")
    work(trained, "run-box")
    blind = read_json(trained.prediction("run-box") / "summary.json")
    assert (blind["figures"], blind["parts"]) == (None, None)
    key = tmp_path / "key.txt"
    key.write_text("".join(f"{row % 2}\n" for row in range(10)))
    ask(monkeypatch, broker_url, "run", "box", "--name", "opened", "--labels", key)
    work(trained, "opened")
    opened = read_json(trained.prediction("opened") / "summary.json")
    assert (opened["figures"]["n"], opened["figures"]["n_signal"]) == (10, 5)
    assert (
        opened["figures"]["accuracy_low"] < opened["figures"]["accuracy"] < opened["figures"]["accuracy_high"]
    )
    scores = [pq.read_table(trained.prediction(name) / "scores.parquet") for name in ("run-box", "opened")]
    assert scores[0].drop_columns("label").equals(scores[1].drop_columns("label"))
    assert scores[1]["label"].to_pylist() == [row % 2 for row in range(10)]


def files_of(prediction):
    """The bytes of a prediction's files."""
    return {file.name: file.read_bytes() for file in prediction.iterdir()}


def test_another_selection_scores_nothing_and_has_the_bytes_of_one_that_did(
    trained, broker_url, monkeypatch, tmp_path
) -> None:
    """With a queue and without, by workers that have no model."""
    other = Workspace(tmp_path / "other")
    shutil.copytree(trained.root, other.root)
    for name in ("select-0.3", "select-0.5"):
        p = float(name.removeprefix("select-"))
        lhcq.score("run", "events", f"run-events-{name}", workspace=other, largest_p_value=p)
        shutil.move(other.prediction(f"run-events-{name}"), tmp_path / name)  # where it is not found again
    first = lhcq.score("run", "events", workspace=trained)

    asked = ("run", "events", "--select", "0.5")
    for _ in range(2):  # the command was stopped, and is given again
        assert ask(monkeypatch, broker_url, *asked) == {"job": "predict run-events-select-0.5"}
    planned = lhcq.plan_score("run", "events", workspace=trained, largest_p_value=0.3)
    monkeypatch.setenv("LHCQ_BROKER_URL", "redis://127.0.0.1:1")  # who waits for it needs none
    told = CliRunner().invoke(command, ["run", "events", "--select", "0.7", "--json"], standalone_mode=False)
    answer = json.loads(told.stdout)
    assert (answer["name"], answer["scores_of"]) == ("run-events-select-0.7", "run-events")
    assert (answer["events_per_second"], answer["selection"]["largest_p_value"]) == (None, 0.7)
    assert "the scores of prediction run-events are used" in told.stderr
    assert lhcq.score("run", "events", workspace=trained, largest_p_value=0.7).name == answer["name"]
    shutil.rmtree(trained.checkpoint("run", 1))
    done = work(trained, "run-events-select-0.5", queue="cpu")
    assert [unit.task for unit in done] == ["lhcq.predict_select"]
    assert do_here(trained, planned).state == "done"
    for name in ("select-0.3", "select-0.5"):
        assert files_of(trained.prediction(f"run-events-{name}")) == files_of(tmp_path / name)
    assert set(files_of(first.path)) == set(files_of(tmp_path / "select-0.5"))


def test_scores_that_are_damaged_after_the_command_end_the_job_and_leave_nothing(
    trained, broker_url, monkeypatch
) -> None:
    first = lhcq.score("run", "box", workspace=trained, step=1)
    asked = ("run", "box", "--step", "1", "--select", "0.5")
    ask(monkeypatch, broker_url, *asked)
    damaged = first.path / "scores.parquet"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    app.loader.import_default_modules()
    job = load_job(trained, "predict", "run-box-select-0.5")
    (unit,) = pending_units(trained, job)
    assert app.tasks[unit.task](*unit.args) == "failed"
    outcome = outcome_of(trained, job)
    assert outcome
    assert outcome.state == "failed"
    assert "scores.parquet: differs from its manifest" in outcome.message
    assert not trained.prediction(job.name).exists()
    with pytest.raises(BadInput, match="differs from its manifest"):
        ask(monkeypatch, broker_url, *asked)
    shutil.rmtree(first.path)  # as the line says: it is made again
    assert ask(monkeypatch, broker_url, *asked) == {"job": "predict run-box"}


def test_what_cannot_be_predicted_is_refused_before_anything_starts(
    trained, broker_url, monkeypatch, tmp_path
) -> None:
    write_dataset(trained, "bare", made_up_records(4).drop_columns("n_particles"), "other")
    key = tmp_path / "key.txt"
    key.write_text("0\n" * 9)
    for arguments, error, message in (
        (("run", "bare"), BadInput, "^bare: its events have no n_particles"),
        (("run", "events", "--labels", key), BadInput, "has labels of its own"),
        (("run", "box", "--labels", key), BadInput, "9 lines for 10 events"),
        (("run", "box", "--step", "9"), NotThere, "no checkpoint at step 9"),
        (("run", "nothing"), NotThere, "dataset 'nothing'"),
        (("walk", "box"), NotThere, "walk"),
    ):
        with pytest.raises(error, match=message):
            ask(monkeypatch, broker_url, *arguments)
    shutil.rmtree(trained.split("split"))
    write_split(trained.dataset("events"), trained.split("split"), config=SplitConfig(seed=2))
    with pytest.raises(BadInput, match="is not the split that run 'run' began with"):
        ask(monkeypatch, broker_url, "run", "box")
    assert not list((trained.root / "jobs").glob("predict-*"))
