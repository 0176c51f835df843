"""A worker that has to leave soon: what a batch system does to it, on the real worker."""

import signal
import time
from pathlib import Path

import pytest

from tasks.broker.transport import UNACKED_KEY
from tasks.jobs.leases import LEASE_SECONDS
from tests.faults.conftest import PER_CHUNK
from tests.faults.rig import RECOVERY_LEASES, Rig, wait_until

pytestmark = pytest.mark.torture
LEAVE_SECONDS = 60


def test_a_worker_told_to_leave_ends_what_it_has_and_takes_no_more(
    rig: Rig, events: Path, serial: bytes
) -> None:
    rig.arm("working", "hold", after=3)
    job = rig.submit(events, "drained", per_chunk=PER_CHUNK)
    rig.reached("working")
    leaving = rig.victim("working")
    leaving.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in rig.log().read_text(errors="replace"), "the worker to drain")
    assert leaving.alive
    rig.release("working")
    assert leaving.process.wait(LEAVE_SECONDS) == 0
    rig.await_end(job, RECOVERY_LEASES * LEASE_SECONDS)
    rig.check(job, serial)
    begun = [entry for entry in rig.entries("work") if ":drained:" in entry["what"]]
    assert len(begun) == job.parts  # nothing was begun twice


def test_what_does_not_end_in_time_goes_back_to_the_queue(
    rig: Rig, events: Path, serial: bytes, recovered
) -> None:
    rig.arm("working", "hold", after=3)
    job = rig.submit(events, "handed-back", per_chunk=PER_CHUNK)
    rig.reached("working")
    leaving = rig.victim("working")
    leaving.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    leaving.process.send_signal(signal.SIGQUIT)
    left = time.time()
    leaving.process.wait(LEAVE_SECONDS)
    recovered(rig.await_end(job, RECOVERY_LEASES * LEASE_SECONDS).finished - left)
    rig.check(job, serial)
    with rig.broker.client() as client:
        assert not client.exists(UNACKED_KEY)  # the message came back and was acknowledged by another
