"""A process that is being started when Ctrl-C comes is known to whoever stops it."""

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from lhcq.interrupts import held_back
from lhcq.workspace import Workspace
from tasks.workers.local import LocalWorker, LocalWorkers


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
