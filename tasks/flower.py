"""Flower on loopback, with a login that is made on first use."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lhcq.config import Frozen
from lhcq.errors import BadInput, TransientError
from lhcq.workspace import Workspace
from tasks.duty import PARENT_VARIABLE, leave_with_parent
from tasks.workers import worker_environment

DEFAULT_PORT = 5555
_START_SECONDS = 30.0


class Flower(Frozen):
    """Where Flower is, and how to enter."""

    url: str
    login: str
    login_file: Path


@contextlib.contextmanager
def local_flower(workspace: Workspace, broker_url: str, port: int | None) -> Iterator[Flower]:
    """Run Flower for the body."""
    address = _choose_port(port)
    login_file = workspace.root / "flower-login"
    flower = Flower(url=f"http://127.0.0.1:{address}", login=_login(login_file), login_file=login_file)
    environment = worker_environment(workspace, broker_url, "gpu")
    environment["FLOWER_BASIC_AUTH"] = flower.login  # not an argument: `ps` would show it
    environment[PARENT_VARIABLE] = str(os.getpid())
    workspace.logs.mkdir(parents=True, exist_ok=True)
    with (workspace.logs / "flower.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks.flower", "--address=127.0.0.1", f"--port={address}"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _await_port(process, address, workspace.logs / "flower.log")
        yield flower
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _login(path: Path) -> str:
    """`user:password`, the same each time; the file is for its owner alone."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(f"lhcq:{secrets.token_urlsafe(12)}\n")
    return path.read_text("utf-8").strip()


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


def main() -> None:
    """Run Flower with the arguments of this program, for as long as the command that started it lives."""
    from celery.__main__ import main as celery

    leave_with_parent()
    sys.argv = ["celery", "--app", "tasks.app", "flower", *sys.argv[1:]]
    celery()


if __name__ == "__main__":
    main()
