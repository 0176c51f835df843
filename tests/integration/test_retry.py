"""`lhcq retry` and `lhcq why` as a user runs them, on a job whose parts were all given up."""

from pathlib import Path

import pytest

from lhcq.config import ClusterConfig
from lhcq.events.layout import open_event_file
from lhcq.records.failures import Failure, Holder, failures_of, record_failure
from lhcq.records.jobs import Job
from lhcq.requests.cluster import cluster_request
from lhcq.workspace import Workspace
from tasks.jobs.kinds import chunk_unit
from tasks.jobs.store import create_job, end_with_failures


@pytest.fixture
def given_up(lhcq, event_file: Path) -> Job:
    """A clustering of three chunks, each of which is said to have failed five times."""
    place = Workspace(lhcq.workspace)
    job = create_job(
        place, cluster_request(place, open_event_file(event_file), "made", ClusterConfig(), chunk=700)
    )
    for index in range(job.parts):
        failure = Failure(
            unit=chunk_unit(job, index).key,
            message=f"part {index} hiccuped",
            permanent=False,
            attempts=5,
            by=Holder.this_process(),
            traceback="Traceback: hiccup",
        )
        record_failure(place, job, failure)
    end_with_failures(place, job, failures_of(place, job))
    return job


def test_one_part_and_then_the_others_are_tried_again(lhcq, given_up: Job) -> None:
    answer = lhcq.ask("why", "made")
    assert (answer["state"], len(answer["units"])) == ("incomplete", 3)
    assert "part 2 hiccuped" in lhcq.run("why", "made", "2").stdout

    assert "chunk 1 of cluster made" not in lhcq.refused("retry", "made", "--part", "1", code=3)
    answer = lhcq.ask("why", "made")
    assert [unit["unit"][-1] for unit in answer["units"]] == ["0", "2"]

    answer = lhcq.ask("retry", "made")
    assert [unit[-1] for unit in answer["units"]] == ["0", "2"]
    assert lhcq.ask("status")["jobs"][0]["state"] == "done"
    assert (lhcq.workspace / "datasets/made/events.parquet").exists()
    assert "cluster made is done" in lhcq.refused("retry", "made")
