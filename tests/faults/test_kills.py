"""kill -9 of a worker's whole process group at each place where it can lose or double something."""

import os
import time

import pytest

from tasks.jobs.leases import LEASE_SECONDS
from tests.faults.conftest import PER_CHUNK
from tests.faults.rig import RECOVERY_LEASES

# In the order in which a part passes them; the numbers let some parts go well first.
POINTS = {
    "popped@lhcq.cluster_part": 5,
    "before-start@lhcq.cluster_part": 5,
    "working": 5,
    "after-part-commit": 5,
    "result-stored": 5,
    "chord-counted": 5,
    "chord-claimed": 0,
    "merge-published": 0,
    "before-merge-commit": 0,
    "after-merge-commit": 0,
    "popped@lhcq.cluster_merge": 0,
    "delivered@lhcq.cluster_part": 5,
}
SHORT = ("popped@lhcq.cluster_part", "chord-claimed")
REPEATS = int(os.environ.get("LHCQ_KILL_REPEATS", "1"))
"""How often each is killed: what goes wrong once in many times is seen by many times."""


@pytest.mark.parametrize(
    ("point", "after", "repeat"),
    [
        pytest.param(
            *(point, after, repeat),
            marks=() if point in SHORT else pytest.mark.torture,
            id=f"{point}-{repeat}" if repeat else point,
        )
        for point, after in POINTS.items()
        for repeat in range(REPEATS)
    ],
)
def test_a_worker_killed_at(rig, events, serial, recovered, point: str, after: int, repeat: int) -> None:
    rig.arm(point, after=after)
    job = rig.submit(events, f"{point}-{repeat}".replace("@", "-").replace(".", "-"), per_chunk=PER_CHUNK)
    killed = rig.reached(point)
    rig.victim(point).process.wait()
    outcome = rig.await_end(job, RECOVERY_LEASES * LEASE_SECONDS)
    recovered(outcome.finished - killed)
    rig.check(job, serial)


def test_a_killed_child_is_replaced_and_its_part_done_again(rig, events, serial, recovered) -> None:
    rig.arm("working", "kill-child", after=3)
    job = rig.submit(events, "child", per_chunk=PER_CHUNK)
    killed = rig.reached("working")
    outcome = rig.await_end(job, RECOVERY_LEASES * LEASE_SECONDS)
    recovered(outcome.finished - killed)
    rig.check(job, serial)
    assert len(rig.alive()) == 2


@pytest.mark.torture
def test_a_part_that_kills_its_process_every_time_is_given_up_alone(rig, events, recovered) -> None:
    from lhcq.records.failures import failures_of
    from tasks.jobs.attempts import MAX_ATTEMPTS
    from tasks.jobs.kinds import finished_chunks

    unit = "lhcq.cluster_part:poison:11"
    rig.arm(f"working@{unit}", "kill-child!")
    started = time.time()
    job = rig.submit(events, "poison", per_chunk=PER_CHUNK)
    outcome = rig.await_end(job, 240, state="incomplete")
    recovered(outcome.finished - started)
    assert [failure.unit for failure in failures_of(rig.place, job)] == [unit]
    assert finished_chunks(rig.place, job) == set(range(job.parts)) - {11}
    deaths = sum(entry["what"] == unit for entry in rig.entries("work"))
    assert deaths == MAX_ATTEMPTS
    rig.disarm(f"working@{unit}")
    rig.run("cluster", events, "--name", "poison", "--events-per-chunk", str(PER_CHUNK))
    assert rig.commits()[str(rig.place.dataset("poison"))] == 1
