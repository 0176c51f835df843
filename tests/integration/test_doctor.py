"""`lhcq doctor` asks real workers to prove what they share."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lhcq.workspace import Workspace
from tasks.broker.connection import CLAIM_KEY


@pytest.fixture
def start_worker(broker_url: str) -> Iterator[Callable[..., None]]:
    """Start a worker that has no pool: it answers questions alone."""
    started = []

    def start(name: str, workspace: Path) -> None:
        environment = {**os.environ, "LHCQ_BROKER_URL": broker_url, "LHCQ_WORKSPACE": str(workspace)}
        command = [sys.executable, "-m", "celery", "-A", "tasks.app", "worker", "--hostname", f"{name}@here"]
        started.append(
            subprocess.Popen(
                [*command, "--queues", "validate", "--pool", "solo", "--events", "--without-mingle"],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def by_check(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["check"]: finding for finding in told["findings"]}


def test_a_worker_of_a_copied_workspace_is_found_and_one_that_shares_it_proves_so(
    lhcq, broker, broker_url: str, start_worker, until, tmp_path: Path
) -> None:
    Workspace(lhcq.workspace).create()
    claim = {"workspace": Workspace(lhcq.workspace).identity(), "seen": f"far:{tmp_path / 'far'}"}
    assert claim["workspace"]
    broker.set(CLAIM_KEY, json.dumps(claim))  # of a host from which nobody here sees that the two are not one
    shutil.copytree(lhcq.workspace, tmp_path / "elsewhere")
    start_worker("sharing", lhcq.workspace)
    start_worker("other", tmp_path / "elsewhere")
    until(lambda: broker.scard("lhcq:ready") == 2, "both workers to be up")

    done = lhcq.run("doctor", "--json", code=1, LHCQ_BROKER_URL=broker_url)
    told = json.loads(done.stdout)
    assert told["loses_work"]
    found = [finding for finding in told["findings"] if finding["check"] == "workspace"]
    assert [finding["state"] for finding in found] == ["error", "ok"]
    assert f"other@here does not share {lhcq.workspace}" in found[0]["found"]
    assert str(tmp_path / "elsewhere") in found[0]["found"]
    assert "LHCQ_WORKSPACE" in found[0]["remedy"]
    assert "1 workers and this host share it" in found[1]["found"]
    assert by_check(told)["versions"]["state"] == "ok"
    assert "2 on 1 hosts" in by_check(told)["workers"]["found"]
    assert list((lhcq.workspace / "doctor").iterdir()) == []
    assert not (tmp_path / "elsewhere/doctor").exists()


def test_without_a_broker_it_examines_what_is_local_and_leaves_nothing_running(lhcq) -> None:
    done = lhcq.run("doctor")
    lines = done.stdout.splitlines()
    assert any(line.startswith("broker ") and " ok " in line and line.endswith("answers") for line in lines)
    assert any(line.startswith("file system") and "hard links" in line for line in lines)
    assert any("does not exist yet" in line for line in lines)
    assert not lhcq.processes()
    assert not list(lhcq.workspace.parent.iterdir())  # a question makes nothing


def test_a_broker_that_is_away_would_lose_work_and_the_rest_is_told_all_the_same(lhcq) -> None:
    done = lhcq.run("doctor", code=1, LHCQ_BROKER_URL="redis://:s3cret@127.0.0.1:1/0")
    assert "broker         error    the broker at redis://127.0.0.1:1/0 does not answer" in done.stdout
    assert "file system" in done.stdout
    assert "s3cret" not in done.stdout + done.stderr
