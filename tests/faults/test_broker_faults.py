"""The broker killed, stopped, cut short, full and emptied: the job ends with the same bytes."""

import time

import pytest

from tasks.jobs.leases import LEASE_SECONDS
from tests.faults.conftest import PER_CHUNK
from tests.faults.rig import RECOVERY_LEASES, Rig, wait_until

pytestmark = pytest.mark.torture
RECOVERY_SECONDS = RECOVERY_LEASES * LEASE_SECONDS


def finish(rig: Rig, job, serial: bytes, recovered) -> None:
    """The fault is over: the job ends in time."""
    over = time.time()
    outcome = rig.await_end(job, RECOVERY_SECONDS)
    recovered(max(0.0, outcome.finished - over))
    rig.check(job, serial)


def restart(rig: Rig) -> None:
    rig.broker.kill()
    rig.broker.start()


def test_the_broker_killed_while_nothing_is_asked_for(rig, events, serial, recovered) -> None:
    restart(rig)
    finish(rig, rig.submit(events, "idle", per_chunk=PER_CHUNK), serial, recovered)


@pytest.mark.parametrize("point", ["working", "result-stored", "before-merge-commit"])
def test_the_broker_killed_at(rig, events, serial, recovered, point: str) -> None:
    rig.arm(point, "hold", after=0 if "merge" in point else 5)
    job = rig.submit(events, f"broker-{point}", per_chunk=PER_CHUNK)
    rig.reached(point)
    restart(rig)
    rig.release(point)
    finish(rig, job, serial, recovered)


def test_the_broker_stopped_for_60_s(rig, events, serial, recovered) -> None:
    import signal

    rig.arm("working", "hold", after=5)
    job = rig.submit(events, "frozen", per_chunk=PER_CHUNK)
    rig.reached("working")
    rig.broker.signal(signal.SIGSTOP)
    rig.release("working")
    time.sleep(60)  # the fault itself
    rig.broker.signal(signal.SIGCONT)
    finish(rig, job, serial, recovered)


def test_the_append_only_file_cut_short(rig, events, serial, recovered) -> None:
    rig.arm("working", "hold", after=5)
    job = rig.submit(events, "cut", per_chunk=PER_CHUNK)
    rig.reached("working")
    rig.broker.kill()
    (file,) = (rig.broker.directory / "appendonlydir").glob("*.incr.aof")
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size * 6 // 10)
    rig.broker.start()
    rig.release("working")
    finish(rig, job, serial, recovered)


def test_the_broker_out_of_memory(rig, events, serial, recovered) -> None:
    rig.arm("working", "hold", after=5)
    job = rig.submit(events, "full", per_chunk=PER_CHUNK)
    rig.reached("working")
    with rig.broker.client() as client:
        refused = int(client.info("errorstats").get("errorstat_OOM", {"count": 0})["count"])
        client.config_set("maxmemory", "1mb")
        rig.release("working")
        wait_until(
            lambda: int(client.info("errorstats").get("errorstat_OOM", {"count": 0})["count"]) >= refused + 5,
            "the broker to refuse",
        )
        client.config_set("maxmemory", "0")
    finish(rig, job, serial, recovered)


def test_the_broker_emptied(rig, events, serial, recovered) -> None:
    rig.arm("working", "hold", after=5)
    job = rig.submit(events, "emptied", per_chunk=PER_CHUNK)
    rig.reached("working")
    with rig.broker.client() as client:
        client.flushall()
    rig.release("working")
    finish(rig, job, serial, recovered)
