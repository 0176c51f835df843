"""Jobs beside each other on real workers: in which order their parts are done, never how long it takes."""

from pathlib import Path
from typing import Any

import pytest

from lhcq.records.jobs import Job
from tasks.jobs.turns import WINDOW
from tests.faults.noop import noop_file, serial_noop
from tests.faults.rig import Rig, running_rig, wait_until

PROCESSES = 2


@pytest.fixture
def rig(tmp_path: Path) -> Any:
    with running_rig(tmp_path / "rig", noop=True) as rig:
        rig.start_worker(processes=PROCESSES, LHCQ_NOOP_SECONDS="0.02")
        rig.await_ready()
        yield rig


def done_in_order(rig: Rig) -> list[str]:
    """What was committed, one after the other: the job of each part, and `NAME!` for an outcome."""
    told = []
    for entry in rig.entries("commit"):
        path = Path(entry["what"])
        job = next((part for part in path.parts if part.startswith("cluster-")), "").removeprefix("cluster-")
        if path.name == "outcome.json":
            told.append(f"{job}!")
        elif "parts" in path.parts:
            told.append(job)
    return told


def submit(rig: Rig, n_parts: int, name: str, *options: str) -> Job:
    events = rig.directory / f"{n_parts}.h5"
    if not events.exists():
        noop_file(events, n_parts)
    rig.run("cluster", events, "--name", name, "--events-per-chunk", "1", "--detach", *options)
    return rig.job("cluster", name)


def test_a_small_job_beside_one_of_2000_chunks_waits_for_what_is_under_way_alone(rig) -> None:
    large = submit(rig, 2000, "large")
    wait_until(lambda: rig.finished(large) >= 100, "the first parts")
    small = submit(rig, 10, "small")
    rig.await_end(small, 60)
    assert not rig.is_over(large)
    told = done_in_order(rig)
    since = told.index("small") - WINDOW - PROCESSES  # those were under way or next when it came
    between = told[since : told.index("small!")]
    assert between.count("large") <= 2 * (WINDOW + PROCESSES)
    rig.check(small, serial_noop(10))


@pytest.mark.torture
def test_jobs_that_are_asked_for_at_once_end_while_others_go_on(rig) -> None:
    jobs = [submit(rig, 60, f"job-{number}") for number in range(3)]
    jobs += [submit(rig, 1, f"short-{number}") for number in range(3)]
    for job in jobs:
        rig.await_end(job, 120)
    told = done_in_order(rig)
    for number in range(3):
        ended = told.index(f"short-{number}!")
        assert ended - told.index(f"short-{number}") <= 2 * (
            WINDOW + PROCESSES
        )  # no merge waits for others' parts
    last = max(index for index, name in enumerate(told) if name == "job-0")
    assert told.index("job-0!") - last <= 2 * (WINDOW + PROCESSES)


@pytest.mark.torture
def test_a_flushed_broker_costs_no_part_a_second_time(rig) -> None:
    job = submit(rig, 400, "flushed")
    wait_until(lambda: rig.finished(job) >= 100, "the first parts")
    with rig.broker.client() as client:
        client.flushall()
    rig.await_end(job, 120)
    rig.check(job, serial_noop(400))
    works = [entry["what"] for entry in rig.entries("work")]
    assert len(works) - len(set(works)) <= WINDOW + PROCESSES
