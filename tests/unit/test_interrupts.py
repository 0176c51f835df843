"""A process that is being started when Ctrl-C comes is known to whoever stops it."""

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import click
import pytest

from lhcq.cli.session import INTERRUPTED, telling_what_is_left
from lhcq.interrupts import heard, held_back
from lhcq.workspace import Workspace
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
