"""What a program does to have a job done, without a command line: publish and wait, or do it in this process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lhcq.errors import BadInput, DiskFull, NameTaken, NotThere, TransientError
from lhcq.records.failures import Failure, Holder, failures_of, record_failure
from lhcq.records.job_control import set_wish
from lhcq.records.jobs import end_job, outcome_of
from lhcq.storage import read_json
from lhcq.workspace import Workspace
from tasks import client
from tasks.app import connect
from tasks.broker.connection import redis_client
from tasks.client import (
    Following,
    Session,
    is_up,
    session,
    staying_up,
    submit,
    try_again,
    workers_for,
)
from tasks.jobs.attempts import announce_trouble
from tasks.jobs.kinds import chunk_unit, merge_unit
from tasks.jobs.leases import lease
from tasks.jobs.progress import Progress
from tasks.jobs.store import create_job, discard_job
from tasks.jobs.train import segment_unit
from tasks.jobs.turns import Claim, note_end
from tasks.workers.lifecycle import READY_KEY
from tasks.workers.local import _MAX_RESTARTS, LocalWorker, LocalWorkers, RunningWorker, local_workers
from tests.specs import job_of


class Acts:
    """Told how far a job is; does one thing a time that it is told, and the last one each time after."""

    def __init__(self, *acts: Any) -> None:
        self._acts = list(acts)
        self.heard: list[Progress] = []

    def __call__(self, at: Progress) -> None:
        self.heard.append(at)
        act = self._acts.pop(0) if len(self._acts) > 1 else self._acts[0]
        act()


def nothing() -> None:
    """The job goes on."""


@pytest.fixture
def current(broker: Any, here: Workspace, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session with a broker and workers elsewhere, of which there are none; its trouble is asked at each look."""
    monkeypatch.setattr(client, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(client, "_TROUBLE_EVERY_SECONDS", -1.0)
    here.create()
    return Session(workspace=here, workers=None)


# Waiting.


def test_who_waits_is_told_how_far_it_is_until_the_outcome_and_once_more(
    current: Session, here: Workspace
) -> None:
    following = submit(current, job_of())
    job = following.job

    def end() -> None:
        end_job(here, job, "done", "merged")

    def finish(index: int) -> None:
        note_end(Claim(job, chunk_unit(job, index), "cpu"), "done")

    acts = Acts(nothing, lambda: finish(0), lambda: finish(2), end)
    outcome = following.wait(on_progress=acts)
    assert outcome is not None
    assert (outcome.state, outcome.message) == ("done", "merged")
    assert [tuple(at)[:3] for at in acts.heard] == [
        (0, 3, "parts"),
        (0, 3, "parts"),
        (1, 3, "parts"),
        (2, 3, "parts"),
        (3, 3, "parts"),
    ]
    assert following.seconds > 0


def test_who_waits_may_count_something_else(current: Session, here: Workspace) -> None:
    following = submit(current, job_of())
    acts = Acts(nothing, lambda: end_job(here, following.job, "failed", "row 7 is wrong"))
    outcome = following.wait(lambda: Progress(7, 9, "events"), on_progress=acts)
    assert outcome is not None
    assert outcome.state == "failed"
    assert acts.heard == [Progress(7, 9, "events")] * 3


def test_a_job_that_has_ended_is_waited_for_no_more(current: Session, here: Workspace) -> None:
    job = create_job(here, job_of())
    end_job(here, job, "cancelled", "it was enough")
    heard: list[Progress] = []
    outcome = Following(current, job, 0.0).wait(on_progress=heard.append)
    assert outcome == outcome_of(here, job)
    assert len(heard) == 1


def test_a_job_that_is_removed_is_waited_for_no_more(current: Session, here: Workspace) -> None:
    following = submit(current, job_of())
    acts = Acts(nothing, lambda: discard_job(here, following.job))
    with pytest.raises(NotThere, match="cluster made was removed while it was waited for"):
        following.wait(on_progress=acts)


def test_a_run_that_was_paused_gives_no_outcome_once_its_trainer_has_noticed(
    current: Session, here: Workspace, broker: Any
) -> None:
    following = submit(current, job_of("train", "run", parts=0))
    with contextlib.ExitStack() as trainer:
        trainer.enter_context(lease(broker, segment_unit("run").key))
        acts = Acts(lambda: set_wish(here, following.job, "pause"), nothing, nothing, trainer.close, nothing)
        assert following.wait(on_progress=acts) is None
    assert len(acts.heard) == 4  # while the trainer was still at its step it was waited for
    assert outcome_of(here, following.job) is None


def test_trouble_that_will_be_tried_again_is_told_once(current: Session, here: Workspace) -> None:
    following = submit(current, job_of())
    job, unit = following.job, chunk_unit(following.job, 0)

    def hiccup(message: str) -> Any:
        return lambda: announce_trouble(job, unit, TransientError(message), 1)

    told: list[str] = []
    acts = Acts(
        nothing,
        hiccup("the network hiccuped"),
        nothing,
        hiccup("the network hiccuped"),
        nothing,
        hiccup("the disk hiccuped"),
        nothing,
        lambda: end_job(here, job, "done", "merged"),
    )
    assert following.wait(on_progress=acts, on_trouble=told.append) is not None
    assert told == ["the network hiccuped", "the disk hiccuped"]


def test_a_disk_that_is_full_ends_the_waiting_and_not_the_job(current: Session, here: Workspace) -> None:
    following = submit(current, job_of())
    announce_trouble(following.job, chunk_unit(following.job, 0), DiskFull("/scratch: no space left"), 1)
    told: list[str] = []
    with pytest.raises(DiskFull, match="/scratch: no space left"):
        following.wait(on_trouble=told.append)
    assert told == []
    assert outcome_of(here, following.job) is None


def test_workers_of_ones_own_that_keep_dying_end_the_waiting(current: Session, here: Workspace) -> None:
    class Dying:
        def check(self) -> None:
            raise TransientError("the local workers keep dying")

    own = Session(workspace=here, workers=Dying())  # type: ignore[arg-type]
    assert (own.lasting, current.lasting) == (False, True)
    with pytest.raises(TransientError, match="keep dying"):
        submit(own, job_of()).wait()


def test_only_what_was_given_up_is_worth_asking_for_again(current: Session, here: Workspace) -> None:
    following = submit(current, job_of())
    failure = Failure(
        unit=chunk_unit(following.job, 1).key,
        message="it broke",
        permanent=False,
        attempts=5,
        by=Holder.this_process(),
        traceback="",
    )
    end_job(here, following.job, "incomplete", "rows are missing")
    outcome = following.wait()
    assert outcome is not None
    assert not following.can_be_tried_again(outcome)  # every unit ended, and would end the same way
    record_failure(here, following.job, failure)
    assert following.can_be_tried_again(outcome)
    again = try_again(current, following.job, [chunk_unit(following.job, 1)])
    assert failures_of(here, again.job) == []
    assert outcome_of(here, again.job) is None


def test_workers_of_ones_own_may_end_the_unit_that_ended_the_job(
    current: Session, here: Workspace, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Session(workspace=here, workers=object())  # type: ignore[arg-type]
    job = create_job(here, job_of())
    asked: list[str] = []

    def is_leased(_: Any, unit: str) -> bool:
        asked.append(unit)
        return len(asked) < 3

    monkeypatch.setattr(client, "is_leased", is_leased)
    Following(current, job, 0.0).tidy_up()
    assert asked == []  # workers elsewhere stay
    Following(own, job, 0.0).tidy_up()
    assert asked == [merge_unit(job).key] * 3


# Publishing.


def test_the_same_request_joins_and_another_is_refused(current: Session, broker: Any) -> None:
    first = submit(current, job_of(radius=0.5))
    assert broker.llen("cpu") == 3
    assert submit(current, job_of(radius=0.5, created=9.0)).job == first.job
    with pytest.raises(NameTaken, match="under way"):
        submit(current, job_of(radius=0.8))


def test_a_broker_that_takes_nothing_is_said_in_one_line(
    current: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    import redis

    def refuse(*_: Any) -> None:
        raise redis.ConnectionError("Connection refused.")

    monkeypatch.setattr(client, "publish_job", refuse)
    with pytest.raises(TransientError, match=r"takes no messages \(Connection refused\)\. Run the same"):
        submit(current, job_of())


@pytest.mark.parametrize(
    ("kind", "parts", "processes", "wanted"),
    [
        ("cluster", 3, 8, LocalWorker(kind="cpu", processes=3)),
        ("cluster", 30, 8, LocalWorker(kind="cpu", processes=8)),
        ("generate", 2, 1, LocalWorker(kind="cpu", processes=1)),
        ("prepare", 0, 8, LocalWorker(kind="cpu", processes=1)),
        ("train", 0, 8, LocalWorker(kind="gpu")),
        ("predict", 9, 8, LocalWorker(kind="gpu")),
        ("predict", 0, 8, LocalWorker(kind="cpu", processes=1)),
        ("search", 5, 8, LocalWorker(kind="cpu", processes=5)),
    ],
)
def test_a_job_brings_no_more_workers_than_it_has_work_for(
    kind: str, parts: int, processes: int, wanted: LocalWorker
) -> None:
    assert workers_for(job_of(kind, parts=parts), processes) == [wanted]


def test_nobody_waits_for_workers_that_are_not_there(place: Workspace, monkeypatch: Any) -> None:
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)
    with pytest.raises(BadInput, match="--detach needs workers that stay"), session(place, [], detach=True):
        pass
    assert not is_up(place)
    with staying_up(place):
        assert is_up(place)
        with pytest.raises(BadInput, match="runs already"), staying_up(place):
            pass
    assert not is_up(place)


def pretended(worker: LocalWorker, name: str, *, seconds: float) -> RunningWorker:
    """A process that says after a while that it is a worker of that name, and does nothing."""
    path = redis_client().connection_pool.connection_kwargs["path"]
    then = f"import redis; redis.Redis(unix_socket_path={path!r}).sadd({READY_KEY!r}, {name!r})"
    source = f"import time; time.sleep({seconds}); {then}; time.sleep(60)"
    return RunningWorker(
        worker, name, subprocess.Popen([sys.executable, "-c", source], start_new_session=True)
    )


@pytest.mark.parametrize(("slow", "lines"), [(0.0, 1), (60.0, 0)])
def test_workers_that_take_long_to_start_are_told_of_once(
    place: Workspace, broker_url: str, broker: Any, monkeypatch: pytest.MonkeyPatch, slow: float, lines: int
) -> None:
    told: list[str] = []

    def launch(self: LocalWorkers, worker: LocalWorker) -> RunningWorker:
        return pretended(worker, "cpu-slow@here", seconds=0.5)

    monkeypatch.setattr(LocalWorkers, "_launch", launch)
    monkeypatch.setattr("tasks.workers.local._SLOW_SECONDS", slow)
    with local_workers(place, broker_url, [LocalWorker(kind="cpu")], told.append):
        assert len(told) == lines
    assert all("on their first time here they compile" in line for line in told)


def test_a_worker_that_is_started_again_is_not_taken_for_the_one_that_is_waited_for(
    place: Workspace, broker_url: str, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[RunningWorker] = []

    def launch(self: LocalWorkers, worker: LocalWorker) -> RunningWorker:
        if worker.kind == "gpu":
            launched[0].process.kill()
        seconds = 3.0 if worker.kind == "gpu" else 0.0
        launched.append(pretended(worker, f"{worker.kind}-{len(launched)}@here", seconds=seconds))
        return launched[-1]

    monkeypatch.setattr(LocalWorkers, "_launch", launch)
    with local_workers(place, broker_url, [LocalWorker(kind="cpu")]) as workers:
        workers.bring([LocalWorker(kind="gpu")], print)
        assert [one.worker.kind for one in launched] == ["cpu", "gpu", "cpu"]
        assert redis_client().smembers(READY_KEY) >= {"gpu-1@here", "cpu-2@here"}


def test_workers_that_died_often_in_one_stage_are_started_again_in_the_next(
    place: Workspace, broker_url: str, broker: Any
) -> None:
    workers = LocalWorkers(place, broker_url)
    workers._restarts = _MAX_RESTARTS + 1
    with pytest.raises(TransientError, match="keep dying"):
        workers.check()
    try:
        workers.bring([], print)
        workers.check()
    finally:
        workers.stop()


def test_a_worker_that_died_in_a_workspace_that_was_moved_is_told_of(
    place: Workspace, broker_url: str, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.create()
    begun = pretended(LocalWorker(kind="cpu"), "cpu-1@here", seconds=0.0)
    launch = LocalWorkers._launch
    monkeypatch.setattr(LocalWorkers, "_launch", lambda *_: begun)
    with local_workers(place, broker_url, [LocalWorker(kind="cpu")]) as workers:
        monkeypatch.setattr(LocalWorkers, "_launch", launch)
        place.root.rename(place.root.parent / "elsewhere")
        begun.process.kill()
        until = time.monotonic() + 30
        while not workers.given_up and time.monotonic() < until:
            time.sleep(0.1)
        with pytest.raises(TransientError, match=r"cannot be started again \(.*No such file"):
            workers.check()
    assert not place.root.exists()


def test_a_broker_that_dies_while_workers_start_is_told_in_one_line(
    place: Workspace, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)
    place.create()

    @contextlib.contextmanager
    def dies(workspace: Workspace, url: str, wanted: Any, say: Any) -> Iterator[LocalWorkers]:
        os.kill(read_json(place.broker / "server.json")["pid"], signal.SIGKILL)
        with local_workers(workspace, url, []) as workers:  # which asks who is up
            redis_client().smembers("lhcq:ready")
            yield workers

    monkeypatch.setattr("tasks.client.local_workers", dies)
    try:
        with (
            pytest.raises(TransientError, match="Run the same command again to go on") as caught,
            session(place, [LocalWorker(kind="cpu")]),
        ):
            pytest.fail("there is no broker")
        assert "the embedded broker went away" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    finally:
        connect(broker_url)


def test_a_job_that_others_end_while_it_is_asked_for_again_is_done_and_no_taken_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lhcq.cli.session import have_done

    place = Workspace(tmp_path)

    told = iter([False, True])
    monkeypatch.setattr("tasks.client.done_already", lambda *_: next(told))
    monkeypatch.setattr("tasks.client.mend_record", lambda *_: None)

    def taken(*_: object) -> None:
        raise NameTaken("it exists already")

    monkeypatch.setattr("tasks.client.refuse_taken_name", taken)
    waited = have_done(place, job_of("cluster"), [], measure=list, again="", wait=True)  # type: ignore[arg-type]
    assert (waited.code, waited.finished) == (0, True)
