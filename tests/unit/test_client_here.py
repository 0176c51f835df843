"""Jobs that are done in this process, without a queue."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lhcq.config import ClusterConfig
from lhcq.errors import BadInput, NameTaken
from lhcq.events.layout import open_event_file, write_event_file
from lhcq.records.job_control import set_wish
from lhcq.records.jobs import Job, outcome_of
from lhcq.requests.cluster import cluster_request
from lhcq.storage import sha256_of
from lhcq.workspace import Workspace
from tasks.client import (
    do_here,
)
from tasks.jobs.kinds import chunk_path, finished_chunks
from tasks.jobs.progress import Progress
from tasks.jobs.store import create_job
from tasks.stages.cluster import cluster_merge, cluster_part
from tests.specs import job_of

N_EVENTS = 40


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Forty events, ten to a storage chunk."""
    random = np.random.Generator(np.random.PCG64(5))
    particles = np.zeros((N_EVENTS, 700, 3))
    particles[:, :30, 0] = random.exponential(50.0, (N_EVENTS, 30)) + 1.0
    particles[:, :30, 1:] = random.normal(0.0, 1.0, (N_EVENTS, 30, 2))
    labels = (np.arange(N_EVENTS) % 2).astype(np.int8)
    write_event_file(tmp_path / "events.h5", [(particles, labels)], N_EVENTS, storage_rows=10)
    return tmp_path / "events.h5"


def clustering(place: Workspace, events: Path, name: str = "made") -> Job:
    config = ClusterConfig(features="full")
    place.create()
    return cluster_request(place, open_event_file(events), name, config, chunk=10)


ALONE = """
import sys
from collections.abc import Iterator
from pathlib import Path
from lhcq.config import ClusterConfig
from lhcq.events.layout import open_event_file
from lhcq.requests.cluster import cluster_request
from lhcq.workspace import Workspace
from tasks.broker.connection import has_broker
from tasks.client import do_here

heard = []
place, events = Workspace(Path(sys.argv[1])), open_event_file(Path(sys.argv[2]))
place.create()
request = cluster_request(place, events, "made", ClusterConfig(features="full"), chunk=10)
outcome = do_here(place, request, heard.append)
print(outcome.state, [tuple(at)[:3] for at in heard], has_broker())
"""


def test_a_clustering_in_this_process_needs_no_broker_and_gives_the_bytes_of_one_by_tasks(
    broker: Any, here: Workspace, events: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LHCQ_")}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(alone), str(events)],
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    parts = [(number, 4, "parts") for number in (1, 2, 3, 4, 4)]
    assert done.stdout == f"done {parts} False\n"
    assert not (alone / "broker").exists()
    assert not (alone / "jobs" / "cluster-made" / "parts").exists()

    job = create_job(here, clustering(here, events))
    assert [cluster_part("made", index) for index in range(4)] == ["done"] * 4
    assert cluster_merge("made") == "done"
    outcome = outcome_of(here, job)
    assert outcome is not None
    assert outcome.state == "done"
    by_tasks, by_itself = (
        sha256_of(place.dataset("made") / "events.parquet") for place in (here, Workspace(alone))
    )
    assert by_tasks == by_itself


def test_what_a_unit_raises_is_raised_and_what_is_finished_stays(place: Workspace, events: Path) -> None:
    request, before = clustering(place, events), events.stat()

    class Changed:
        heard: list[Progress] = []  # noqa: RUF012

        def __call__(self, at: Progress) -> None:
            self.heard.append(at)
            if len(self.heard) == 2:
                os.utime(events, (1e9, 1e9))

    changed = Changed()
    with pytest.raises(BadInput, match=r"events\.h5: changed since this job started"):
        do_here(place, request, changed)
    assert len(changed.heard) == 2
    assert outcome_of(place, request) is None
    job = create_job(place, request)
    assert finished_chunks(place, job) == {0, 1}
    first = chunk_path(place, job, 0).stat()

    os.utime(events, ns=(before.st_atime_ns, before.st_mtime_ns))
    seen = []

    def look(at: Progress) -> None:
        if chunk_path(place, job, 0).exists():
            seen.append((at.done, chunk_path(place, job, 0).stat() == first))

    outcome = do_here(place, request, look)
    assert outcome.state == "done"
    assert seen == [(3, True), (4, True)]  # and then it is merged


def test_a_job_that_is_done_is_not_done_again(place: Workspace, events: Path) -> None:
    do_here(place, clustering(place, events))
    before = (place.dataset("made") / "events.parquet").stat()
    with pytest.raises(NameTaken, match="exists already"):
        do_here(place, clustering(place, events))
    assert (place.dataset("made") / "events.parquet").stat() == before


def test_a_run_that_waits_for_a_person_is_not_waited_for(place: Workspace) -> None:
    job = create_job(place, job_of("train", "run", parts=0))
    set_wish(place, job, "pause")
    with pytest.raises(BadInput, match=r"train run waits for a person\. `lhcq why run` tells more"):
        do_here(place, job)
