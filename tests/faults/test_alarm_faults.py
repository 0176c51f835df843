"""Trainers killed around an alarm and what follows it: the run goes back once for each, and ends the same way."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lhcq.records.jobs import Job
from lhcq.records.run_state import MAX_ROLLBACKS, alarms_of, committed_steps, read_course
from lhcq.storage import read_json, write_record
from tests.faults.rig import Rig, running_rig

pytestmark = pytest.mark.torture
QUICK = ("--batch-size", "2", "--max-steps", "4", "--checkpoints", "2", "--learning-rate", "0.001")
END_SECONDS = 600


@pytest.fixture
def ready(tmp_path, events, smollm2) -> Iterator[Rig]:
    """A rig with a split and one trainer at work."""
    with running_rig(tmp_path / "rig") as rig:
        worker = rig.start_worker()
        rig.await_ready()
        rig.run("cluster", events, "--name", "made")
        rig.run("prepare", "made", "--split", "small", "--limit", "40", "--model", smollm2)
        worker.kill()
        rig.start_worker("gpu")
        rig.await_ready()
        yield rig


def ask_for_a_rate_that_diverges(run: Path) -> None:
    """As though the run had been asked for like that: what it has made is of the run as it is asked for now."""
    record = run / "job.json"
    asked = dict(read_json(record))
    asked["spec"]["config"]["learning_rate"] = 1e30
    before, asked["identity"] = asked["identity"], Job.checked(**asked).spec.identity()
    write_record(record, asked)
    for manifest in run.glob("*/*/manifest.json"):
        manifest.write_text(manifest.read_text().replace(before, asked["identity"]))


def test_trainers_killed_around_an_alarm_go_back_once_for_each(ready: Rig, smollm2) -> None:
    ready.arm("after-checkpoint-commit")
    ready.run("train", "small", "--name", "wild", "--model", smollm2, *QUICK, "--detach")
    ready.reached("after-checkpoint-commit", 240)
    ready.victim("after-checkpoint-commit").process.wait()
    run = ready.place.run("wild")
    ask_for_a_rate_that_diverges(run)
    for point in ("after-alarm-commit", "before-answer-commit", "after-answer-commit"):
        ready.arm(point)
        ready.start_worker("gpu")
        ready.reached(point, 240)
        ready.victim(point).process.wait()
    ready.start_worker("gpu")
    outcome = ready.await_end(ready.job("train", "wild"), END_SECONDS)
    assert outcome.state == "done"
    assert outcome.message.startswith("best checkpoint: step 2; ended early: Training diverged")
    rounds = [(alarm.round, alarm.act) for alarm in alarms_of(run) if alarm.kind == "nan"]
    assert rounds == [*((number, "rollback") for number in range(MAX_ROLLBACKS)), (MAX_ROLLBACKS, "stop")]
    assert read_course(run, 2).rollbacks == MAX_ROLLBACKS
    assert committed_steps(run) == [2]
    answers = {name: count for name, count in ready.commits(run).items() if "/answers/" in name}
    assert sorted(answers.values()) == [1] * MAX_ROLLBACKS
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert {line["event"] for line in lines} >= {"alarm", "rollback", "validation"}
    ready.await_no_leases()
