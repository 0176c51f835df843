"""How a job is had done: a broker and workers for it, its publishing, and the waiting for its outcome.

A verb and a program do the same; this prints nothing, and asks nobody.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import kombu.exceptions
import redis

from lhcq.environment import Settings
from lhcq.errors import BadInput, DiskFull, LhcqError, NotThere, TransientError
from lhcq.records.failures import failures_of
from lhcq.records.job_control import is_paused
from lhcq.records.jobs import Job, Outcome, find_job, outcome_of
from lhcq.storage import clear_set_aside, is_full, lock_file
from lhcq.workspace import Workspace
from tasks.app import app, connect, own_workspace
from tasks.broker.acceptance import ask_broker
from tasks.broker.connection import redis_client
from tasks.broker.embedded import embedded_broker, running_broker
from tasks.engine.publish import publish_job, retry_units
from tasks.jobs.attempts import trouble_of
from tasks.jobs.kinds import kind_of, named_chunk, queue_of, queues_of_job, result_of
from tasks.jobs.leases import LEASE_SECONDS, NoLease, is_any_leased, is_leased
from tasks.jobs.planner import pending_units
from tasks.jobs.progress import Progress, events_done, progress_of
from tasks.jobs.store import (
    create_job,
    done_already,
    mend_outcome,
    mend_record,
    refuse_taken_name,
    refuse_used_name,
    renew_terms,
    reopen_job,
    require_open,
)
from tasks.jobs.train import segment_unit
from tasks.jobs.units import Unit, unit_of_key
from tasks.observe.tracing import note_span
from tasks.workers.lifecycle import IDLE_VARIABLE
from tasks.workers.local import (
    LocalWorker,
    LocalWorkers,
    WorkerKind,
    local_workers,
    queues_of,
    worker_command,
    worker_environment,
)

__all__ = [
    "IDLE_VARIABLE",
    "Following",
    "LocalWorker",
    "Progress",
    "Session",
    "Unit",
    "WorkerKind",
    "app",
    "ask_broker",
    "await_workers",
    "connect",
    "default_processes",
    "do_here",
    "done_already",
    "embedded_broker",
    "events_done",
    "explained_silence",
    "is_at_work",
    "is_up",
    "local_workers",
    "meet_broker",
    "mend_outcome",
    "mend_record",
    "named_chunk",
    "own_workspace",
    "pending_units",
    "progress_of",
    "queue_of",
    "queues_of",
    "refuse_taken_name",
    "refuse_used_name",
    "renew_terms",
    "reopen_job",
    "require_open",
    "result_of",
    "running_broker",
    "session",
    "staying_up",
    "submit",
    "try_again",
    "unit_of_key",
    "worker_command",
    "worker_environment",
    "workers_for",
]
"""All of `tasks` by which a verb or a program has work done. What they look at it with is `tasks.observe`,
`tasks.doctor` and `tasks.workers.flower`; what they clear away, `tasks.jobs.holdings` and `tasks.jobs.leftovers`."""

_POLL_SECONDS = 0.2
_TROUBLE_EVERY_SECONDS = 2.0
_NOTICE_SECONDS = 2 * LEASE_SECONDS  # a worker that was killed keeps its lease for one
_TIDY_SECONDS = 20.0  # a run's last page takes two

Measure = Callable[[], Progress]
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Session:
    """A broker to publish to, and the local workers, if they are this program's own."""

    workspace: Workspace
    workers: LocalWorkers | None

    @property
    def lasting(self) -> bool:
        """Whether a job goes on when this program ends."""
        return self.workers is None

    def bring(self, wanted: list[LocalWorker], say: Tell = lambda _: None) -> None:
        """Start workers of this program's own of the kinds that are not there yet; those of others are not asked."""
        if self.workers is not None:
            self.workers.bring(wanted, say)


@contextlib.contextmanager
def session(
    workspace: Workspace, wanted: list[LocalWorker], *, detach: bool = False, say: Tell = lambda _: None
) -> Iterator[Session]:
    """Meet the configured broker, or that of `lhcq up`, or bring a broker and the `wanted` workers.

    `detach`: nobody will wait, so workers have to be there already. `say` is told where their start takes long.
    """
    url = Settings.from_environment().broker_url or (running_broker(workspace) if is_up(workspace) else None)
    if url:
        connect(url)
        ask_broker(workspace)
        yield Session(workspace=workspace, workers=None)
        return
    if detach:
        raise BadInput(
            "--detach needs workers that stay: start `lhcq up` in another terminal, or set LHCQ_BROKER_URL."
        )
    with embedded_broker(workspace) as url, explained_silence(workspace):
        connect(url)
        with local_workers(workspace, url, wanted, say) as workers:
            yield Session(workspace=workspace, workers=workers)


@contextlib.contextmanager
def explained_silence(workspace: Workspace) -> Iterator[None]:
    """Say in one line that the embedded broker went away, whatever was asked of it just then."""
    try:
        yield
    except (kombu.exceptions.OperationalError, redis.ConnectionError, redis.TimeoutError) as error:
        _refuse_full_disk(workspace)
        raise TransientError(
            f"the embedded broker went away ({str(error).rstrip('.')}); its log is {workspace.broker}/valkey.log. "
            "Run the same command again to go on."
        ) from error


def meet_broker(workspace: Workspace) -> bool:
    """Point at the broker of this workspace's jobs, to ask it; False where none answers."""
    url = Settings.from_environment().broker_url or running_broker(workspace)
    if url is None:
        return False
    try:
        connect(url)
        ask_broker(workspace)
    except LhcqError:
        connect("")
        return False
    return True


def await_workers(workspace: Workspace, job: Job) -> None:
    """Wait until nobody works for a job that ended or was removed, as far as a broker tells; not for ever."""
    if not meet_broker(workspace):
        return
    deadline = time.monotonic() + _NOTICE_SECONDS
    with contextlib.suppress(redis.RedisError):
        while is_at_work(job) and time.monotonic() < deadline:
            time.sleep(0.1)


def is_at_work(job: Job) -> bool:
    """Whether a worker of the broker has a unit of a job in its hands."""
    return is_any_leased(redis_client(), kind_of(job).queues, job.name)


@contextlib.contextmanager
def staying_up(workspace: Workspace) -> Iterator[None]:
    """Tell other commands of this workspace that `lhcq up` keeps workers for them."""
    workspace.broker.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _up_lock(workspace).open("a") as lock:
        if not lock_file(lock, wait=False):
            raise BadInput(f"`lhcq up` runs already for {workspace.root}.")
        yield


def is_up(workspace: Workspace) -> bool:
    """Whether `lhcq up` runs for this workspace; the kernel drops its lock when it dies."""
    try:
        with _up_lock(workspace).open() as lock:
            return not lock_file(lock, shared=True, wait=False)
    except (FileNotFoundError, PermissionError):  # of another user it is none that could be used
        return False


def _up_lock(workspace: Workspace) -> Path:
    return workspace.broker / "up.lock"


def workers_for(job: Job, processes: int | None = None, *, units: int | None = None) -> list[LocalWorker]:
    """The workers of this program's own that a job needs: not more processes than it has units."""
    queues = queues_of_job(job)
    workers = [LocalWorker(kind="gpu")] if queues - {"cpu"} else []
    if "cpu" in queues:
        most = units or max(1, job.parts)
        workers.append(LocalWorker(kind="cpu", processes=min(processes or default_processes(), most)))
    return workers


def default_processes() -> int:
    """One worker process a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def submit(current: Session, request: Job) -> "Following":
    """Record and publish a job, or join the one of that name that asks for the same thing."""
    job = create_job(current.workspace, request)
    return _publish(current, job, lambda: publish_job(current.workspace, job))


def try_again(current: Session, job: Job, units: list[Unit]) -> "Following":
    """Publish units of a job that were given up, and no others."""
    return _publish(current, job, lambda: retry_units(current.workspace, job, units))


def _publish(current: Session, job: Job, publish: Callable[[], object]) -> "Following":
    """Publish, or say in one line why the broker takes nothing."""
    began = time.monotonic()
    note_span(job=job.title)
    try:
        publish()
    except (kombu.exceptions.OperationalError, redis.RedisError) as error:
        _refuse_full_disk(current.workspace)  # the broker's log stands there, if it is the embedded one
        raise TransientError(
            f"the broker takes no messages ({str(error).rstrip('.')}). Run the same command again to go on."
        ) from error
    return Following(current, job, began)


class Following:
    """A job that was published, and the waiting for it."""

    def __init__(self, current: Session, job: Job, began: float) -> None:
        self.job = job
        self._current = current
        self._began = began

    @property
    def seconds(self) -> float:
        """Since it was published."""
        return time.monotonic() - self._began

    def wait(
        self,
        measure: Measure | None = None,
        on_progress: Callable[[Progress], None] = lambda _: None,
        on_trouble: Tell = lambda _: None,
    ) -> Outcome | None:
        """Wait for the outcome; None when the job was paused.

        Now and then `on_progress` is told how far it is, and `on_trouble` each new trouble that will be tried again.
        Raises `DiskFull` once only the user can help, `NotThere` when the job was removed, and `TransientError` when
        this program's workers or broker die.
        """
        workspace, job = self._current.workspace, self.job
        measure = measure or (lambda: progress_of(workspace, job))
        asked, told = time.monotonic(), ""
        while (outcome := outcome_of(workspace, job)) is None:
            if self._is_paused():
                return None
            if self._current.workers:
                self._current.workers.check()
            if time.monotonic() - asked > _TROUBLE_EVERY_SECONDS:
                asked = time.monotonic()
                if find_job(workspace, job.kind, job.name) is None:
                    raise NotThere(f"{job.title} was removed while it was waited for.")
                told = self._tell_trouble(told, on_trouble)
            on_progress(measure())
            time.sleep(_POLL_SECONDS)
        on_progress(measure())
        return outcome

    def tidy_up(self) -> None:
        """Leave our workers the time to end the unit that ended the job: of a run it writes a page yet."""
        if self._current.workers is None:
            return
        deadline = time.monotonic() + _TIDY_SECONDS
        last = kind_of(self.job).last(self.job)
        with contextlib.suppress(redis.RedisError):
            while is_leased(redis_client(), last.key) and time.monotonic() < deadline:
                time.sleep(0.05)

    def can_be_tried_again(self, outcome: Outcome) -> bool:
        """Whether the same request would go on; where every unit ended, it would end the same way."""
        return outcome.state == "incomplete" and bool(failures_of(self._current.workspace, self.job))

    def _is_paused(self) -> bool:
        """Whether the job was paused, and who works for it has noticed."""
        job = self.job
        if not is_paused(self._current.workspace, job):
            return False
        try:
            if job.kind == "train":  # validations go on
                return not is_leased(redis_client(), segment_unit(job.name).key)
            return not is_at_work(job)
        except redis.RedisError:  # whoever looks for trouble tells that it is away
            return False

    def _tell_trouble(self, told: str, on_trouble: Tell) -> str:
        """Tell a new trouble once; a full disk ends the waiting, since only the user can mend it."""
        try:
            trouble = trouble_of(self.job)
        except redis.RedisError as error:
            _refuse_full_disk(self._current.workspace)
            if not self._current.lasting:
                raise TransientError(
                    f"the embedded broker does not answer ({error}); see {self._current.workspace.broker}."
                ) from error
            return told
        _refuse_full_disk(self._current.workspace)
        if trouble is None or trouble[1] == told:
            return told
        full, message = trouble
        if full:
            raise DiskFull(message)
        on_trouble(message)
        return message


def _refuse_full_disk(workspace: Workspace) -> None:
    if is_full(workspace.root):
        raise DiskFull(
            f"{workspace.root}: no space left on the device. Free some space and run the same command again."
        )


def do_here(
    workspace: Workspace, request: Job, on_progress: Callable[[Progress], None] = lambda _: None
) -> Outcome:
    """Have a job done in this process, one unit after the other, without a broker: the same units, the same bytes.

    Nobody else may be at it. What a unit raises is raised, and what is finished stays: asked for again, it goes on.
    """
    job = create_job(workspace, request)
    app.loader.import_default_modules()
    while (outcome := outcome_of(workspace, job)) is None:
        units = pending_units(workspace, job)
        if not units:
            raise BadInput(f"{job.title} waits for a person. `lhcq why {job.name}` tells more.")
        for unit in units:
            app.tasks[unit.task].work(workspace, job, unit, NoLease())
            on_progress(progress_of(workspace, job))
    clear_set_aside(workspace.jobs)
    return outcome
