"""The reconciler on the real broker: it publishes what nobody does, and nothing else."""

import base64
import io
import json
import os
import shutil
import threading
from typing import Any

import pytest

from lhcq.records.jobs import end_job
from tasks.engine.publish import publish_job
from tasks.engine.reconciler import Reconciler, _hold, await_scan
from tasks.jobs.attempts import announce_trouble, backoff_key
from tasks.jobs.kinds import chunk_path, chunk_unit, merge_unit
from tasks.jobs.leases import lease, lease_key
from tasks.jobs.store import reopen_job
from tasks.jobs.train import segment_unit, validate_unit
from tasks.jobs.turns import WINDOW, counted, published_jobs, turns_of
from tasks.stages.fanout import perform_chunk


def queued(broker: Any, queue: str = "cpu") -> list[str]:
    """Tasks and arguments of the messages that wait in a queue, first in first out."""
    messages = [json.loads(message)["headers"] for message in broker.lrange(queue, 0, -1)]
    return [f"{headers['task']}{headers['argsrepr']}" for headers in reversed(messages)]


def finish_parts(here: Any, job: Any, *indices: int) -> None:
    for index in indices:
        path = chunk_path(here, job, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def scan_twice(here: Any) -> None:
    reconciler = Reconciler()
    for _ in range(2):
        reconciler.scan(here)


def lose_messages(broker: Any) -> None:
    """As when workers die between a pop and what follows it."""
    broker.delete("cpu", "cpu.again")


def test_what_is_idle_twice_in_a_row_is_published(broker, here, new_job) -> None:
    job = new_job()
    finish_parts(here, job, 1)
    publish_job(here, job)
    lose_messages(broker)
    reconciler = Reconciler()
    reconciler.scan(here)
    assert reconciler.suspects == {chunk_unit(job, 0).key, chunk_unit(job, 2).key}
    assert queued(broker, "cpu.again") == []  # its message may just be on the way
    reconciler.scan(here)
    assert reconciler.suspects == set()
    assert queued(broker, "cpu.again") == ["lhcq.cluster_part('made', 0)", "lhcq.cluster_part('made', 2)"]
    assert Reconciler().idle_units(here) == []


def test_a_job_whose_submitter_died_before_it_published_is_published(broker, here, new_job) -> None:
    finish_parts(here, new_job(), 1)
    Reconciler().scan(here)
    assert queued(broker) == ["lhcq.cluster_part('made', 0)", "lhcq.cluster_part('made', 2)"]


def test_who_no_longer_holds_the_lock_publishes_nothing(broker, here, new_job) -> None:
    publish_job(here, new_job())
    lose_messages(broker)
    reconciler = Reconciler(still_holds=lambda: False)
    for _ in range(3):
        reconciler.scan(here)
    assert queued(broker, "cpu.again") == []


def test_a_broker_that_forgot_the_lock_is_looked_at_before_it_is_time(broker, here) -> None:
    lock, stop = _hold(None), threading.Event()
    assert lock is not None
    assert await_scan(stop, lock) == "due"
    broker.flushall()
    assert await_scan(stop, lock) == "forgotten"
    assert await_scan(stop, None) == "due"  # who never held it waits for its time
    stop.set()
    assert await_scan(stop, lock) == "stopped"


def test_what_is_queued_is_not_published_again(broker, here, new_job) -> None:
    job = new_job()
    publish_job(here, job)
    assert Reconciler().idle_units(here) == []
    scan_twice(here)
    assert len(queued(broker)) == 3


def test_a_full_queue_does_not_hold_back_another(broker, here, new_job) -> None:
    publish_job(here, new_job())
    run = new_job("train", "run", parts=0, checkpoint_steps=[3])
    assert Reconciler().idle_units(here) == [segment_unit(run.name)]


def test_what_is_at_work_is_not_published(broker, here, new_job) -> None:
    job = new_job(parts=2)
    publish_job(here, job)
    lose_messages(broker)
    with lease(broker, chunk_unit(job, 0).key):
        assert [unit.args[1] for unit in Reconciler().idle_units(here)] == [1]
    assert [unit.args[1] for unit in Reconciler().idle_units(here)] == [0, 1]


def test_a_merge_waits_for_the_parts_at_work(broker, here, new_job) -> None:
    job = new_job(parts=2)
    publish_job(here, job)
    lose_messages(broker)
    finish_parts(here, job, 0)
    with lease(broker, chunk_unit(job, 1).key):
        assert Reconciler().idle_units(here) == []
    finish_parts(here, job, 1)
    Reconciler().scan(here)  # which finds both done, whatever became of their workers
    assert counted(job) == 2
    assert Reconciler().idle_units(here) == [merge_unit(job)]


def test_what_failed_a_moment_ago_waits_for_its_pause(broker, here, new_job) -> None:
    job = new_job(parts=2)
    publish_job(here, job)
    lose_messages(broker)
    announce_trouble(job, chunk_unit(job, 0), OSError("hiccup"), 3)
    assert [unit.args[1] for unit in Reconciler().idle_units(here)] == [1]


@pytest.mark.parametrize("state", ["done", "failed", "incomplete", "cancelled"])
def test_a_job_that_ended_is_left_alone(broker, here, new_job, state: Any) -> None:
    job = new_job()
    publish_job(here, job)
    lose_messages(broker)
    end_job(here, job, state, "ended")
    assert Reconciler().idle_units(here) == []
    assert turns_of([job]) == [None]
    assert published_jobs() == set()


def test_a_job_that_was_removed_has_no_turns(broker, here, new_job) -> None:
    job = new_job(parts=100)
    publish_job(here, job)
    shutil.rmtree(here.job("cluster", "made"))
    Reconciler().scan(here)
    assert turns_of([job]) == [None]
    assert published_jobs() == set()


def test_a_job_that_was_opened_again_is_found(broker, here, new_job) -> None:
    job = new_job(parts=2)
    end_job(here, job, "incomplete", "attempts ran out")
    reconciler = Reconciler()
    reconciler.scan(here)
    reopen_job(here, job)
    publish_job(here, job)
    lose_messages(broker)
    for _ in range(2):
        reconciler.scan(here)
    assert len(queued(broker, "cpu.again")) == 2


def test_a_scan_looks_at_no_file_of_a_job_that_has_ended(broker, here, new_job, monkeypatch) -> None:
    for number in range(20):
        end_job(here, new_job(name=f"made-{number}"), "done", "made")
    reconciler = Reconciler()
    reconciler.scan(here)
    looked: list[str] = []
    stat, opened = os.stat, io.open

    def looking(path: Any, *arguments: Any, **options: Any) -> Any:
        looked.append(str(path))
        return stat(path, *arguments, **options)

    def opening(path: Any, *arguments: Any, **options: Any) -> Any:
        looked.append(str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", looking)
    monkeypatch.setattr(io, "open", opening)
    open_job = new_job(name="open")
    looked.clear()
    reconciler.scan(here)
    assert any("cluster-open" in path for path in looked)
    assert not [path for path in looked if "made-" in path]
    assert queued(broker) == [f"lhcq.cluster_part('{open_job.name}', {index})" for index in range(3)]


def test_a_checkpoint_without_a_validation_is_published_before_its_segment(broker, here, new_job) -> None:
    job = new_job("train", "run", parts=0, checkpoint_steps=[3, 6])
    checkpoint = here.checkpoint("run", 3)
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text(json.dumps({"of": job.identity}))
    keys = {validate_unit("run", 3).key, segment_unit("run").key}
    reconciler = Reconciler()
    reconciler.scan(here)
    assert reconciler.suspects == keys
    reconciler.scan(here)
    assert queued(broker, "validate.again") == ["lhcq.validate('run', 3)"]
    assert queued(broker, "gpu.again") == ["lhcq.train_segment('run',)"]


def test_a_flushed_broker_is_healed(broker, here, new_job) -> None:
    job = new_job(parts=3)
    publish_job(here, job)
    finish_parts(here, job, 0)
    broker.flushall()
    Reconciler().scan(here)
    assert queued(broker) == ["lhcq.cluster_part('made', 1)", "lhcq.cluster_part('made', 2)"]
    assert counted(job) == 1


def test_a_dead_chord_is_healed(broker, here, new_job) -> None:
    job = new_job()
    finish_parts(here, job, 0, 1, 2)
    scan_twice(here)
    assert queued(broker, "cpu.again") == ["lhcq.cluster_merge('made',)"]


def test_what_was_released_and_never_became_a_message_is_published(broker, here, new_job) -> None:
    publish_job(here, new_job(parts=10))
    lose_messages(broker)
    scan_twice(here)
    assert queued(broker) == [f"lhcq.cluster_part('made', {index})" for index in range(4, 8)]
    assert queued(broker, "cpu.again") == [f"lhcq.cluster_part('made', {index})" for index in range(4)]


def test_a_job_is_published_once_with_its_merge_in_every_message(broker, here, new_job) -> None:
    job = new_job()
    publish_job(here, job)
    assert queued(broker) == [f"lhcq.cluster_part('made', {index})" for index in range(3)]
    for message in broker.lrange("cpu", 0, -1):
        _, _, embedded = json.loads(base64.b64decode(json.loads(message)["body"]))
        assert (embedded["chord"]["task"], embedded["chord"]["args"]) == ("lhcq.cluster_merge", ["made"])
        assert embedded["chord"]["options"]["queue"] == "cpu.again"  # before all that waits
    broker.flushall()
    finish_parts(here, job, 0, 1, 2)
    publish_job(here, job)
    assert queued(broker, "cpu.again") == ["lhcq.cluster_merge('made',)"]


def test_a_lost_message_is_found_though_another_job_keeps_the_queue_busy(
    broker, here, new_job, caplog
) -> None:
    job, busy = new_job(parts=3), new_job(name="busy", parts=100)
    publish_job(here, job)
    broker.rpop("cpu")
    publish_job(here, busy)
    assert len(queued(broker)) == WINDOW
    scan_twice(here)
    assert queued(broker, "cpu.again") == ["lhcq.cluster_part('made', 0)"]
    lines = [record.message for record in caplog.records if "published again" in record.message]
    assert lines == ["lhcq.cluster_part made: 1 neither done nor under way, published again"]


def test_parts_are_counted_once_and_a_flushed_count_is_read_from_the_workspace(broker, here, new_job) -> None:
    job = new_job(parts=3)
    assert counted(job) is None
    publish_job(here, job)
    assert counted(job) == 0

    def touch(_: Any, job: Any, index: int, path: Any, held: Any) -> None:
        finish_parts(here, job, index)

    for index in (0, 2):
        assert perform_chunk("cluster", "made", index, touch) == "done"
    assert perform_chunk("cluster", "made", 2, touch) == "already"
    assert counted(job) == 2
    broker.flushall()
    assert perform_chunk("cluster", "made", 0, touch) == "already"
    assert counted(job) is None  # half a count is not shown
    Reconciler().scan(here)
    assert counted(job) == 2


def test_what_a_dead_host_holds_is_published_again_though_the_broker_s_clock_was_set_back(
    broker, place, new_job
) -> None:
    job = new_job("train", "run", parts=0)
    unit = segment_unit("run")
    broker.set(lease_key(unit.key), "a dead host's", ex=3516)
    broker.set(backoff_key(unit), "1", ex=3516)
    assert [one.key for one in Reconciler().idle_units(place)] == [unit.key], job


def test_a_dead_host_s_lock_on_the_scans_ends_though_the_broker_s_clock_was_set_back(broker) -> None:
    broker.set("lhcq:reconciler", "a dead host's", ex=3516)
    lock = _hold(None)
    assert lock is not None
    lock.release()
    broker.set("lhcq:reconciler", "a living host's", ex=5)
    assert _hold(None) is None
