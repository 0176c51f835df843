"""Attempts at a unit of work, on the real broker: counted, spaced out, given up in the open."""

import errno
import os
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lhcq.errors import BadInput, DiskFull, TransientError
from lhcq.records.failures import failures_of
from lhcq.records.jobs import end_job, outcome_of
from tasks.engine.execute import perform
from tasks.jobs.attempts import (
    MAX_ATTEMPTS,
    announce_trouble,
    backoff_key,
    forget_attempts,
    latest_attempt,
    trouble_of,
)
from tasks.jobs.kinds import chunk_unit
from tasks.jobs.leases import lease
from tasks.jobs.train import segment_unit
from tasks.stages.fanout import perform_chunk, perform_merge
from tests.attempted import count_attempt


def raising(error: BaseException) -> Any:
    def work(*_: Any) -> None:
        raise error

    return work


def never(*_: Any) -> bool:
    return False


def nothing(*_: Any) -> None:
    """Work that goes well."""


def test_attempts_are_counted_by_job_and_unit(broker, new_job) -> None:
    job, other = new_job(name="one"), new_job(name="two")
    assert [count_attempt(job, chunk_unit(job, 0)) for _ in range(3)] == [1, 2, 3]
    assert count_attempt(job, chunk_unit(job, 1)) == 1
    assert count_attempt(other, chunk_unit(other, 0)) == 1
    forget_attempts(job)
    assert count_attempt(job, chunk_unit(job, 0)) == 1
    assert count_attempt(other, chunk_unit(other, 0)) == 2


def test_trouble_is_told_with_a_pause_that_doubles(broker, new_job) -> None:
    job = new_job()
    unit = chunk_unit(job, 0)
    assert trouble_of(job) is None
    pauses = []
    for attempts in (1, 2, 3, 4):
        announce_trouble(job, unit, TransientError("the network | is away"), attempts)
        pauses.append(broker.ttl(backoff_key(unit)))
    assert pauses == sorted(set(pauses))
    assert 1.5 * pauses[2] < pauses[3] <= 16  # in equal steps it would be 4/3 of it
    assert trouble_of(job) == (False, "the network | is away")
    announce_trouble(job, unit, DiskFull("no room"), 1)
    assert trouble_of(job) == (True, "no room")
    forget_attempts(job)
    assert trouble_of(job) is None


def test_an_error_that_may_pass_leaves_the_unit_pending_until_attempts_run_out(broker, here, new_job) -> None:
    job = new_job("train", "run", checkpoint_steps=[10])
    unit = segment_unit("run")
    work = raising(OSError(errno.EIO, "the disk hiccuped"))
    statuses = [perform(unit, work, done=never) for _ in range(MAX_ATTEMPTS)]
    assert statuses == ["again"] * (MAX_ATTEMPTS - 1) + ["failed"]
    (failure,) = failures_of(here, job)
    assert failure.attempts == MAX_ATTEMPTS
    assert not failure.permanent
    assert "hiccuped" in failure.traceback
    assert outcome_of(here, job).state == "incomplete"
    assert perform(unit, nothing, done=never) == "closed"


def test_work_that_finds_its_lease_lost_stops_and_counts_as_no_attempt(broker, here, new_job) -> None:
    job = new_job("train", "run", checkpoint_steps=[10])
    unit = segment_unit("run")

    def work(place: Any, job: Any, unit: Any, held: Any) -> None:
        held._lost.set()
        held.check()

    for _ in range(2 * MAX_ATTEMPTS):
        assert perform(unit, work, done=never) == "leased"
    assert failures_of(here, job) == []
    assert count_attempt(job, unit) == 1


def test_the_latest_attempt_says_who_tried_and_how_it_went(broker, here, new_job, monkeypatch) -> None:
    job = new_job("train", "run", checkpoint_steps=[10])
    unit = segment_unit("run")
    assert latest_attempt(job, unit) is None
    perform(unit, raising(OSError("hiccup")), done=never)
    attempt = latest_attempt(job, unit)
    assert (attempt.count, attempt.by.pid, attempt.message) == (1, os.getpid(), "OSError: hiccup")
    assert "raise error" in attempt.traceback
    count_attempt(job, unit)
    assert latest_attempt(job, unit).traceback is None  # it has only begun
    perform(unit, nothing, done=never)
    assert latest_attempt(job, unit) is None


def test_wrong_input_is_tried_once(broker, here, new_job) -> None:
    job = new_job("train", "run", checkpoint_steps=[10])
    assert perform(segment_unit("run"), raising(BadInput("row 7 is wrong")), done=never) == "failed"
    outcome = outcome_of(here, job)
    assert (outcome.state, outcome.message) == ("failed", "row 7 is wrong")


def test_a_unit_that_kills_its_worker_each_time_is_given_up(broker, here, new_job) -> None:
    job = new_job("train", "run", checkpoint_steps=[10])
    unit = segment_unit("run")
    for _ in range(MAX_ATTEMPTS):  # each began, and none lived to tell
        count_attempt(job, unit)
    assert perform(unit, nothing, done=never) == "failed"
    outcome = outcome_of(here, job)
    assert outcome.state == "incomplete"
    assert f"died {MAX_ATTEMPTS} times" in outcome.message


def test_a_run_may_have_more_segments_than_a_segment_has_attempts(broker, here, new_job) -> None:
    job = new_job("train", "run", checkpoint_steps=[10])
    unit = segment_unit("run")
    for _ in range(3 * MAX_ATTEMPTS):
        assert perform(unit, nothing, done=never) == "done"
    for _ in range(MAX_ATTEMPTS - 1):
        assert perform(unit, raising(OSError("hiccup")), done=never) == "again"
    assert outcome_of(here, job) is None


def test_what_stands_is_not_made_again(broker, here, new_job) -> None:
    new_job("train", "run", checkpoint_steps=[10])
    work = raising(AssertionError("worked"))
    assert perform(segment_unit("run"), work, done=lambda *_: True) == "already"


def test_a_duplicate_returns_at_once_while_the_first_is_at_work(broker, here, new_job) -> None:
    job = new_job("train", "run", checkpoint_steps=[10])
    unit = segment_unit("run")
    with lease(broker, unit.key):
        assert perform(unit, raising(AssertionError("worked")), done=never) == "leased"
    assert count_attempt(job, unit) == 1


def test_a_broker_that_is_away_raises_nothing(broker, here, new_job, monkeypatch) -> None:
    job = new_job("train", "run", checkpoint_steps=[10])
    away = redis.Redis(unix_socket_path=str(here.root / "no.sock"), retry=Retry(NoBackoff(), 0))
    for module in ("engine.execute", "jobs.attempts"):
        monkeypatch.setattr(f"tasks.{module}.redis_client", lambda: away)
    assert perform(segment_unit("run"), raising(AssertionError("worked")), done=never) == "again"
    assert failures_of(here, job) == []


def test_a_broker_that_leaves_during_the_last_attempt_does_not_undo_it(
    broker, here, new_job, monkeypatch
) -> None:
    job = new_job("train", "run", checkpoint_steps=[10])
    unit = segment_unit("run")
    for _ in range(MAX_ATTEMPTS - 1):
        count_attempt(job, unit)

    def leave(*_: Any) -> None:
        raise redis.ConnectionError("the broker left")

    def work(*_: Any) -> None:
        monkeypatch.setattr("tasks.jobs.leases.give_back_lease", leave)

    assert perform(unit, work, done=never) == "done"
    assert failures_of(here, job) == []


def test_a_part_that_is_given_up_does_not_end_its_job_before_the_merge_does(broker, here, new_job) -> None:
    job = new_job(parts=2)

    def make(place: Any, job: Any, index: int, path: Any, held: Any) -> None:
        if index == 1:
            raise BadInput("row 9 is wrong")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def merge(*_: Any) -> str:
        raise AssertionError("merged without all parts")

    assert perform_chunk("cluster", "made", 1, make) == "failed"
    assert outcome_of(here, job) is None
    assert perform_merge("cluster", "made", merge) == "waiting"
    assert perform_chunk("cluster", "made", 0, make) == "done"
    assert perform_merge("cluster", "made", merge) == "done"
    outcome = outcome_of(here, job)
    assert (outcome.state, outcome.message) == ("failed", "row 9 is wrong")


def test_a_merge_that_runs_twice_ends_the_job_once(broker, here, new_job) -> None:
    job = new_job(parts=1)

    def make(place: Any, job: Any, index: int, path: Any, held: Any) -> None:
        path.parent.mkdir(parents=True)
        path.touch()

    assert perform_chunk("cluster", "made", 0, make) == "done"
    merged = []

    def merge(place: Any, job: Any, parts: dict[int, Any], lost: dict[int, Any]) -> str:
        assert lost == {}
        merged.extend(parts)
        return "merged"

    assert [perform_merge("cluster", "made", merge) for _ in range(2)] == ["done", "waiting"]
    assert len(merged) == 1
    assert outcome_of(here, job).state == "done"


@pytest.mark.parametrize("ended", ["done", "failed", "incomplete", "cancelled"])
def test_nothing_is_done_for_a_job_that_has_ended(broker, here, new_job, ended: Any) -> None:
    end_job(here, new_job(), ended, "it ended")
    assert perform_chunk("cluster", "made", 0, raising(AssertionError("worked"))) == "closed"


def test_a_late_message_of_a_job_that_was_removed_raises_nothing(broker, here) -> None:
    assert perform_chunk("cluster", "gone", 0, raising(AssertionError("worked"))) == "closed"
    assert perform_merge("cluster", "gone", raising(AssertionError("merged"))) == "closed"
