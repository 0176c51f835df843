"""A worker with a spawned child, started where modules of the user's lie: they are never run."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from lhcq.workspace import Workspace
from tasks.workers.local import worker_command, worker_environment

USERS = ("tasks", "random", "pickle", "billiard", "kombu", "redis", "lhcq")


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_what_a_worker_starts_takes_nothing_from_the_current_directory(
    broker, broker_url: str, tmp_path: Path, until, start_method: str
) -> None:
    for name in USERS:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / f'{name}-ran')!r}, 'w').close()\n")
    place = Workspace(tmp_path / "workspace")
    place.create()
    command = worker_command("cpu", processes=1, name="one@here")
    command[command.index("fork")] = start_method
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=worker_environment(place, broker_url, "cpu"),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        until(lambda: broker.scard("lhcq:ready") == 1, "the worker to be up")
        child = "child process" if start_method == "spawn" else ""
        logs = (tmp_path / "worker.log", place.logs / f"cpu-{os.uname().nodename}.log")
        until(lambda: any(child in path.read_text() for path in logs if path.exists()), "its child")
        assert not list(tmp_path.glob("*-ran"))
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
