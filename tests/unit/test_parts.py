"""The tasks of a fan-out: what a message does that comes late, and how a merge ends a job that lacks parts."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from lhcq.errors import RowsMissing
from lhcq.records.failures import failures_of
from lhcq.records.jobs import Job, list_jobs, outcome_of
from lhcq.workspace import Workspace
from tasks.broker.connection import redis_client
from tasks.jobs.kinds import chunk_path, chunk_unit, finished_chunks, merge_unit
from tasks.jobs.leases import is_leased
from tasks.jobs.leftovers import find_leftovers
from tasks.stages.fanout import perform_chunk, perform_merge


@pytest.fixture
def job(here: Workspace, broker: Any, new_job: Any) -> Job:
    """A clustering into three parts that this process works on."""
    made: Job = new_job()
    return made


def write(_: Workspace, job: Job, index: int, path: Path, *__: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{job.name} {index}")


def give_up(place: Workspace, job: Job, index: int, *, permanent: bool) -> None:
    """Have part `index` fail as often as it may."""

    def fail(*_: Any) -> None:
        raise RowsMissing("rows are wrong") if permanent else ValueError("it broke")

    while not any(failure.unit == chunk_unit(job, index).key for failure in failures_of(place, job)):
        perform_chunk("cluster", job.name, index, fail)


def test_a_message_of_an_earlier_job_with_more_parts_does_nothing(place: Workspace, job: Job) -> None:
    assert perform_chunk("cluster", job.name, 3, write) == "closed"
    assert perform_chunk("cluster", "never", 0, write) == "closed"
    assert finished_chunks(place, job) == set()
    assert failures_of(place, job) == []
    assert [perform_chunk("cluster", job.name, 2, write) for _ in range(2)] == ["done", "already"]
    assert finished_chunks(place, job) == {2}


def test_a_merge_waits_for_parts_that_are_still_to_come(place: Workspace, job: Job) -> None:
    perform_chunk("cluster", job.name, 0, write)
    give_up(place, job, 1, permanent=False)
    assert perform_merge("cluster", job.name, lambda *_: pytest.fail("merged")) == "waiting"
    assert outcome_of(place, job) is None


def test_a_merge_is_told_what_was_given_up_and_may_do_without(place: Workspace, job: Job) -> None:
    perform_chunk("cluster", job.name, 0, write)
    perform_chunk("cluster", job.name, 2, write)
    give_up(place, job, 1, permanent=False)
    told: list[Any] = []

    def merge(_: Workspace, job: Job, parts: Any, lost: Any) -> str:
        told.append((parts, {index: failure.message for index, failure in lost.items()}))
        return "two thirds"

    assert perform_merge("cluster", job.name, merge) == "done"
    assert told == [({index: chunk_path(place, job, index) for index in (0, 2)}, {1: "ValueError: it broke"})]
    outcome = outcome_of(place, job)
    assert outcome
    assert (outcome.state, outcome.message) == ("done", "two thirds")
    assert finished_chunks(place, job) == set()


def test_nobody_waits_while_the_chunks_of_a_job_that_is_done_are_removed(
    place: Workspace, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of files take a disk half a minute, in which the name may be removed, and mean another job."""
    for index in range(3):
        perform_chunk("cluster", job.name, index, write)
    seen: list[tuple[bool, set[int]]] = []
    remove = shutil.rmtree

    def watch(path: Path, **how: Any) -> None:
        seen.append((is_leased(redis_client(), merge_unit(job).key), finished_chunks(place, job)))
        remove(path, **how)

    monkeypatch.setattr(shutil, "rmtree", watch)
    assert perform_merge("cluster", job.name, lambda *_: "all") == "done"
    assert seen == [(False, set())]
    assert find_leftovers(place, log_days=30) == []


def test_what_a_worker_that_was_killed_left_of_chunks_goes_with_the_next_merge(
    place: Workspace, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(3):
        perform_chunk("cluster", job.name, index, write)

    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die)
        with pytest.raises(Killed):
            perform_merge("cluster", job.name, lambda *_: "all")
    outcome = outcome_of(place, job)
    assert outcome
    assert outcome.state == "done"
    (left,) = find_leftovers(place, log_days=30)
    assert left.why == "cut off"
    assert [found.name for found in list_jobs(place)] == [job.name]
    perform_merge("cluster", job.name, lambda *_: pytest.fail("merged"))
    assert find_leftovers(place, log_days=30) == []


def test_a_merge_that_cannot_do_without_ends_the_job_incomplete_and_keeps_the_parts(
    place: Workspace, job: Job
) -> None:
    for index in range(3):
        perform_chunk("cluster", job.name, index, write)

    def refuse(*_: Any) -> str:
        raise RowsMissing("7 rows cannot be used.")

    assert perform_merge("cluster", job.name, refuse) == "done"
    outcome = outcome_of(place, job)
    assert outcome
    assert (outcome.state, outcome.message) == ("incomplete", "7 rows cannot be used.")
    assert finished_chunks(place, job) == {0, 1, 2}
    assert perform_merge("cluster", job.name, refuse) == "closed"


def test_wrong_input_in_one_part_fails_the_job_without_a_merge(place: Workspace, job: Job) -> None:
    perform_chunk("cluster", job.name, 0, write)
    give_up(place, job, 1, permanent=True)
    give_up(place, job, 2, permanent=False)
    assert perform_merge("cluster", job.name, lambda *_: pytest.fail("merged")) == "done"
    outcome = outcome_of(place, job)
    assert outcome
    assert (outcome.state, outcome.message) == ("failed", "rows are wrong (2 units failed alike)")
    assert finished_chunks(place, job) == {0}
