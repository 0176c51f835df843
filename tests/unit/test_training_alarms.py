"""The watchdog in real trainings of the small model, provoked: tasks called one after the other, as messages come."""

import contextlib
import json
import shutil

import pytest
import torch

from lhcq.config import TrainConfig
from lhcq.evaluate.comparison import compare_scores
from lhcq.model import loop
from lhcq.model.plan import plan_run
from lhcq.records.jobs import outcome_of
from lhcq.records.run_state import RATE_FACTOR, alarms_of, committed_steps, read_course
from lhcq.report.collect import collect_run
from lhcq.report.page import render_page
from lhcq.storage import MANIFEST, read_json, sha256_of
from tasks.app import app
from tasks.jobs.planner import pending_units
from tasks.stages import train
from tests.prompt_splits import write_two_digits

pytestmark = pytest.mark.usefixtures("all_undrawn")

PARTS = {"train": 32, "validation": 24, "calibration": 24, "test": 24}
TASKS = {
    "lhcq.train_segment": train.train_segment,
    "lhcq.validate": train.validate,
    "lhcq.test": train.test,
}


def write_split(place, label_of, *, train_label=None):
    write_two_digits(place.split("small"), PARTS, label_of, train_label=train_label)


@pytest.fixture
def start(broker, here, new_job, base):
    """Asks for a run of the small model on a split."""

    def begin(*, checkpoint_steps=None, **config):
        resolved = TrainConfig(**{"dropout": 0.0, "batch_size": 8, "rank": 4, **config})
        split = here.split("small")
        return new_job(
            "train",
            "run",
            parts=0,
            split="small",
            split_sha256={path.name: sha256_of(path) for path in split.glob("*.parquet")},
            model="smollm2",
            model_dir=str(base.directory),
            base=base.identity.model_dump(),
            config=resolved.model_dump(),
            config_sha256="c",
            checkpoint_steps=list(checkpoint_steps or plan_run(PARTS["train"], resolved).checkpoint_steps),
        )

    return begin


@pytest.fixture
def heard(broker):
    """Gives the alarms that were sent as events since the test began."""
    found = []
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"lhcq-alarm": found.append})
        with receiver.consumer_context(wakeup=False) as (listening, _, _):

            def hear():
                with contextlib.suppress(TimeoutError):
                    while True:
                        listening.drain_events(timeout=0.2)
                return found

            hear()  # which subscribes
            yield hear


def deliver(place, job):
    """The next message, or None when nothing is to be done."""
    units = pending_units(place, job) if outcome_of(place, job) is None else []
    return TASKS[units[0].task](*units[0].args) if units else None


def follow(place, job):
    while deliver(place, job) is not None:
        pass
    return outcome_of(place, job)


def large_is_signal(digit, draw):
    return int(digit >= 5)


def test_numbers_that_are_none_send_a_run_back_three_times_and_then_end_it(
    here, start, heard, monkeypatch
) -> None:
    write_split(here, large_is_signal)
    job = start(learning_rate=1e-3, batch_size=4, max_steps=2, checkpoint_every=1, warmup_fraction=0.0)
    assert deliver(here, job) == "done"  # the first segment
    assert committed_steps(here.run("run")) == [1]
    segment = loop.train_segment

    def spoilt(*arguments, config, **rest):
        return segment(*arguments, config=config.model_copy(update={"learning_rate": 1e30}), **rest)

    monkeypatch.setattr(loop, "train_segment", spoilt)
    outcome = follow(here, job)
    told = [
        (alarm.after, alarm.round, alarm.act) for alarm in alarms_of(here.run("run")) if alarm.kind == "nan"
    ]
    assert told == [*((1, at_round, "rollback") for at_round in range(3)), (1, 3, "stop")]
    assert read_course(here.run("run"), 1).rate_factor == pytest.approx(RATE_FACTOR**3)
    assert outcome.state == "done"
    assert outcome.message.startswith("best checkpoint: step 1; ended early: Training diverged at step 2")
    assert committed_steps(here.run("run")) == [1]
    lines = [json.loads(line) for line in (here.run("run") / "events.jsonl").read_text().splitlines()]
    assert [(event["kind"], event["act"]) for event in heard()] == [
        (line["kind"], line["act"]) for line in lines if line["event"] == "alarm"
    ]
    acts = [line["event"] for line in lines if line.get("kind") == "nan" or line["event"] == "rollback"]
    assert acts == ["alarm", "rollback"] * 3 + ["alarm"]
    view = collect_run(here, "run")
    page = render_page(view, compare_scores)
    assert page.count("of the planned rate") == 3
    assert "(training ends)" in page
    assert view.calibrated.calibration.n == PARTS["calibration"]
    assert "Calibrated, and where signal is rare" in page


def test_without_a_checkpoint_numbers_that_are_none_fail_the_run(here, start) -> None:
    write_split(here, large_is_signal)
    job = start(learning_rate=1e30, batch_size=4, max_steps=1, warmup_fraction=0.0)
    outcome = follow(here, job)
    assert outcome.state == "failed"
    assert "Start a run with a lower learning rate" in outcome.message
    assert [alarm.kind for alarm in alarms_of(here.run("run"))] == ["nan"]


@pytest.mark.torture
def test_a_rate_of_a_tenth_diverges_and_is_told(here, start) -> None:
    write_split(here, large_is_signal)
    job = start(learning_rate=0.1, epochs=8, checkpoints=2, warmup_fraction=0.3)
    assert follow(here, job).state == "done"
    assert {"divergence", "collapse"} <= {alarm.kind for alarm in alarms_of(here.run("run"))}


@pytest.mark.torture
def test_a_model_that_saw_one_class_answers_it_and_is_sent_back(here, start) -> None:
    write_split(here, large_is_signal, train_label=1)
    job = start(
        learning_rate=3e-3,
        epochs=4,
        checkpoints=4,
        class_weighted=False,
        on_collapse="rollback",
        on_divergence="tell",
    )
    assert follow(here, job).state == "done"
    alarms = [alarm for alarm in alarms_of(here.run("run")) if alarm.kind == "collapse"]
    assert alarms
    assert "answers are signal" in alarms[-1].message


@pytest.mark.torture
def test_labels_of_chance_learned_by_heart_are_overfitting_which_ends_the_run(here, start) -> None:
    write_split(here, lambda digit, draw: draw.randrange(2))
    job = start(learning_rate=2e-3, epochs=40, checkpoints=8, on_overfitting="stop", select="nll", keep=1)
    outcome = follow(here, job)
    assert "ended early: validation NLL" in outcome.message
    (last,) = [alarm for alarm in alarms_of(here.run("run")) if alarm.kind == "overfitting"]
    assert last.act == "stop"
    best = read_json(here.run("run") / "test" / MANIFEST)["step"]
    assert committed_steps(here.run("run")) == sorted({best, last.after})


@pytest.mark.torture
def test_a_segment_after_going_back_is_the_same_however_often_it_is_begun(here, start, tmp_path) -> None:
    write_split(here, large_is_signal, train_label=1)
    job = start(
        learning_rate=3e-3, epochs=4, checkpoints=4, class_weighted=False, dropout=0.1, on_collapse="rollback"
    )
    run = here.run("run")
    while not list((run / "answers").glob("*.json")):
        assert deliver(here, job) is not None
    newest = committed_steps(run)[-1]
    again = tmp_path / "again"
    shutil.copytree(run / "checkpoints" / f"{newest:08d}", again)
    shutil.rmtree(run / "checkpoints" / f"{newest:08d}")
    torch.rand(5)
    assert deliver(here, job) == "done"
    weights = "adapter_model.safetensors"
    assert (run / "checkpoints" / f"{newest:08d}" / weights).read_bytes() == (again / weights).read_bytes()
    assert len(list((run / "answers").glob("*.json"))) == 1
