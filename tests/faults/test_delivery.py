"""Messages that come late, twice or too early; clocks that are wrong; workers that come and go; a full disk."""

import contextlib
import signal
import time
from pathlib import Path

import pytest

from tasks.jobs.leases import LEASE_SECONDS
from tests.faults.conftest import PER_CHUNK
from tests.faults.noop import noop_file, serial_noop
from tests.faults.rig import RECOVERY_LEASES, Rig, running_rig, wait_until

RECOVERY_SECONDS = RECOVERY_LEASES * LEASE_SECONDS
DISK_SIZE = "24m"
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


@pytest.fixture
def idle_rig(tmp_path):
    """A rig without workers."""
    with running_rig(tmp_path / "rig") as rig:
        yield rig


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"\0" * 4096)


def works_of(rig: Rig, name: str) -> dict[str, int]:
    """How often each part of a job was worked on."""
    units = [entry["what"] for entry in rig.entries("work") if f":{name}:" in entry["what"]]
    return {unit: units.count(unit) for unit in units}


@pytest.mark.torture
def test_a_worker_stopped_past_its_lease_comes_back_and_commits_nothing(
    rig, events, serial, recovered
) -> None:
    rig.arm("working", "stop", after=5)
    job = rig.submit(events, "zombie", per_chunk=PER_CHUNK)
    stopped = rig.reached("working")
    zombie = rig.victim("working")
    outcome = rig.await_end(job, RECOVERY_SECONDS)
    recovered(outcome.finished - stopped)
    for worker in rig.alive():
        if worker is not zombie:
            worker.kill()
    zombie.signal(signal.SIGCONT)
    later = rig.submit(events, "zombie-works-again", per_chunk=PER_CHUNK)
    rig.await_end(later, RECOVERY_SECONDS)
    rig.check(job, serial)
    rig.check(later, serial)


@pytest.mark.torture
def test_every_message_twice_and_a_third_worker_in_the_middle(idle_rig, events, serial, recovered) -> None:
    rig = idle_rig
    job = rig.submit(events, "twice", per_chunk=PER_CHUNK)
    again = "from tasks.jobs.units import Unit; from tasks.engine.publish import publish_unit\n"
    merge = again + "[publish_unit(Unit(task='lhcq.cluster_merge', args=('twice',))) for _ in range(2)]"
    parts = f"Unit(task='lhcq.cluster_part', args=('twice', index)) for index in range({job.parts})"
    rig.python(f"{again}[publish_unit(unit, again=True) for _ in range(2) for unit in [{parts}]]")
    rig.python(merge)
    with rig.broker.client() as client:
        assert client.llen("cpu.again") == 2 * job.parts + 2
    started = time.time()
    rig.start_worker()
    rig.start_worker()
    wait_until(lambda: rig.finished(job) >= 3, "the first parts")
    rig.start_worker()
    outcome = rig.await_end(job, RECOVERY_SECONDS)
    recovered(outcome.finished - started)
    rig.python(merge)
    with rig.broker.client() as client:
        wait_until(
            lambda: client.llen("cpu") + client.llen("cpu.again") + client.hlen("unacked") == 0,
            "the queues to be empty",
        )
    rig.check(job, serial)


@pytest.mark.torture
def test_a_visibility_timeout_far_below_a_task_gives_one_execution(
    idle_rig, events, serial, recovered
) -> None:
    rig = idle_rig
    for _ in range(2):
        rig.start_worker(LHCQ_VISIBILITY_TIMEOUT="2")
    rig.await_ready()
    rig.arm("working@lhcq.cluster_part:early:3", "hold")
    job = rig.submit(events, "early", per_chunk=PER_CHUNK)
    rig.reached("working@lhcq.cluster_part:early:3")

    def deliveries() -> int:
        return sum(entry["what"] == "lhcq.cluster_part:early:3" for entry in rig.entries("start"))

    wait_until(lambda: deliveries() >= 2, "the same message to come again")
    rig.release("working@lhcq.cluster_part:early:3")
    released = time.time()
    outcome = rig.await_end(job, RECOVERY_SECONDS)
    recovered(outcome.finished - released)
    assert works_of(rig, "early") == {f"lhcq.cluster_part:early:{index}": 1 for index in range(job.parts)}
    rig.check(job, serial)


@pytest.mark.torture
@pytest.mark.skipif(not FAKETIME.exists(), reason="libfaketime is not installed")
def test_a_clock_an_hour_ahead_and_one_an_hour_behind(idle_rig, events, serial, recovered) -> None:
    rig = idle_rig
    for offset in ("+3600s", "-3600s"):
        rig.start_worker(LD_PRELOAD=str(FAKETIME), FAKETIME=offset, DONT_FAKE_MONOTONIC="1")
    rig.await_ready()
    rig.arm("working", after=5)
    started = time.time()
    job = rig.submit(events, "clocks", per_chunk=PER_CHUNK)
    rig.reached("working")
    rig.await_end(job, RECOVERY_SECONDS)
    recovered(time.time() - started)  # the outcome's own time is by a wrong clock
    rig.check(job, serial)
    offsets = {round((entry["time"] - time.time()) / 3600) for entry in rig.entries("start")}
    assert offsets == {-1, 1}


@pytest.mark.torture
@pytest.mark.parametrize("point", ["before-enter", "after-enter", "sent@lhcq.cluster_part"])
def test_a_submitter_killed_while_it_publishes_2000_parts(tmp_path, recovered, point: str) -> None:
    n_parts = 2000
    with running_rig(tmp_path / "rig", noop=True) as rig:
        events = noop_file(tmp_path / "events.h5", n_parts)
        rig.keep(2)
        rig.arms = tmp_path / "arms"  # the submitter's alone: a reconciler publishes parts too
        rig.arms.mkdir()
        rig.arm(point)
        words = ("cluster", events, "--name", "half", "--events-per-chunk", "1", "--detach")
        process = rig.command(*words, wrapped=True)
        killed = rig.reached(point)
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        job = rig.job("cluster", "half")
        assert job.parts == n_parts
        outcome = rig.await_end(job, 120)
        recovered(outcome.finished - killed)
        rig.check(job, serial_noop(n_parts))


@pytest.mark.torture
def test_a_disk_that_was_full_and_is_freed(tmp_path, small_disk, events, serial, recovered) -> None:
    with running_rig(tmp_path / "rig", workspace=small_disk / "workspace") as rig:
        rig.keep(2)
        rig.arm("working", "hold", after=5)
        job = rig.submit(events, "packed", per_chunk=PER_CHUNK)
        rig.reached("working")
        fill(small_disk / "filler")
        rig.release("working")
        with rig.broker.client() as client:
            wait_until(lambda: client.exists("lhcq:trouble:cluster:packed"), "the full disk to be noticed")
        (small_disk / "filler").unlink()
        freed = time.time()
        outcome = rig.await_end(job, RECOVERY_SECONDS)
        recovered(outcome.finished - freed)
        rig.check(job, serial)
