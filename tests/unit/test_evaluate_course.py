"""Alarms, what was answered to them, and how a run goes on: read from records, the same for whoever reads them."""

import numpy as np
import pytest

from lhcq.config import TrainConfig
from lhcq.errors import Diverged
from lhcq.evaluate.checkpoint_review import judge_run
from lhcq.evaluate.retention import plan_retention, remove_checkpoints
from lhcq.evaluate.validation import write_validation
from lhcq.records.commits import identity_of_run
from lhcq.records.job_control import is_paused, set_wish, wish_of
from lhcq.records.jobs import Job, load_job
from lhcq.records.run_state import (
    MAX_ROLLBACKS,
    RATE_FACTOR,
    Alarm,
    alarms_of,
    best_step,
    choose_act,
    committed_steps,
    go_back,
    go_on,
    open_pause,
    read_course,
    read_judgement,
    write_alarm,
    write_answer,
)
from lhcq.records.tags import tag_step
from lhcq.report.collect import collect_run
from lhcq.storage import MANIFEST, write_json
from tasks.jobs.planner import pending_units
from tasks.jobs.train import segment_unit, validate_unit
from tasks.jobs.train import test_unit as final_unit
from tasks.stages.alarms import SegmentWatch, begin_segment

LABELS = np.tile([0, 1], 40)
GOOD = np.where(LABELS == 1, 0.9, 0.1)
GOOD[:12] = 1 - GOOD[:12]
BETTER = np.where(LABELS == 1, 0.95, 0.05)
BETTER[:4] = 1 - BETTER[:4]
CONSTANT = np.full(LABELS.size, 0.7)


@pytest.fixture
def start(place, new_job):
    """Starts a run of checkpoints 3, 6, 9 and 12 under some policy."""

    def begin(**config) -> Job:
        return new_job("train", "run", parts=0, checkpoint_steps=[3, 6, 9, 12], config=config, split="half")

    return begin


def commit(place, *steps):
    for step in steps:
        place.checkpoint("run", step).mkdir(parents=True, exist_ok=True)
        of = identity_of_run(place.run("run"))
        training = {"loss": 0.4, "grad_norm": 1.0}
        write_json(place.checkpoint("run", step) / MANIFEST, {"of": of, "training": training})


def validate(place, step, scores=GOOD, *, train_loss=0.4):
    commit(place, step)
    write_validation(
        place.validation("run", step),
        step=step,
        rows=np.arange(LABELS.size),
        labels=LABELS,
        p_signal=scores,
        answers=None,
        of=identity_of_run(place.run("run")),
        training={"loss": train_loss, "grad_norm": 1.0},
    )


def judge(place, job, told=None):
    told = [] if told is None else told
    config = job.spec.config
    judge_run(place.run("run"), config, last_step=12, on_alarm=told.append)
    return told


def alarm(kind="divergence", act="rollback", *, after=3, at_round=0):
    return Alarm(kind=kind, step=after + 1, after=after, round=at_round, message="seen", act=act)


def test_a_run_without_records_goes_on_from_its_newest_checkpoint(place, start) -> None:
    start()
    course = read_course(place.run("run"), 6)
    assert (course.origin, course.rate_factor, course.rollbacks, course.stop) == (6, 1.0, 0, "")
    assert course.demand is None


def test_going_back_is_one_record_and_the_next_checkpoint_goes_on_from_itself(place, start) -> None:
    start()
    run = place.run("run")
    validate(place, 3, BETTER)
    validate(place, 6)
    write_alarm(run, alarm(after=6))
    first = begin_segment(run)
    assert (first.origin, first.rate_factor, first.rollbacks, first.demand) == (3, RATE_FACTOR, 1, None)
    assert begin_segment(run) == first  # a second delivery, or the same after a crash
    later = read_course(run, 9)
    assert (later.origin, later.rate_factor, later.rollbacks) == (9, RATE_FACTOR, 1)


def test_an_alarm_after_going_back_is_a_new_one_and_the_rate_falls_again(place, start) -> None:
    start()
    run = place.run("run")
    validate(place, 3)
    write_alarm(run, alarm())
    begin_segment(run)
    write_alarm(run, alarm())  # a late duplicate of the first
    assert read_course(run, 3).demand is None
    write_alarm(run, alarm(at_round=1))
    second = begin_segment(run)
    assert second.rate_factor == pytest.approx(RATE_FACTOR**2)
    assert [one.round for one in alarms_of(run)] == [0, 1]


def test_the_first_answer_stands(place, start) -> None:
    start()
    run = place.run("run")
    write_alarm(run, alarm(act="pause"))
    course = read_course(run, 3)
    write_answer(run, course, go_on(course))
    write_answer(run, course, go_back(course, 3))
    assert read_course(run, 3).resumed
    assert read_course(run, 3).rate_factor == 1.0


def test_policy_decides_unless_there_is_nothing_to_go_back_to(place, start) -> None:
    start()
    run = place.run("run")
    fresh, later = read_course(run, 0), read_course(run, 3)
    config = TrainConfig(on_collapse="pause", on_overfitting="stop")
    assert [choose_act(kind, config, later) for kind in ("nan", "collapse", "overfitting", "unknown")] == [
        "rollback",
        "pause",
        "stop",
        "tell",
    ]
    assert choose_act("nan", config, fresh) == "tell"
    often = later.model_copy(update={"rollbacks": MAX_ROLLBACKS})
    assert choose_act("divergence", config, often) == "stop"


def test_a_pause_holds_the_run_until_a_person_resumes_it(place, start) -> None:
    job = start(on_collapse="pause")
    run = place.run("run")
    validate(place, 3)
    validate(place, 6, CONSTANT)
    assert [one.kind for one in judge(place, job)] == ["collapse"]
    assert wish_of(place, load_job(place, "train", "run")) == "pause"
    assert open_pause(run).step == 6
    assert pending_units(place, job) == []
    course = read_course(run, 6)
    assert course.paused
    write_answer(run, course, go_on(course))
    assert wish_of(place, load_job(place, "train", "run")) == "run"
    assert pending_units(place, job) == [segment_unit("run")]


def state_in_report(place):
    return collect_run(place, "run").state


def test_where_training_ends_a_pause_at_the_same_step_holds_nothing(place, start) -> None:
    job = start(patience=2, on_collapse="pause")
    validate(place, 3, BETTER)
    validate(place, 6)
    validate(place, 9, CONSTANT)
    assert [one.act for one in judge(place, job)] == ["pause"]
    assert pending_units(place, job) == [final_unit("run")]
    assert wish_of(place, load_job(place, "train", "run")) == "run"
    assert not is_paused(place, load_job(place, "train", "run"))
    assert state_in_report(place) != "paused"


def test_of_two_alarms_at_one_step_the_one_that_ends_training_decides(place, start) -> None:
    job = start()
    validate(place, 3)
    for kind, act in (("unknown", "pause"), ("collapse", "stop")):
        write_alarm(place.run("run"), alarm(kind, act))
    assert read_course(place.run("run"), 3).stop == "seen"
    assert pending_units(place, job) == [final_unit("run")]
    assert wish_of(place, load_job(place, "train", "run")) == "run"
    assert not is_paused(place, load_job(place, "train", "run"))
    assert state_in_report(place) != "paused"


def test_of_two_alarms_at_one_step_a_pause_goes_before_going_back(place, start) -> None:
    job = start()
    validate(place, 3)
    for kind, act in (("divergence", "rollback"), ("unknown", "pause")):
        write_alarm(place.run("run"), alarm(kind, act))
    assert begin_segment(place.run("run")).paused
    assert pending_units(place, job) == []
    assert is_paused(place, load_job(place, "train", "run"))
    assert state_in_report(place) == "paused"


def test_a_wish_to_pause_holds_training_and_not_the_test_after_its_end(place, start) -> None:
    job = start()
    validate(place, 3)
    set_wish(place, load_job(place, "train", "run"), "pause")
    assert is_paused(place, load_job(place, "train", "run"))
    assert state_in_report(place) == "paused"
    validate(place, 12)
    assert pending_units(place, job) == [final_unit("run")]
    assert not is_paused(place, load_job(place, "train", "run"))
    assert state_in_report(place) != "paused"


def test_an_alarm_that_training_has_gone_past_holds_nothing(place, start) -> None:
    job = start()
    validate(place, 3)
    write_alarm(place.run("run"), alarm(act="pause"))
    validate(place, 6)  # by a trainer that was late
    assert open_pause(place.run("run")) is None
    assert pending_units(place, job) == [segment_unit("run")]


def test_an_alarm_that_ends_training_leaves_the_test(place, start) -> None:
    job = start(on_collapse="stop")
    validate(place, 3)
    validate(place, 6, CONSTANT)
    judge(place, job)
    assert pending_units(place, job) == [final_unit("run")]
    assert "answers are signal" in read_course(place.run("run"), 6).stop


def test_a_segment_waits_for_a_validation_that_may_decide_and_for_no_other(place, start) -> None:
    job = start()
    commit(place, 3)
    assert pending_units(place, job) == [validate_unit("run", 3), segment_unit("run")]
    write_alarm(place.run("run"), alarm())  # which checkpoint is the best is known when all are validated
    assert pending_units(place, job) == [validate_unit("run", 3)]


@pytest.mark.parametrize("config", [{"patience": 2}, {"on_overfitting": "rollback"}])
def test_policies_on_validations_make_segments_wait(place, start, config) -> None:
    job = start(**config)
    commit(place, 3)
    assert pending_units(place, job) == [validate_unit("run", 3)]


def test_training_ends_early_when_patience_runs_out(place, start) -> None:
    job = start(patience=2, select="nll")
    validate(place, 3, BETTER)
    validate(place, 6)
    judge(place, job)
    assert pending_units(place, job) == [segment_unit("run")]
    validate(place, 9)
    judge(place, job)
    assert read_course(place.run("run"), 9).stop == "no better checkpoint by validation NLL in 2 after step 3"
    assert pending_units(place, job) == [final_unit("run")]


def test_the_selection_is_by_the_figure_that_the_run_names(place, start) -> None:
    start(select="nll")
    sure = np.where(LABELS == 1, 1 - 1e-6, 1e-6)
    sure[:3] = 1 - sure[:3]
    validate(place, 3, sure)  # the higher AUC, the worse likelihood
    validate(place, 6, np.where(BETTER > 0.5, 0.8, 0.2))
    assert best_step(place.run("run")) == 6
    record = place.run("run") / "job.json"
    record.write_text(record.read_text().replace('"nll"', '"auc"'))
    assert best_step(place.run("run")) == 3


def test_a_judgement_waits_for_the_validations_before_it(place, start) -> None:
    job = start()
    commit(place, 3)
    validate(place, 6, CONSTANT)
    assert judge(place, job) == []
    validate(place, 3)
    assert [one.step for one in judge(place, job)] == [6]
    found = read_judgement(place.run("run"), 6)
    assert (found.best, found.previous_best) == (3, 3)
    assert (found.only_this_right, found.only_previous_right) == (6, 34)
    assert found.p_value < 1e-3
    assert judge(place, job) == []  # judged once


def test_shuffled_labels_learned_by_heart_are_overfitting(place, start) -> None:
    job = start(on_overfitting="rollback")
    mild = np.where(np.arange(LABELS.size) % 3 == 0, 0.4, 0.6)
    validate(place, 3, mild, train_loss=0.69)
    validate(place, 6, np.where(mild > 0.5, 0.95, 0.05), train_loss=0.2)
    assert [(one.kind, one.act) for one in judge(place, job)] == [("overfitting", "rollback")]
    assert begin_segment(place.run("run")).origin == 3


def test_after_the_last_step_an_alarm_is_only_told(place, start) -> None:
    job = start(on_collapse="pause")
    validate(place, 3)
    validate(place, 12, CONSTANT)
    assert [one.act for one in judge(place, job)] == ["tell"]
    assert wish_of(place, load_job(place, "train", "run")) == "run"


def segment_watch(place, course, told, **config):
    commit(place, 3)
    return SegmentWatch(place.run("run"), TrainConfig(**config), course, told)


def test_numbers_that_are_none_are_an_alarm_and_fail_only_without_a_checkpoint(place, start) -> None:
    start()
    run = place.run("run")
    told = []
    watch = segment_watch(place, read_course(run, 3), told)
    watch.see(4, 0.4, 1.0)
    with watch.refused_numbers():
        raise Diverged(
            "Training diverged at step 5: loss nan, gradient norm 2.5. The last good one is step 3. Advice."
        )
    assert watch.failure is None
    assert [(one.kind, one.step, one.act) for one in told] == [("nan", 5, "rollback")]
    assert told[0].message == "Training diverged at step 5: loss nan, gradient norm 2.5"
    assert alarms_of(run) == told
    first = segment_watch(place, read_course(run, 0), told)
    with first.refused_numbers():
        raise Diverged("Training diverged at step 1: loss nan. Advice.")
    assert isinstance(first.failure, Diverged)


def test_a_divergence_ends_its_segment_once(place, start) -> None:
    start()
    told = []
    watch = segment_watch(place, read_course(place.run("run"), 3), told)
    for step in range(4, 30):
        watch.see(step, 8.0, 1.0)
    assert watch.ends_segment
    assert [one.kind for one in told] == ["divergence"]
    journal = (place.run("run") / "events.jsonl").read_text().splitlines()
    assert len(journal) == 1
    assert '"event": "alarm"' in journal[0]


def test_what_may_be_removed() -> None:
    kept = {"validated": [1, 2, 3, 4, 5], "best": 2, "tagged": [1], "in_use": []}
    assert plan_retention([1, 2, 3, 4, 5, 6], **kept, keep=1) == [3, 4, 5]
    assert plan_retention([1, 2, 3, 4, 5, 6], **kept, keep=3) == [3]
    assert plan_retention([1, 2, 3, 4, 5, 6], **{**kept, "validated": [4]}, keep=1) == [4]
    assert plan_retention([1, 2, 3, 4, 5, 6], **{**kept, "in_use": [3, 5]}, keep=1) == [4]
    assert plan_retention([], validated=[], best=None, tagged=[], in_use=[], keep=1) == []


def test_a_removed_checkpoint_is_no_work_again(place, start) -> None:
    job = start(keep=1)
    for step, scores in ((3, GOOD), (6, BETTER), (9, GOOD)):
        validate(place, step, scores)
    commit(place, 12)
    tag_step(place.run("run"), 9, "v0.1")
    left = place.run("run") / "checkpoints" / ".00000001.removed.tmp"
    left.mkdir()
    assert remove_checkpoints(place.run("run"), keep=1, in_use=[]) == [3]
    assert committed_steps(place.run("run")) == [6, 9, 12]
    assert sorted(path.name for path in left.parent.iterdir()) == ["00000006", "00000009", "00000012"]
    assert pending_units(place, job) == [validate_unit("run", 12)]
    assert best_step(place.run("run")) == 6
