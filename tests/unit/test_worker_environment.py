"""What a worker's process is given in its environment."""

from pathlib import Path

import pytest

from lhcq.workspace import Workspace
from tasks.workers.local import WorkerKind, worker_environment

KINDS: tuple[WorkerKind, ...] = ("cpu", "gpu", "validate")


@pytest.mark.parametrize("kind", KINDS)
def test_threads_wait_without_spinning_unless_the_user_says_otherwise(
    kind: WorkerKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, url = Workspace(tmp_path), "redis://127.0.0.1:1/0"
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert worker_environment(place, url, kind)["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert worker_environment(place, url, kind)["OMP_WAIT_POLICY"] == "ACTIVE"
