"""A process that is being started when Ctrl-C comes is known to whoever stops it."""

import os
import signal
import subprocess
import sys
import threading
import tomllib
import types
from pathlib import Path
from typing import Any

import click
import pytest

from lhcq.cli.session import INTERRUPTED, have_all_done, telling_what_is_left
from lhcq.interrupts import heard, held_back
from lhcq.records.failures import stop_of
from lhcq.records.jobs import Job, end_job, load_job
from lhcq.workspace import Workspace
from tasks.jobs.store import create_job
from tasks.workers.local import LocalWorker, LocalWorkers
from tests.specs import job_of


def test_the_body_ends_before_ctrl_c_is_heard() -> None:
    ended = False

    def body() -> None:
        nonlocal ended
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
            ended = True

    with pytest.raises(KeyboardInterrupt):
        body()
    assert ended
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_no_signal_is_no_interruption() -> None:
    with held_back():
        held = signal.getsignal(signal.SIGINT)
    assert held is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_may_start_processes() -> None:
    found: list[Any] = []

    def start() -> None:
        with held_back():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_a_worker_is_stopped_that_was_being_started_when_ctrl_c_came(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    children: list[subprocess.Popen[bytes]] = []

    start = subprocess.Popen

    def interrupted(_: list[str], **options: Any) -> "subprocess.Popen[bytes]":
        children.append(start(["sleep", "60"], **options))
        os.kill(os.getpid(), signal.SIGINT)  # where the child is there and nothing holds it yet
        return children[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    workers = LocalWorkers(Workspace(tmp_path), "redis://localhost")
    with pytest.raises(KeyboardInterrupt):
        workers.bring([LocalWorker(kind="cpu")], lambda _: None)
    workers.stop()
    assert children[0].poll() == -signal.SIGTERM


class Interrupted:
    """What a class holds that is being made when Ctrl-C comes, as in the middle of an import."""

    def __set_name__(self, owner: type, name: str) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_is_heard_though_an_import_made_another_error_of_it() -> None:
    with pytest.raises(KeyboardInterrupt), heard():
        type("Made", (), {"attribute": Interrupted()})


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="of something else"), heard():
        raise RuntimeError("of something else") from ValueError()


def test_a_job_that_is_interrupted_in_an_import_says_what_was_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        pytest.raises(click.exceptions.Exit) as ended,
        telling_what_is_left(Workspace(tmp_path), job_of("cluster"), "Run it again."),
    ):
        type("Made", (), {"attribute": Interrupted()})
    assert ended.value.exit_code == INTERRUPTED
    assert "was not begun: nothing of it was made. Run it again." in capsys.readouterr().err


@pytest.mark.parametrize(
    "made", ["", "except KeyboardInterrupt as error:\n raise RuntimeError('odd') from error"]
)
def test_ctrl_c_while_the_program_loads_is_no_traceback(tmp_path: Path, made: str) -> None:
    kill = "import os, signal, time\ntry:\n os.kill(os.getpid(), signal.SIGINT)\n time.sleep(9)\n"
    (tmp_path / "click.py").write_text(kill + (made or "finally:\n pass"))
    ended = subprocess.run(
        [sys.executable, "-m", "lhcq", "status"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (INTERRUPTED, "")


def test_the_program_that_is_installed_is_the_one_that_hears_it() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"lhcq": "lhcq.__main__:main"}


@pytest.mark.parametrize("when", ["the second is published", "the first is waited for"])
def test_of_jobs_side_by_side_each_is_told_why_nobody_works_for_it(
    here: Workspace, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    jobs = [job_of("cluster", name) for name in ("one", "two", "three")]

    class Waiting:
        def wait(self, *_: Any, **__: Any) -> None:
            end_job(here, load_job(here, "cluster", "three"), "done", "3 events")
            raise KeyboardInterrupt

    def publish(_: Any, job: Job) -> Waiting:
        create_job(here, job)
        if job.name == "two" and when == "the second is published":
            raise KeyboardInterrupt
        return Waiting()

    monkeypatch.setattr("tasks.client.submit", publish)
    session: Any = types.SimpleNamespace(workspace=here, lasting=False, bring=lambda *_: None)
    with pytest.raises(click.exceptions.Exit) as ended:
        have_all_done(here, jobs, [], lambda: session)
    assert ended.value.exit_code == INTERRUPTED
    told = [stop_of(here, job) for job in jobs]
    assert [one and one.message.startswith("Ctrl-C") for one in told] == [True, True, None]


def test_ctrl_c_in_a_finalizer_ends_the_command_all_the_same() -> None:
    program = """
import signal, sys, time
from lhcq.cli.main import Signals
from lhcq.interrupts import hear_in_finalizers
class Finalized:
    def __del__(self):
        signal.raise_signal(int(sys.argv[1]))  # Python prints what is raised here
Signals()
hear_in_finalizers()
try:
    Finalized()
    time.sleep(60)
except KeyboardInterrupt:
    print("heard")
"""
    for number in (signal.SIGINT, signal.SIGTERM):
        done = subprocess.run(
            [sys.executable, "-c", program, str(int(number))],
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
        assert (done.stdout, done.stderr) == ("heard\n", "")
