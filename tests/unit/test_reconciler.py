"""The reconciler on the real broker: it publishes what nobody does, and nothing else."""

import base64
import json
from typing import Any

import pytest

from lhcq.records.jobs import end_job
from tasks.engine.publish import publish_job, publish_unit
from tasks.engine.reconciler import Reconciler, _hold
from tasks.jobs.attempts import announce_trouble, backoff_key
from tasks.jobs.kinds import chunk_path, chunk_unit, merge_unit, segment_unit, validate_unit
from tasks.jobs.leases import lease, lease_key
from tasks.jobs.progress import count_chunk, counted_chunks
from tasks.stages.fanout import perform_chunk


def queued(broker: Any, queue: str = "cpu") -> list[str]:
    """Tasks and arguments of the messages that wait in a queue, first in first out."""
    messages = [json.loads(message)["headers"] for message in broker.lrange(queue, 0, -1)]
    return [f"{headers['task']}{headers['argsrepr']}" for headers in reversed(messages)]


def finish_parts(place: Any, job: Any, *indices: int) -> None:
    for index in indices:
        path = chunk_path(place, job, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def scan_twice(place: Any) -> None:
    reconciler = Reconciler()
    for _ in range(2):
        reconciler.scan(place)


def test_what_is_idle_twice_in_a_row_is_published(broker, place, new_job) -> None:
    job = new_job()
    finish_parts(place, job, 1)
    reconciler = Reconciler()
    reconciler.scan(place)
    assert reconciler.suspects == {chunk_unit(job, 0).key, chunk_unit(job, 2).key}
    assert queued(broker) == []  # its message may just be on the way
    reconciler.scan(place)
    assert reconciler.suspects == set()
    assert queued(broker, "cpu.again") == ["lhcq.cluster_part('made', 0)", "lhcq.cluster_part('made', 2)"]
    assert Reconciler().idle_units(place) == []


def test_what_is_queued_is_not_published_again(broker, place, new_job) -> None:
    job = new_job()
    publish_job(place, job)
    assert Reconciler().idle_units(place) == []
    scan_twice(place)
    assert len(queued(broker)) == 3


def test_a_full_queue_does_not_hold_back_another(broker, place, new_job) -> None:
    new_job()
    run = new_job("train", "run", parts=0, checkpoint_steps=[3])
    publish_unit(chunk_unit(new_job(), 0))
    assert Reconciler().idle_units(place) == [segment_unit(run.name)]


def test_what_is_at_work_is_not_published(broker, place, new_job) -> None:
    job = new_job(parts=2)
    with lease(broker, chunk_unit(job, 0).key):
        assert [unit.args[1] for unit in Reconciler().idle_units(place)] == [1]
    assert [unit.args[1] for unit in Reconciler().idle_units(place)] == [0, 1]


def test_a_merge_waits_for_the_parts_at_work(broker, place, new_job) -> None:
    job = new_job(parts=2)
    finish_parts(place, job, 0)
    with lease(broker, chunk_unit(job, 1).key):
        assert Reconciler().idle_units(place) == []
    finish_parts(place, job, 1)
    assert Reconciler().idle_units(place) == [merge_unit(job)]


def test_what_failed_a_moment_ago_waits_for_its_pause(broker, place, new_job) -> None:
    job = new_job(parts=2)
    announce_trouble(job, chunk_unit(job, 0), OSError("hiccup"), 3)
    assert [unit.args[1] for unit in Reconciler().idle_units(place)] == [1]


@pytest.mark.parametrize("state", ["done", "failed", "incomplete", "cancelled"])
def test_a_job_that_ended_is_left_alone(broker, place, new_job, state: Any) -> None:
    end_job(place, new_job(), state, "ended")
    assert Reconciler().idle_units(place) == []


def test_a_checkpoint_without_a_validation_is_published_before_its_segment(broker, place, new_job) -> None:
    job = new_job("train", "run", parts=0, checkpoint_steps=[3, 6])
    checkpoint = place.checkpoint("run", 3)
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text(json.dumps({"of": job.identity}))
    keys = {validate_unit("run", 3).key, segment_unit("run").key}
    reconciler = Reconciler()
    reconciler.scan(place)
    assert reconciler.suspects == keys
    reconciler.scan(place)
    assert queued(broker, "validate.again") == ["lhcq.validate('run', 3)"]
    assert queued(broker, "gpu.again") == ["lhcq.train_segment('run',)"]


def test_a_flushed_broker_is_healed(broker, place, new_job) -> None:
    job = new_job()
    publish_job(place, job)
    assert len(queued(broker)) == 3
    scan_twice(place)
    assert len(queued(broker)) == 3
    broker.flushall()
    scan_twice(place)
    assert queued(broker, "cpu.again") == [f"lhcq.cluster_part('made', {index})" for index in range(3)]


def test_a_dead_chord_is_healed(broker, place, new_job) -> None:
    job = new_job()
    finish_parts(place, job, 0, 1, 2)
    scan_twice(place)
    assert queued(broker, "cpu.again") == ["lhcq.cluster_merge('made',)"]


def test_a_job_is_published_once_with_its_merge_in_every_message(broker, place, new_job) -> None:
    job = new_job()
    publish_job(place, job)
    assert queued(broker) == [f"lhcq.cluster_part('made', {index})" for index in range(3)]
    for message in broker.lrange("cpu", 0, -1):
        _, _, embedded = json.loads(base64.b64decode(json.loads(message)["body"]))
        assert (embedded["chord"]["task"], embedded["chord"]["args"]) == ("lhcq.cluster_merge", ["made"])
    broker.flushall()
    finish_parts(place, job, 0, 1, 2)
    publish_job(place, job)
    assert queued(broker) == ["lhcq.cluster_merge('made',)"]


def test_a_lost_message_is_found_though_another_job_keeps_the_queue_busy(
    broker, place, new_job, monkeypatch, caplog
) -> None:
    busy, job = new_job(name="busy", parts=2), new_job(parts=4)
    publish_job(place, busy)
    publish_unit(chunk_unit(job, 3))
    monkeypatch.setattr("tasks.engine.reconciler._FIRST_READING_SECONDS", 0.0)
    short_lived = Reconciler()
    short_lived.scan(place)
    assert short_lived.suspects == set()  # the queue is not read through at once
    reconciler = Reconciler()  # of another host, which goes on where that one ended
    with lease(broker, chunk_unit(job, 0).key):
        reconciler.scan(place)
        reconciler.scan(place)
    assert queued(broker, "cpu.again") == ["lhcq.cluster_part('made', 1)", "lhcq.cluster_part('made', 2)"]
    lines = [record.message for record in caplog.records if "published again" in record.message]
    assert lines == ["lhcq.cluster_part made: 2 neither done nor under way, published again"]


def test_a_queue_that_was_empty_is_not_read_through_at_once(broker, place, new_job, monkeypatch) -> None:
    monkeypatch.setattr("tasks.engine.reconciler._FIRST_READING_SECONDS", 0.0)
    job = new_job(parts=2)
    publish_unit(chunk_unit(job, 0))
    reconciler = Reconciler()
    reconciler.scan(place)
    broker.delete("cpu")
    Reconciler().scan(place)
    publish_unit(chunk_unit(job, 0))  # by a submitter who has not come to the other one yet
    reconciler.scan(place)
    assert reconciler.suspects == set()


def test_parts_are_counted_once_and_a_flushed_count_is_read_from_the_workspace(broker, here, new_job) -> None:
    job = new_job(parts=3)
    assert counted_chunks(job) is None
    publish_job(here, job)
    assert counted_chunks(job) == 0

    def touch(place: Any, job: Any, index: int, path: Any, held: Any) -> None:
        finish_parts(here, job, index)

    for index in (0, 2):
        assert perform_chunk("cluster", "made", index, touch) == "done"
    count_chunk(job, 2)
    assert counted_chunks(job) == 2
    broker.flushall()
    count_chunk(job, 2)
    assert counted_chunks(job) is None  # half a count is not shown
    Reconciler().scan(here)
    assert counted_chunks(job) == 2


def test_what_a_dead_host_holds_is_published_again_though_the_broker_s_clock_was_set_back(
    broker, place, new_job
) -> None:
    job = new_job(parts=3)
    for unit in (chunk_unit(job, 0), chunk_unit(job, 1)):
        broker.set(lease_key(unit.key), "a dead host's", ex=3516)
    broker.set(backoff_key(chunk_unit(job, 2)), "1", ex=3516)
    scan_twice(place)
    assert len(queued(broker, "cpu.again")) == 3


def test_a_dead_host_s_lock_on_the_scans_ends_though_the_broker_s_clock_was_set_back(broker) -> None:
    broker.set("lhcq:reconciler", "a dead host's", ex=3516)
    lock = _hold(None)
    assert lock is not None
    lock.release()
    broker.set("lhcq:reconciler", "a living host's", ex=5)
    assert _hold(None) is None
