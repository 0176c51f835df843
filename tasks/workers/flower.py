"""Flower on loopback, with a login that is made on first use."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhcq.errors import BadInput, TransientError
from lhcq.interrupts import held_back
from lhcq.storage import explained_os_errors, lock_file, remove_file, rotate, write_text
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.workers.lifecycle import PARENT_VARIABLE, leave_with_parent
from tasks.workers.local import worker_environment
from tasks.workers.login import kept_login

DEFAULT_PORT = 5555
_START_SECONDS = 30.0
_SAVE_MILLISECONDS = 30_000
_LOGIN_VARIABLE = "FLOWER_BASIC_AUTH"
API_VARIABLE = "FLOWER_UNAUTHENTICATED_API"
_ADDRESS = "address"
_COLUMNS = "name,args,kwargs,state,started,runtime,worker"
_GONE_SECONDS = 60
"""After how long without a heartbeat, which comes every two seconds, a worker leaves Flower's pages and metrics.

One that was killed takes no leave, and would count as online for as long as Flower runs.
"""


@dataclass(frozen=True, kw_only=True)
class Flower:
    """Where Flower is, and how to enter."""

    url: str
    login: str
    login_file: Path
    process: "subprocess.Popen[bytes]"
    log: Path

    def check(self) -> None:
        """Raise when it has ended."""
        if self.process.poll() is not None:
            raise TransientError(f"Flower ended; see {self.log}.")


@contextlib.contextmanager
def local_flower(workspace: Workspace, broker_url: str, port: int | None) -> Iterator[Flower]:
    """Run Flower for the body; one at a time, since it keeps its state in the workspace."""
    state = _private_state(workspace)
    with (state / "lock").open("a") as lock:
        if not lock_file(lock, wait=False):
            raise BadInput(f"Flower runs already for {workspace.root}.")
        yield from _run_flower(workspace, broker_url, port, state)


def _run_flower(workspace: Workspace, broker_url: str, port: int | None, state: Path) -> Iterator[Flower]:
    address = _choose_port(port)
    login_file = workspace.flower_login
    login = kept_login(login_file)
    environment = worker_environment(workspace, broker_url, "gpu")
    environment[_LOGIN_VARIABLE] = login  # not an argument: `ps` would show it
    environment[PARENT_VARIABLE] = str(os.getpid())
    workspace.logs.mkdir(parents=True, exist_ok=True)
    log = workspace.logs / "flower.log"
    rotate(log)
    order = [
        *(sys.executable, "-P", "-m", "tasks", "flower", "--address=127.0.0.1", f"--port={address}"),
        *("--persistent=True", f"--db={state / 'state'}", f"--state_save_interval={_SAVE_MILLISECONDS}"),
    ]
    url = f"http://127.0.0.1:{address}"
    process: subprocess.Popen[bytes] | None = None
    try:
        with held_back(), log.open("ab") as output:
            process = subprocess.Popen(
                order,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        _await_port(process, address, log)
        write_text(state / _ADDRESS, url)
        yield Flower(url=url, login=login, login_file=login_file, process=process, log=log)
    finally:
        remove_file(state / _ADDRESS)
        if process is not None:
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def flower_address(workspace: Workspace) -> str | None:
    """Where Flower answers for this workspace on this host; None where it does not, or is another user's."""
    with contextlib.suppress(OSError, ValueError):
        url = (workspace.flower / _ADDRESS).read_text("utf-8")
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=0.5):
            return url
    return None


def _private_state(workspace: Workspace) -> Path:
    """Where Flower keeps what it has seen. It is a pickle, so nobody else may write there."""
    directory = workspace.flower
    with explained_os_errors(directory):
        directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise BadInput(
            f"{directory}: must be a directory of yours with mode 0700. Move it elsewhere and start again."
        )
    return directory


def _choose_port(wanted: int | None) -> int:
    """The wanted port, or the default one, or a free one."""
    for candidate in [wanted] if wanted else [DEFAULT_PORT, 0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", candidate))
                return int(probe.getsockname()[1])
    raise BadInput(f"port {wanted} is taken. Choose another with --port.")


def _await_port(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise TransientError(f"Flower did not start; see {log}.")
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TransientError(f"Flower did not answer within {_START_SECONDS:.0f} s; see {log}.")


def run_flower(arguments: list[str]) -> None:
    """Run Flower with options of its own, for as long as the command that started it lives."""
    import click
    from celery.bin.base import CLIContext
    from celery.bin.celery import celery
    from flower.command import flower

    for name in foreign_variables():
        del os.environ[name]
    leave_with_parent()
    count_own_events()
    close_metrics()
    if not any(argument.startswith("--conf") for argument in arguments):
        arguments = [f"--conf={os.devnull}", *arguments]  # else it runs a `flowerconfig.py` of this directory
    celery_context = click.Context(celery, obj=CLIContext(app=app, no_color=True, workdir=None))
    own = [f"--tasks_columns={_COLUMNS}", f"--purge_offline_workers={_GONE_SECONDS}"]
    flower.main(args=[*own, *arguments], prog_name="flower", parent=celery_context)


def foreign_variables() -> list[str]:
    """Flower's options in the environment, of another project: they outrank what our command line does not say."""
    return sorted(
        name
        for name in os.environ
        if name.startswith("FLOWER_") and name not in (_LOGIN_VARIABLE, API_VARIABLE)
    )


def count_own_events() -> None:
    """Have Flower's metrics count lhcq's own events by run; by itself it counts those of tasks alone."""
    import flower.events

    class OwnMetrics(flower.events.PrometheusMetrics):
        def observe_worker(self, worker: str, event: dict[str, Any]) -> None:
            super().observe_worker(worker, event)
            if event["type"].startswith("lhcq-"):
                self.events.labels(worker, event["type"], str(event.get("run", ""))).inc()

    flower.events.PrometheusMetrics = OwnMetrics


def close_metrics() -> None:
    """Have Flower ask for its login before it tells its metrics, as it does everywhere else."""
    from flower.views.monitor import Metrics
    from tornado.web import authenticated

    Metrics.get = authenticated(Metrics.get)
