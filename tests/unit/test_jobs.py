"""Jobs: what a name stands for, when it is free again, and what is kept."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from lhcq.errors import BadInput, NameTaken, NotThere, TransientError
from lhcq.records.failures import Failure, Holder, failures_of, record_failure
from lhcq.records.jobs import Job, end_job, find_job, list_jobs, load_job, outcome_of, this_user
from lhcq.workspace import Workspace
from tasks.jobs.kinds import chunk_path, finished_chunks, result_of
from tasks.jobs.store import (
    create_job,
    end_with_failures,
    is_permanent,
    message_of,
    refuse_taken_name,
    renew_terms,
    reopen_job,
    require_open,
)
from tests.specs import job_of, spec_of, terms_of


def failure(index: int, *, permanent: bool = False, message: str = "it broke") -> Failure:
    return Failure(
        unit=f"lhcq.cluster_part:made:{index}",
        message=message,
        permanent=permanent,
        attempts=5,
        by=Holder.this_process(),
        traceback="",
    )


def finish_part(place: Workspace, job: Job, index: int) -> Path:
    path = chunk_path(place, job, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("part")
    return path


def leave_result(place: Workspace, job: Job) -> None:
    result = result_of(place, job)
    result.mkdir(parents=True, exist_ok=True)
    (result / "manifest.json").write_text("{}")


def test_a_job_is_recorded_as_it_was_asked_for(place: Workspace) -> None:
    asked = job_of(radius=0.5, max_jets=None)
    recorded = create_job(place, asked)
    assert recorded.model_copy(update={"identity": "", "owner": ""}) == asked
    assert recorded.owner == this_user()
    assert recorded.identity == asked.spec.identity()
    assert find_job(place, "cluster", "made") == recorded
    assert outcome_of(place, asked) is None


def test_a_job_that_was_never_asked_for_is_not_there(place: Workspace) -> None:
    assert find_job(place, "train", "made") is None
    with pytest.raises(NotThere, match="train 'made' does not exist"):
        load_job(place, "train", "made")


def test_the_same_request_joins_the_open_job(place: Workspace) -> None:
    first = create_job(place, job_of(created=1.0, radius=0.5))
    record_failure(place, first, failure(1))
    part = finish_part(place, first, 0)
    joined = create_job(place, job_of(created=2.0, radius=0.5))
    assert joined == first
    assert failures_of(place, joined) == []  # what was given up is tried again
    assert part.exists()


def test_another_request_finds_the_name_taken(place: Workspace) -> None:
    first = create_job(place, job_of(radius=0.5))
    with pytest.raises(NameTaken, match="under way"):
        create_job(place, job_of(radius=1.0))
    assert find_job(place, "cluster", "made") == first


def test_the_same_name_of_another_kind_is_free(place: Workspace) -> None:
    create_job(place, job_of("cluster"))
    create_job(place, job_of("prepare"))
    create_job(place, job_of("train"))
    assert len(list_jobs(place)) == 3


@pytest.mark.parametrize("kind", ["cluster", "prepare"])
def test_a_result_without_a_job_keeps_its_name(place: Workspace, kind: str) -> None:
    leave_result(place, job_of(kind))
    with pytest.raises(NameTaken, match="exists already"):
        create_job(place, job_of(kind))
    assert list_jobs(place) == []


def test_a_file_that_is_there_is_not_generated_again(place: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "events.h5"
    out.write_text("mine")
    with pytest.raises(NameTaken, match=r"events\.h5 exists already"):
        create_job(place, job_of("generate", out=str(out)))


@pytest.mark.parametrize("state", ["done", "cancelled"])
def test_what_is_there_is_taken_even_for_the_same_request(place: Workspace, state: Any) -> None:
    job = create_job(place, job_of("train"))
    end_job(place, job, state, "ended")
    with pytest.raises(NameTaken, match="exists already"):
        refuse_taken_name(place, job_of("train"))


def test_a_failed_job_makes_way_for_another_request(place: Workspace) -> None:
    job = create_job(place, job_of(radius=0.5))
    part = finish_part(place, job, 0)
    record_failure(place, job, failure(1, permanent=True))
    end_with_failures(place, job, failures_of(place, job))
    again = create_job(place, job_of(radius=1.0))
    assert again.spec == spec_of("cluster", radius=1.0)
    assert not part.exists()
    assert failures_of(place, again) == []
    assert outcome_of(place, again) is None


def test_a_removed_result_makes_way(place: Workspace) -> None:
    job = create_job(place, job_of(radius=0.5))
    leave_result(place, job)
    end_job(place, job, "done", "made")
    (result_of(place, job) / "manifest.json").unlink()
    result_of(place, job).rmdir()
    again = create_job(place, job_of(radius=1.0))
    assert again.spec == spec_of("cluster", radius=1.0)
    assert outcome_of(place, again) is None


def test_a_split_whose_baseline_failed_serves_its_own_request_alone(place: Workspace) -> None:
    job = create_job(place, job_of("prepare", seed=1))
    leave_result(place, job)
    end_job(place, job, "failed", "one class alone")
    with pytest.raises(NameTaken, match="exists already"):
        create_job(place, job_of("prepare", seed=2))
    assert create_job(place, job_of("prepare", seed=1)).spec == spec_of("prepare", seed=1)
    assert outcome_of(place, job) is None


def test_an_incomplete_job_keeps_its_parts_and_tries_the_others_again(place: Workspace) -> None:
    job = create_job(place, job_of(radius=0.5))
    finish_part(place, job, 0)
    finish_part(place, job, 2)
    record_failure(place, job, failure(1))
    end_with_failures(place, job, failures_of(place, job))
    assert outcome_of(place, job).state == "incomplete"
    with pytest.raises(NameTaken, match="under way"):
        create_job(place, job_of(radius=1.0))
    again = create_job(place, job_of(created=9.0, radius=0.5))
    assert again == job
    assert finished_chunks(place, again) == {0, 2}
    assert failures_of(place, again) == []
    assert outcome_of(place, again) is None


def with_terms(job: Job, **terms: Any) -> Job:
    return job.model_copy(update={"terms": terms_of("cluster", **terms)})


def test_a_refusal_names_the_values_that_differ_and_what_to_do(place: Workspace) -> None:
    create_job(place, job_of(radius=1.0, source_sha256="aa", labels_sha256=None, n_events=30))
    other = job_of(radius=0.5, source_sha256="bb", labels_sha256="cc", n_events=29)
    with pytest.raises(NameTaken) as caught:
        create_job(place, other)
    assert str(caught.value) == (
        f"'cluster made' is under way in {place.root} with another configuration or input (--radius 0.5, was "
        "1.0; labels_sha256 cc, was None; source_sha256 bb, was aa). Choose another name, or "
        "end it by `lhcq cancel made --kind cluster`."
    )
    # A record of an lhcq that knew nothing of base models says nothing of one.
    plain = job_of("train", "run", base=None)
    assert "base" not in create_job(place, plain).spec.recorded()
    with pytest.raises(NameTaken, match=r"\(base \{'weights': '0+', .*\}, was None\)"):
        create_job(place, job_of("train", "run"))


@pytest.mark.parametrize("state", [None, "incomplete", "failed"])
def test_the_same_request_on_other_terms_goes_on_with_the_latest_ones(place: Workspace, state: Any) -> None:
    first = create_job(place, with_terms(job_of(radius=0.5), source="/old", tolerate=0.0))
    part = finish_part(place, first, 0)
    record_failure(place, first, failure(1, permanent=state == "failed"))
    if state:
        end_job(place, first, state, "ended")
    again = create_job(place, with_terms(job_of(radius=0.5, created=9.0), source="/new", tolerate=0.1))
    assert again == with_terms(first, source="/new", tolerate=0.1)
    assert find_job(place, "cluster", "made") == again
    assert part.exists()
    assert failures_of(place, again) == []
    assert outcome_of(place, again) is None


def test_a_job_whose_merge_failed_starts_anew(place: Workspace) -> None:
    first = create_job(place, job_of(radius=0.5))
    part = finish_part(place, first, 0)
    record_failure(place, first, failure(0, permanent=True))
    merge = failure(0, permanent=True).model_copy(update={"unit": "lhcq.cluster_merge:made"})
    record_failure(place, first, merge)
    end_with_failures(place, first, failures_of(place, first))
    assert create_job(place, job_of(radius=0.5, created=9.0)).created == 9.0
    assert not part.exists()


def test_terms_change_no_job_that_asks_for_something_else(place: Workspace) -> None:
    assert renew_terms(place, with_terms(job_of(), source="/new")) is None
    first = create_job(place, with_terms(job_of(radius=0.5), source="/old"))
    assert renew_terms(place, with_terms(job_of(radius=1.0), source="/new")) is None
    with pytest.raises(NameTaken):
        create_job(place, with_terms(job_of(radius=1.0), source="/new"))
    assert find_job(place, "cluster", "made") == first


def test_terms_that_stay_are_not_written_again(place: Workspace) -> None:
    first = create_job(place, with_terms(job_of(), source="/old"))
    record = place.job("cluster", "made") / "job.json"
    before = record.stat()
    assert create_job(place, with_terms(job_of(created=9.0), source="/old")) == first
    assert record.stat() == before


def test_a_failed_run_starts_anew(place: Workspace) -> None:
    asked = job_of("train", "run", seed=1, parts=0)
    job = create_job(place, asked)
    (place.job("train", "run") / "checkpoints").mkdir()
    end_job(place, job, "failed", "ended")
    create_job(place, asked)
    assert not (place.job("train", "run") / "checkpoints").exists()


def test_joining_a_job_that_ends_meanwhile_keeps_its_outcome(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create_job(place, job_of())
    seen = iter([None, None])  # it was open when we looked
    monkeypatch.setattr("tasks.jobs.store.outcome_of", lambda *_: next(seen))
    end_job(place, job, "done", "made")
    create_job(place, job_of())
    monkeypatch.undo()
    assert outcome_of(place, job).message == "made"


def test_of_two_requests_at_once_for_one_name_each_gets_its_own_or_an_error(place: Workspace) -> None:
    for number in range(40):
        got: dict[int, Any] = {}
        barrier = threading.Barrier(2)

        def ask(
            me: int, name: str = f"n{number}", got: Any = got, barrier: threading.Barrier = barrier
        ) -> None:
            barrier.wait(10)
            try:
                got[me] = create_job(place, job_of(name=name, radius=float(me))).spec.config.radius
            except NameTaken:
                got[me] = "taken"

        threads = [threading.Thread(target=ask, args=(me,)) for me in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert got in ({1: 1.0, 2: "taken"}, {1: "taken", 2: 2.0})


def test_the_first_outcome_stands(place: Workspace) -> None:
    job = create_job(place, job_of())
    end_job(place, job, "cancelled", "first")
    end_job(place, job, "done", "second")
    outcome = outcome_of(place, job)
    assert (outcome.state, outcome.message) == ("cancelled", "first")
    reopen_job(place, job)
    assert outcome_of(place, job) is None


def test_wrong_input_outweighs_attempts_that_ran_out(place: Workspace) -> None:
    job = create_job(place, job_of())
    for number, wrong in enumerate((False, True, False)):
        record_failure(place, job, failure(number, permanent=wrong, message=f"part {number} broke"))
    assert [one.unit[-1] for one in failures_of(place, job)] == ["0", "1", "2"]
    end_with_failures(place, job, failures_of(place, job))
    outcome = outcome_of(place, job)
    assert outcome.state == "failed"
    assert outcome.message == "part 1 broke (3 units failed alike)"


def test_jobs_are_listed_oldest_first_with_the_runs_among_them(place: Workspace) -> None:
    create_job(place, job_of("cluster", "b", created=3.0))
    create_job(place, job_of("train", "c", created=1.0))
    create_job(place, job_of("prepare", "a", created=2.0))
    assert [job.title for job in list_jobs(place)] == ["train c", "prepare a", "cluster b"]
    assert list_jobs(Workspace(place.root / "nowhere")) == []


def test_a_damaged_record_is_named(place: Workspace) -> None:
    job = create_job(place, job_of())
    record = place.job("cluster", "made") / "job.json"
    os.truncate(record, 20)
    with pytest.raises(BadInput, match=r"cluster-made/job\.json"):
        find_job(place, job.kind, job.name)


def test_a_damaged_record_is_told_once_and_hides_no_other(
    place: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    create_job(place, job_of())
    good = create_job(place, job_of(name="good"))
    os.truncate(place.job("cluster", "made") / "job.json", 20)
    for _ in range(2):
        assert list_jobs(place) == [good]
    (line,) = caplog.messages
    assert "cluster-made/job.json" in line


def test_only_an_open_run_can_be_paused(place: Workspace) -> None:
    job = create_job(place, job_of("train", "run"))
    assert require_open(place, "run", None) == job
    end_job(place, job, "done", "trained")
    with pytest.raises(BadInput, match=r"ended already \(done\)"):
        require_open(place, "run", None)


def test_lhcqs_own_errors_speak_for_themselves_and_bugs_give_their_kind() -> None:
    assert message_of(BadInput("row 3 is wrong")) == "row 3 is wrong"
    assert message_of(ValueError("oops")) == "ValueError: oops"
    assert is_permanent(BadInput("x"))
    assert not is_permanent(TransientError("x"))
    assert not is_permanent(ValueError("x"))
