"""Work that outlives its job leaves nothing among the records of the next one of that name."""

from pathlib import Path

from lhcq.records.failures import Failure, Holder, failures_of, record_failure
from lhcq.records.jobs import Job, end_job, outcome_of
from lhcq.workspace import Workspace
from tasks.jobs.holdings import find_holding, remove_holding
from tasks.jobs.kinds import chunk_path, chunk_unit, merge_unit
from tasks.jobs.leases import NoLease
from tasks.jobs.store import create_job
from tasks.stages.fanout import merge_work
from tests.specs import job_of


def with_chunks(place: Workspace, created: float) -> Job:
    job = create_job(place, job_of(created=created))
    for index in range(job.parts):
        path = chunk_path(place, job, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"chunk")
    return job


def asked_again(place: Workspace) -> Job:
    """`lhcq rm` of what is being made, then the same command."""
    remove_holding(place, find_holding(place, "made"), wait_for_workers=lambda _: None)
    return with_chunks(place, created=2.0)


def test_a_merge_ends_its_own_job_and_sets_aside_what_that_had(place: Workspace) -> None:
    job = with_chunks(place, created=1.0)
    merge_work(lambda *_: "3 events")(place, job, merge_unit(job), NoLease())
    outcome = outcome_of(place, job)
    assert outcome is not None
    assert (outcome.state, outcome.message) == ("done", "3 events")
    assert not chunk_path(place, job, 0).exists()


def test_a_merge_that_outlives_its_job_leaves_the_next_one_its_chunks(place: Workspace) -> None:
    job, later = with_chunks(place, created=1.0), []

    def merge(*_: object) -> str:
        later.append(asked_again(place))
        return "3 events"

    merge_work(merge)(place, job, merge_unit(job), NoLease())
    (new,) = later
    assert new.identity == job.identity  # the same request, so that nothing but the time tells the two apart
    assert outcome_of(place, new) is None
    assert [chunk_path(place, new, index).exists() for index in range(new.parts)] == [True] * 3


def test_an_end_and_a_failure_of_a_job_that_was_removed_are_not_the_next_ones(place: Workspace) -> None:
    job = with_chunks(place, created=1.0)
    failure = Failure(
        unit=chunk_unit(job, 0).key,
        message="row 7 is wrong",
        permanent=True,
        attempts=1,
        by=Holder.this_process(),
        traceback="",
    )
    new = asked_again(place)
    record_failure(place, job, failure)
    end_job(place, job, "failed", "row 7 is wrong")
    assert failures_of(place, new) == []
    assert outcome_of(place, new) is None
    record_failure(place, new, failure)
    assert [one.message for one in failures_of(place, new)] == ["row 7 is wrong"]


def test_a_job_that_was_removed_leaves_no_directory_behind(place: Workspace) -> None:
    job = with_chunks(place, created=1.0)
    remove_holding(place, find_holding(place, "made"), wait_for_workers=lambda _: None)
    end_job(place, job, "done", "merged")
    assert not Path(place.job(job.kind, job.name)).exists()
