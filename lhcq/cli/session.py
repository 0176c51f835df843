"""How a verb meets its workers, and how it waits for a job."""

import contextlib
import fcntl
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from lhcq.cli.options import answer
from lhcq.cli.progress import Update, progress
from lhcq.config import Settings
from lhcq.errors import BadInput, DiskFull, LhcqError, TransientError
from lhcq.workspace import Workspace
from tasks.observe.tracing import note_span

if TYPE_CHECKING:
    from tasks.jobs.store import Job, Outcome
    from tasks.workers.local import LocalWorker, LocalWorkers

INTERRUPTED = 130
_POLL_SECONDS = 0.2
_TROUBLE_EVERY_SECONDS = 2.0
_EMPTY_DISK_BYTES = 1 << 20
_TIDY_SECONDS = 20.0  # a run's last page takes two
EXIT_CODES = {"done": 0, "failed": 1, "incomplete": 3, "cancelled": 3}

Count = Callable[[], tuple[int, str]]
"""How much of a job is done, and a note."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A broker to publish to, and the local workers, if they are this command's own."""

    workspace: Workspace
    workers: "LocalWorkers | None"

    @property
    def lasting(self) -> bool:
        """Whether a job goes on when this command ends."""
        return self.workers is None


def open_workspace() -> Workspace:
    """The workspace that the environment names."""
    settings = Settings.from_environment()
    workspace = Workspace(settings.workspace, settings.data_roots)
    workspace.create()
    return workspace


@contextlib.contextmanager
def session(workspace: Workspace, wanted: "list[LocalWorker]", *, detach: bool = False) -> Iterator[Session]:
    """Meet the configured broker, or that of `lhcq up`, or bring a broker and the `wanted` workers."""
    from tasks.app import connect
    from tasks.broker.acceptance import ask_broker
    from tasks.broker.embedded import embedded_broker, running_broker
    from tasks.workers.local import local_workers

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
    with embedded_broker(workspace) as url:
        connect(url)
        with local_workers(workspace, url, wanted) as workers:
            yield Session(workspace=workspace, workers=workers)


def meet_broker(workspace: Workspace) -> bool:
    """Point at the broker of this workspace's jobs, to ask it; False where none answers."""
    from tasks.app import connect
    from tasks.broker.acceptance import ask_broker
    from tasks.broker.embedded import running_broker

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


def default_processes() -> int:
    """One worker process a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def stop_at_signals(stop: threading.Event) -> None:
    """Set `stop` at Ctrl-C, SIGTERM and, unless it is ignored (nohup), SIGHUP: a service that ends so ends well."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())


@contextlib.contextmanager
def staying_up(workspace: Workspace) -> Iterator[None]:
    """Tell other commands of this workspace that `lhcq up` keeps workers for them."""
    from tasks.broker.embedded import try_lock

    with _up_lock(workspace) as lock:
        if not try_lock(lock, fcntl.LOCK_EX):
            raise BadInput(f"`lhcq up` runs already for {workspace.root}.")
        yield


def is_up(workspace: Workspace) -> bool:
    """Whether `lhcq up` runs for this workspace; the kernel drops its lock when it dies."""
    from tasks.broker.embedded import try_lock

    with _up_lock(workspace) as lock:
        return not try_lock(lock, fcntl.LOCK_SH)


def _up_lock(workspace: Workspace) -> IO[str]:
    workspace.broker.mkdir(mode=0o700, parents=True, exist_ok=True)
    return (workspace.broker / "up.lock").open("a")


def check_room(place: Path, needed: int) -> None:
    """Refuse before anything starts when `place` has fewer than `needed` bytes left."""
    existing = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise DiskFull(
            f"{place}: no space left on the device: about {needed / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free. "
            "Free some space, or set LHCQ_WORKSPACE to a larger disk."
        )


@dataclass(frozen=True, kw_only=True)
class Waited:
    """What came of a job that was published."""

    code: int
    """The command's exit code; why it is not 0 has been printed."""
    seconds: float = 0.0
    """From publishing to the outcome."""
    finished: bool = True
    """False when nobody waited."""


def run_job(
    current: Session, request: "Job", *, total: int, unit: str, count: Count, again: str, wait: bool
) -> Waited:
    """Record and publish a job, and wait for its outcome unless told not to."""
    from tasks.engine.publish import publish_job
    from tasks.jobs.store import create_job

    job = create_job(current.workspace, request)

    def publish() -> None:
        publish_job(current.workspace, job)

    return follow_job(current, job, publish, total=total, unit=unit, count=count, again=again, wait=wait)


def follow_job(
    current: Session,
    job: "Job",
    publish: Callable[[], None],
    *,
    total: int,
    unit: str,
    count: Count,
    again: str,
    wait: bool,
) -> Waited:
    """Publish what a recorded job needs, and wait for its outcome unless told not to."""
    started = time.monotonic()
    note_span(job=job.title)
    try:
        _publish(current, publish)
        if not wait:
            return Waited(code=0, finished=False)
        with progress(job.title, total, unit) as update:
            outcome = _wait(current, job, count, update)
    except KeyboardInterrupt:
        where = (
            f"{job.title} goes on. `lhcq status` shows it."
            if current.lasting
            else f"{job.title} stopped; what is finished is kept. {again}"
        )
        click.echo(f"\n{where}", err=True)
        return Waited(code=INTERRUPTED)
    with contextlib.suppress(KeyboardInterrupt):  # the job is done
        if current.workers:
            _let_tidy_up(job)
    code = _tell_end(current.workspace, job, outcome, again)
    return Waited(code=code, seconds=time.monotonic() - started)


def _publish(current: Session, publish: Callable[[], None]) -> None:
    """Publish, or say in one line why the broker takes nothing."""
    import kombu.exceptions
    import redis

    try:
        publish()
    except (kombu.exceptions.OperationalError, redis.RedisError) as error:
        _refuse_full_disk(current.workspace)  # the broker's log stands there, if it is the embedded one
        raise TransientError(
            f"the broker takes no messages ({str(error).rstrip('.')}). Run the same command again to go on."
        ) from error


def _tell_end(workspace: Workspace, job: "Job", outcome: "Outcome | None", again: str) -> int:
    """Say why a job did not end well; gives the exit code."""
    from tasks.jobs.store import failures_of

    if outcome is None:
        _say_end(job, "paused", f"{job.title} is paused. `lhcq resume {job.name}` goes on.")
        return EXIT_CODES["incomplete"]
    if outcome.state != "done":
        # Where every unit ended, the same command would end the same way, and the message says what helps.
        unfinished = outcome.state == "incomplete" and failures_of(workspace, job)
        remedy = f" {again}" if unfinished else ""
        _say_end(job, outcome.state, f"{outcome.message}{remedy}")
    return EXIT_CODES[outcome.state]


def _say_end(job: "Job", state: str, message: str) -> None:
    """Say it to people, and to a script that asked the verb for JSON."""
    click.echo(f"lhcq: {message}", err=True)
    if click.get_current_context().params.get("as_json"):
        answer(True, {"job": job.title, "state": state, "message": message}, "")


def _wait(current: Session, job: "Job", count: Count, update: Update) -> "Outcome | None":
    """Wait for the outcome; None when the run was paused."""
    from lhcq.records.run_control import is_paused
    from tasks.broker.connection import redis_client
    from tasks.jobs.leases import is_leased
    from tasks.jobs.planner import segment_unit
    from tasks.jobs.store import outcome_of

    asked = time.monotonic()
    told = ""
    while (outcome := outcome_of(current.workspace, job)) is None:
        paused = job.kind == "train" and is_paused(
            current.workspace, job.name, last_step=job.spec["checkpoint_steps"][-1]
        )
        if paused and not is_leased(redis_client(), segment_unit(job.name).key):
            return None  # the trainer has noticed
        if current.workers:
            current.workers.check()
        if time.monotonic() - asked > _TROUBLE_EVERY_SECONDS:
            asked = time.monotonic()
            told = _tell_trouble(current, job, told)
        update(*count())
        time.sleep(_POLL_SECONDS)
    update(*count())
    return outcome


def _let_tidy_up(job: "Job") -> None:
    """Leave our workers the time to end the unit that ended the job: it writes a run's last page, removes parts."""
    import redis

    from tasks.broker.connection import redis_client
    from tasks.jobs.leases import is_leased
    from tasks.jobs.planner import last_unit

    deadline = time.monotonic() + _TIDY_SECONDS
    with contextlib.suppress(redis.RedisError):
        while is_leased(redis_client(), last_unit(job).key) and time.monotonic() < deadline:
            time.sleep(0.05)


def _tell_trouble(current: Session, job: "Job", told: str) -> str:
    """Show a new trouble once; a full disk ends the waiting, since only the user can mend it."""
    import redis

    from tasks.jobs.attempts import trouble_of

    try:
        trouble = trouble_of(job)
    except redis.RedisError as error:
        _refuse_full_disk(current.workspace)
        if not current.lasting:
            raise TransientError(
                f"the embedded broker does not answer ({error}); see {current.workspace.broker}."
            ) from error
        return told
    _refuse_full_disk(current.workspace)
    if trouble is None or trouble[1] == told:
        return told
    full, message = trouble
    if full:
        raise DiskFull(message)
    click.echo(f"lhcq: {message} (it will be tried again)", err=True)
    return message


def _refuse_full_disk(workspace: Workspace) -> None:
    if shutil.disk_usage(workspace.root).free < _EMPTY_DISK_BYTES:
        raise DiskFull(
            f"{workspace.root}: no space left on the device. Free some space and run the same command again."
        )


def relative_to_workspace(path: Path, workspace: Workspace) -> str:
    """`path` as the workspace's other machines find it: relative to the root when it is inside."""
    workspace.permitted(path)
    return str(path.relative_to(workspace.root) if path.is_relative_to(workspace.root) else path)
