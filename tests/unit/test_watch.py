"""`lhcq watch` follows a job of any kind, and says what came of it."""

import json
import threading
import time
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from lhcq.cli import watch
from lhcq.cli.main import cli
from lhcq.errors import NotThere
from lhcq.records.job_control import set_wish
from lhcq.records.jobs import Job, end_job
from lhcq.workspace import Workspace
from tasks.jobs.holdings import find_holding, remove_holding
from tasks.jobs.kinds import KINDS, chunk_path, result_of

NewJob = Callable[..., Job]


@pytest.fixture(autouse=True)
def named(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)
    monkeypatch.setattr(watch, "_POLL_SECONDS", 0.01)


def watched(*words: str) -> Result:
    return CliRunner().invoke(cli, ["watch", *words], catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_of_any_kind_is_watched(place: Workspace, new_job: NewJob, kind: str) -> None:
    job = new_job(kind, parts=0 if kind == "train" else 3)
    open_ = watched("made", "--once")
    assert open_.return_value == 0
    assert "made" in open_.output
    end_job(place, job, "incomplete", "2 chunks were given up.")
    ended = watched("made")
    assert ended.return_value == 3
    if kind != "train":  # which has its table, and what is to be said of it
        assert f"{kind} made: incomplete" in ended.output
        assert "2 chunks were given up." in ended.output
        assert json.loads(watched("made", "--json").stdout)["job"] == f"{kind} made"


def test_it_follows_until_the_job_ends_and_names_the_result(place: Workspace, new_job: NewJob) -> None:
    job = new_job()

    def end() -> None:
        for index in range(job.parts):
            chunk = chunk_path(place, job, index)
            chunk.parent.mkdir(parents=True, exist_ok=True)
            chunk.touch()
        end_job(place, job, "done", "merged 30 events")

    later = threading.Timer(0.3, end)
    began = time.monotonic()
    later.start()
    told = watched("made")
    later.join()
    assert time.monotonic() - began >= 0.3
    assert told.return_value == 0
    assert "cluster made: done, 3 of 3 parts" in told.stdout
    assert "merged 30 events" in told.stdout
    assert str(result_of(place, job)) in told.stdout


def test_of_several_the_newest_that_has_not_ended_is_followed_and_it_says_how_to_choose(
    place: Workspace, new_job: NewJob
) -> None:
    new_job("cluster")
    end_job(place, new_job("search", parts=5), "done", "searched")
    told = watched("made", "--once")
    assert "cluster made: open" in told.stdout
    assert "(2 jobs are called made: cluster, search. --kind cluster chooses one.)" in told.stderr
    assert "search made: done" in watched("made", "--kind", "search").stdout


def test_who_waits_for_a_job_that_nobody_works_for_is_told_so(place: Workspace, new_job: NewJob) -> None:
    job = new_job()
    later = threading.Timer(0.3, lambda: set_wish(place, job, "pause"))
    later.start()
    told = watched("made")
    later.join()
    assert "Nobody works for it" in told.stderr
    assert "`lhcq resume made` goes on." in told.stderr
    assert "cluster made: paused" in told.stdout


def test_a_job_that_is_removed_meanwhile_ends_the_watching(place: Workspace, new_job: NewJob) -> None:
    new_job()
    held = find_holding(place, "made")
    later = threading.Timer(0.3, lambda: remove_holding(place, held, wait_for_workers=lambda _: None))
    later.start()
    with pytest.raises(NotThere, match=r"cluster made was removed while it was watched\."):
        watched("made")
    later.join()
