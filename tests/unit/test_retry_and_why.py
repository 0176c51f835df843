"""What was given up can be asked about and tried again, it alone."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lhcq.cli import retry, status, why
from lhcq.errors import BadInput, DamagedChunk, NotThere
from lhcq.records.failures import failures_of, note_stop
from lhcq.records.job_control import set_wish
from lhcq.records.jobs import end_job, outcome_of
from tasks.app import connect
from tasks.engine.publish import publish_job, publish_rest, publish_unit, retry_units
from tasks.jobs.attempts import MAX_ATTEMPTS, announce_trouble, latest_attempt
from tasks.jobs.kinds import KINDS, chunk_path, chunk_unit, merge_unit
from tasks.jobs.leases import lease
from tasks.jobs.planner import pending_units
from tasks.jobs.store import create_job
from tasks.jobs.train import segment_unit
from tasks.jobs.turns import turns_of
from tasks.observe.unit_status import standing_of
from tasks.stages.fanout import perform_chunk, perform_merge
from tests.attempted import count_attempt
from tests.specs import job_of

QUEUES = {"cpu", "gpu", "validate"}


def broken(*_: Any) -> None:
    raise OSError("the disk hiccuped")


def touch(place: Any, job: Any, index: int, path: Any, held: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def merged(place: Any, job: Any, parts: dict[int, Any], lost: dict[int, Any]) -> str:
    if lost:
        raise BadInput("too many are lost")
    return f"{len(parts)} merged"


@pytest.fixture
def incomplete(broker, here, new_job) -> Any:
    """A clustering of four parts, of which 1 and 3 were given up."""
    from tasks.jobs.store import end_with_failures

    job = new_job(parts=4)
    for index in (0, 2):
        assert perform_chunk("cluster", "made", index, touch) == "done"
    for index in (1, 3):
        for _ in range(MAX_ATTEMPTS):
            perform_chunk("cluster", "made", index, broken)
    end_with_failures(here, job, failures_of(here, job))
    broker.flushall()
    return job


def queued(broker: Any) -> list[str]:
    heads = [json.loads(message)["headers"] for message in broker.lrange("cpu", 0, -1)]
    return [f"{head['task']}{head['argsrepr']}" for head in reversed(heads)]


def test_only_what_was_given_up_is_published_again_and_the_job_ends(broker, here, incomplete) -> None:
    assert outcome_of(here, incomplete).state == "incomplete"
    retry_units(here, incomplete, [chunk_unit(incomplete, index) for index in (1, 3)])
    assert queued(broker) == ["lhcq.cluster_part('made', 1)", "lhcq.cluster_part('made', 3)"]
    assert outcome_of(here, incomplete) is None
    for index in (1, 3):
        assert perform_chunk("cluster", "made", index, touch) == "done"
    assert perform_merge("cluster", "made", merged) == "done"
    assert outcome_of(here, incomplete).message == "4 merged"


def test_one_part_can_be_tried_while_another_stays_given_up(broker, here, incomplete) -> None:
    retry_units(here, incomplete, [chunk_unit(incomplete, 3)])
    assert queued(broker) == ["lhcq.cluster_part('made', 3)"]
    assert [failure.unit for failure in failures_of(here, incomplete)] == [chunk_unit(incomplete, 1).key]
    assert pending_units(here, incomplete) == [chunk_unit(incomplete, 3)]


def test_a_part_that_is_tried_again_has_all_its_attempts(broker, here, incomplete) -> None:
    retry_units(here, incomplete, [chunk_unit(incomplete, 1)])
    statuses = [perform_chunk("cluster", "made", 1, broken) for _ in range(MAX_ATTEMPTS)]
    assert statuses == ["again"] * (MAX_ATTEMPTS - 1) + ["failed"]


def test_a_segment_that_was_given_up_is_tried_again(broker, here, new_job) -> None:
    from tasks.engine.execute import perform

    job = new_job("train", "run", parts=0, checkpoint_steps=[3])
    for _ in range(MAX_ATTEMPTS):
        perform(segment_unit("run"), broken, done=lambda *_: False)
    assert outcome_of(here, job).state == "incomplete"
    retry_units(here, job, [segment_unit("run")])
    assert broker.llen("gpu") == 1
    assert latest_attempt(job, segment_unit("run")) is None
    assert outcome_of(here, job) is None


def refused(command: Any, *words: str) -> str:
    result = CliRunner().invoke(command, words)
    assert isinstance(result.exception, BadInput | NotThere), result.output
    return str(result.exception)


def test_what_cannot_be_tried_again_is_refused(broker, here, incomplete, new_job) -> None:
    assert "no job is called 'other'" in refused(retry.command, "other")
    assert "no chunk 4" in refused(retry.command, "made", "--part", "4")
    assert "chunk 0 of cluster made was not given up" in refused(retry.command, "made", "--part", "0")
    fresh = new_job(name="fresh")
    assert "nothing of cluster fresh was given up" in refused(retry.command, "fresh")
    end_job(here, fresh, "done", "merged")
    assert "cluster fresh is done" in refused(retry.command, "fresh")
    new_job("prepare", "made", parts=0)
    assert "Choose by --kind cluster|prepare" in refused(retry.command, "made")


def test_of_several_jobs_of_a_name_all_are_told_and_how_to_choose(broker, here, incomplete, new_job) -> None:
    new_job("prepare", "made", parts=0)
    done = CliRunner().invoke(why.command, ["made"], catch_exceptions=False, standalone_mode=False)
    lines = done.output.splitlines()
    assert lines[0].startswith("prepare made: open")  # the newest
    assert any(line.startswith("cluster made: incomplete") for line in lines)
    assert lines[-1] == "(2 jobs are called made: prepare, cluster. --kind prepare chooses one.)"
    told = json.loads(
        CliRunner()
        .invoke(why.command, ["made", "--json"], catch_exceptions=False, standalone_mode=False)
        .output
    )
    assert told["job"] == "prepare made"
    assert [job["job"] for job in told["jobs"]] == ["prepare made", "cluster made"]


def test_a_part_tells_what_it_waits_for(broker, here, new_job, monkeypatch) -> None:
    job = new_job(parts=2)
    unit, other = chunk_unit(job, 0), chunk_unit(job, 1)
    assert standing_of(here, job, unit, None).state == "stopped"
    with monkeypatch.context() as configured:
        configured.setenv("LHCQ_BROKER_URL", "redis://elsewhere")
        assert standing_of(here, job, unit, None).waits_for == "a broker; none answers"
    assert standing_of(here, job, unit, set()).state == "no worker"
    assert standing_of(here, job, unit, QUEUES).state == "lost"
    publish_unit(other)
    assert standing_of(here, job, unit, QUEUES).waits_for == "its turn in queue cpu, where 1 messages wait"
    large = new_job(name="large", parts=100)
    publish_job(here, large)
    assert (
        standing_of(here, large, chunk_unit(large, 50), QUEUES).waits_for
        == "its turn among all jobs; it has not been put into queue cpu"
    )
    count_attempt(job, unit)
    announce_trouble(job, unit, OSError("hiccup"), 3)
    standing = standing_of(here, job, unit, QUEUES)
    assert (standing.state, standing.attempts, standing.message) == ("backoff", 1, "OSError: hiccup")
    assert "before attempt 2 of 5" in standing.waits_for
    with lease(broker, unit.key):
        standing = standing_of(here, job, unit, QUEUES)
        assert standing.state == "at work"
        assert standing.holder.pid == os.getpid()
        assert 0 < standing.lease_expires_in <= 10
        assert standing.holder.since <= time.time()
    assert standing_of(here, job, merge_unit(job), QUEUES).state == "not yet"
    assert perform_chunk("cluster", "made", 0, touch) == "done"
    assert standing_of(here, job, unit, QUEUES).state == "finished"


@pytest.mark.parametrize("listened", [None, set(), QUEUES])
def test_every_part_of_a_job_that_was_merged_is_finished(broker, here, new_job, listened) -> None:
    job = new_job(parts=2)
    for index in range(2):
        assert perform_chunk("cluster", "made", index, touch) == "done"
    assert perform_merge("cluster", "made", merged) == "done"
    for unit in (chunk_unit(job, 0), chunk_unit(job, 1), merge_unit(job)):
        assert standing_of(here, job, unit, listened).state == "finished"


def test_where_nobody_works_why_tells_what_ended_it_and_the_command_that_goes_on(
    here, new_job, monkeypatch
) -> None:
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)
    job = new_job()

    def told() -> str:
        return str(CliRunner().invoke(why.command, ["made"], catch_exceptions=False).output)

    assert "its command is gone without a word" in told()
    note_stop(here, job, "no space left on the device.")
    assert "no space left on the device. `lhcq resume made` goes on." in told()
    assert "lhcq.cluster_part:made:0: stopped" in told()
    assert "waits for a broker" not in told()
    monkeypatch.setattr("lhcq.cli.why.is_full", lambda _: True)
    assert "There is no space left on the device now. `lhcq resume made`" in told()
    create_job(here, job)  # somebody asks for it again
    assert "without a word" in told()
    set_wish(here, job, "pause")
    assert told() == "cluster made: paused. `lhcq resume made` goes on.\n"


def test_a_damaged_chunk_is_made_again_it_alone(broker, here, new_job) -> None:
    job = new_job(parts=3)
    for index in range(3):
        assert perform_chunk("cluster", "made", index, touch) == "done"

    def merge(place: Any, job: Any, parts: dict[int, Any], lost: Any) -> str:
        if parts[1].read_text() != "whole":
            raise DamagedChunk.at(parts[1], "damaged")
        return merged(place, job, parts, lost)

    assert perform_merge("cluster", "made", merge) == "again"
    assert outcome_of(here, job) is None
    assert pending_units(here, job) == [chunk_unit(job, 1)]
    assert perform_merge("cluster", "made", merge) == "waiting"

    def make(place: Any, job: Any, index: int, path: Any, held: Any) -> None:
        path.write_text("whole")

    assert perform_chunk("cluster", "made", 1, make) == "done"
    assert perform_merge("cluster", "made", merge) == "done"
    assert outcome_of(here, job).message == "3 merged"


def test_a_damaged_chunk_of_the_round_before_is_made_again_before_what_reads_it(
    broker, here, new_job, monkeypatch
) -> None:
    monkeypatch.setitem(KINDS, "cluster", replace(KINDS["cluster"], rounds=lambda _: (2, 2)))
    job = new_job(parts=4)
    publish_job(here, job)
    for index in range(2):
        assert perform_chunk("cluster", "made", index, touch) == "done"
    publish_rest(here, job)  # as the merge does that finds chunks left
    (turn,) = turns_of([job])
    assert {unit.number for unit in turn.out} == {2, 3}
    broker.delete("cpu")  # both are at work

    def read(place: Any, job: Any, index: int, path: Path, held: Any) -> None:
        first = chunk_path(place, job, 0)
        if first.read_text() != "whole":
            raise DamagedChunk.at(first, "damaged")
        path.touch()

    assert perform_chunk("cluster", "made", 2, read) == "again"
    assert not chunk_path(here, job, 0).exists()
    (turn,) = turns_of([job])
    assert [unit.number for unit in turn.out] == [0], "the round before, in what is published"
    assert perform_chunk("cluster", "made", 3, read) == "waiting", "nor is it tried in vain"
    assert latest_attempt(job, chunk_unit(job, 3)) is None
    assert pending_units(here, job) == [chunk_unit(job, 0)]

    def make(place: Any, job: Any, index: int, path: Path, held: Any) -> None:
        path.write_text("whole")

    assert perform_chunk("cluster", "made", 0, make) == "done"
    assert [perform_chunk("cluster", "made", index, read) for index in (2, 3)] == ["done", "done"]
    assert perform_merge("cluster", "made", merged) == "done"
    assert perform_chunk("cluster", "made", 3, read) == "closed", "nothing is published of a job that ended"
    assert turns_of([job]) == [None]


def test_status_counts_with_and_without_a_broker(broker, broker_url, here, new_job, monkeypatch) -> None:
    job = new_job(parts=4)
    publish_job(here, job)
    perform_chunk("cluster", "made", 0, touch)
    broker.hincrby("lhcq:turn:cluster:made", "done", 1)  # which only Redis has

    def done() -> int:
        answer = CliRunner().invoke(status.command, ["--json"], catch_exceptions=False)
        return int(json.loads(answer.output)["jobs"][0]["done"])

    monkeypatch.setenv("LHCQ_BROKER_URL", broker_url)
    assert done() == 2
    broker.flushall()
    assert done() == 1
    try:
        monkeypatch.setenv("LHCQ_BROKER_URL", "redis+socket:///nowhere.sock")
        assert done() == 1
    finally:
        connect(broker_url)


def test_why_names_the_parts_that_were_given_up_with_their_tracebacks(
    broker, here, incomplete, monkeypatch
) -> None:
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)
    result = CliRunner().invoke(why.command, ["made"], catch_exceptions=False)
    assert result.exit_code == 0
    for index in (1, 3):
        assert f"lhcq.cluster_part:made:{index}: given up, {MAX_ATTEMPTS} attempts" in result.output
    assert "`lhcq retry made`" in result.output
    assert "OSError: the disk hiccuped" in result.output
    assert "in broken" in result.output
    value = json.loads(
        CliRunner().invoke(why.command, ["made", "3", "--json"], catch_exceptions=False).output
    )
    (unit,) = value["units"]
    assert (value["state"], unit["unit"], unit["last"]["pid"]) == (
        "incomplete",
        chunk_unit(incomplete, 3).key,
        os.getpid(),
    )
    assert "no chunk 4" in refused(why.command, "made", "4")


def test_a_chunk_is_told_of_the_job_that_has_it_and_a_run_has_none(incomplete, here):
    create_job(here, job_of("train", "made", parts=0))  # of the same name, and newer
    told = CliRunner().invoke(why.command, ["made", "3", "--json"], catch_exceptions=False)
    assert [one["job"] for one in json.loads(told.stdout)["jobs"]] == [incomplete.title]
    assert refused(why.command, "made", "3", "--kind", "train") == (
        "train made is made of no chunks. Leave the number out, to ask for all of it."
    )
    assert refused(why.command, "made", "4", "--kind", "cluster").endswith(
        "has 4 chunks, 0 to 3, and no chunk 4."
    )
