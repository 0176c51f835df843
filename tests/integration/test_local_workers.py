"""How the workers of a command end."""

import signal
from pathlib import Path

import pytest

from lhcq.workspace import Workspace
from tasks.workers import lifecycle, local
from tasks.workers.local import LocalWorker, LocalWorkers


def test_one_without_work_ends_by_itself_and_leaves_no_directory(
    broker, broker_url: str, place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(local, "_STOP_SECONDS", 120.0)  # the command would not end it sooner
    workers = LocalWorkers(place, broker_url)
    try:
        workers.bring([LocalWorker(kind="validate")], print)  # it compiles nothing
        (one,) = workers._running
        assert list(temporary.iterdir())  # as billiard has it: one that is killed leaves it
    finally:
        workers.stop()
    assert one.process.returncode == -signal.SIGKILL  # in order, it would be 0, and take three seconds
    assert not list(temporary.iterdir())


def test_one_with_work_ends_it_first_and_what_follows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([True, True, False, True, False, False])
    left: list[bool] = []
    monkeypatch.setattr(lifecycle, "at_work", lambda: next(looks))
    monkeypatch.setattr(lifecycle, "_leave_at_once", lambda: left.append(True))
    lifecycle._leave_once_idle()
    assert left == [True]
    assert next(looks, None) is None
