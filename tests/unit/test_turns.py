"""Whose turn it is, on the real broker: round by user and by job, newcomers ahead, a higher priority first."""

from collections import Counter
from typing import Any

import pytest

from lhcq.records.jobs import Job
from tasks.broker.transport import task_and_arguments
from tasks.engine.publish import publish_job
from tasks.jobs.kinds import chunk_unit
from tasks.jobs.store import create_job
from tasks.jobs.turns import HEAD_START, WINDOW, ranges, turns_of
from tasks.stages.fanout import perform_chunk
from tests.specs import job_of


@pytest.fixture
def asked(broker, here) -> Any:
    """Have a job asked for and published."""

    def ask(name: str, *, parts: int, **how: Any) -> Job:
        job = create_job(here, job_of(name=name, parts=parts).model_copy(update={"owner": "ann", **how}))
        publish_job(here, job)
        return job

    return ask


def work(broker: Any, n: int, *, make: Any = lambda *_: None) -> list[str]:
    """As one worker: take this many messages one after the other, and do their units; gives the jobs' names."""
    worked = []
    for _ in range(n):
        message = broker.rpop("cpu.again") or broker.rpop("cpu")
        if message is None:
            break
        task, (name, *index) = task_and_arguments(message)
        assert task == "lhcq.cluster_part"
        perform_chunk("cluster", name, index[0], make)
        worked.append(name)
    return worked


def test_a_queue_holds_few_messages_whatever_is_asked_for(broker, asked) -> None:
    for name in ("one", "two", "three"):
        asked(name, parts=1000)
    assert broker.llen("cpu") == WINDOW
    work(broker, 50)
    assert broker.llen("cpu") == WINDOW


def test_jobs_take_turns(broker, asked) -> None:
    for name in ("one", "two", "three"):
        asked(name, parts=1000)
    work(broker, WINDOW + 3 * HEAD_START)
    assert set(Counter(work(broker, 30)).values()) == {10}


def test_a_small_job_is_done_after_what_waits_already(broker, asked) -> None:
    asked("large", parts=2000)
    work(broker, 500)
    small = asked("small", parts=HEAD_START)
    worked = work(broker, WINDOW + HEAD_START)
    assert worked.count("small") == small.parts
    assert worked.count("large") == WINDOW


def test_who_comes_anew_is_ahead_for_a_while_only(broker, asked) -> None:
    asked("first", parts=2000)
    work(broker, 500)
    asked("second", parts=2000)
    worked = work(broker, 500)
    assert abs(worked.count("first") - worked.count("second")) <= WINDOW + HEAD_START


def test_of_jobs_that_come_at_once_the_first_is_first(broker, asked) -> None:
    names = [f"job-{number:02d}" for number in reversed(range(30))]
    for name in names:
        asked(name, parts=1)
    assert work(broker, 30) == names


def test_users_take_turns_however_many_jobs_they_have(broker, asked) -> None:
    for number in range(10):
        asked(f"anns-{number}", parts=1000)
    asked("bobs", parts=1000, owner="bob")
    work(broker, 100)
    worked = work(broker, 100)
    assert worked.count("bobs") == 50


def test_a_higher_priority_goes_before_all_others_and_a_lower_one_behind(broker, asked) -> None:
    asked("low", parts=20, priority="low")
    work(broker, 2)
    asked("normal", parts=20)
    asked("high", parts=20, priority="high", owner="bob")
    worked = work(broker, 100)
    assert len(worked) == 58
    assert worked == ["low"] * WINDOW + ["high"] * 20 + ["normal"] * 20 + ["low"] * 14


def test_of_a_job_no_more_units_are_under_way_than_it_may_have(broker, asked, here) -> None:
    job = asked("modest", parts=20, max_parallel=2)
    other = asked("other", parts=20)
    (modest,) = turns_of([job])
    assert modest is not None
    assert len(modest.out) == 2
    assert broker.llen("cpu") == WINDOW
    taken = [task_and_arguments(broker.rpop("cpu"))[1] for _ in range(WINDOW)]
    assert [name for name, _ in taken].count("modest") == 2

    def look(*_: Any) -> None:
        (turn,) = turns_of([job])
        assert turn is not None
        assert len(turn.out) <= 2

    for name, index in taken:
        assert perform_chunk("cluster", name, index, look) == "done"
    assert len(work(broker, 100, make=look)) == 40 - WINDOW
    assert [turn and turn.done for turn in turns_of([job, other])] == [20, 20]


def test_publishing_a_million_chunks_is_one_entry(broker, asked) -> None:
    job = asked("vast", parts=1_000_000)
    assert broker.lrange("lhcq:todo:cluster:vast", 0, -1) == [f"{WINDOW}-999999"]
    assert chunk_unit(job, WINDOW) not in turns_of([job])[0].out


@pytest.mark.parametrize(
    ("units", "entries"),
    [
        ([], []),
        ([5], ["5"]),
        ([0, 1, 2, 5, 7, 8], ["0-2", "5", "7-8"]),
        (["lhcq.prepare:made"], ["lhcq.prepare:made"]),
    ],
)
def test_units_are_kept_as_ranges(units, entries) -> None:
    assert ranges(units) == entries
