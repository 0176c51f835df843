"""What a worker's process, and the program's own, is given in its environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lhcq.environment import SPINS
from lhcq.workspace import Workspace
from tasks.workers.local import WorkerKind, worker_environment

KINDS: tuple[WorkerKind, ...] = ("cpu", "gpu", "validate")


@pytest.mark.parametrize("kind", KINDS)
def test_threads_spin_briefly_unless_the_user_says_otherwise(
    kind: WorkerKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, url = Workspace(tmp_path), "redis://127.0.0.1:1/0"
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert int(worker_environment(place, url, kind)["GOMP_SPINCOUNT"]) < 300_000  # GNU's own
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert worker_environment(place, url, kind)["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")  # which a number of spins would outrank
    assert "GOMP_SPINCOUNT" not in worker_environment(place, url, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "value"), [("PYTHONWARNINGS", "error"), ("PYTHONOPTIMIZE", "2")])
def test_what_a_user_has_python_do_to_other_programs_ends_no_worker(
    name: str, value: str, kind: WorkerKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert name not in worker_environment(Workspace(tmp_path), "redis://127.0.0.1:1/0", kind)


@pytest.mark.parametrize(
    ("given", "spins"), [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "")]
)
@pytest.mark.parametrize(
    "said",
    [
        "import os, lhcq.cli.main as program\n"
        "program.run = lambda: print(os.environ.get('GOMP_SPINCOUNT', ''))\nprogram.main()",
        "import os, sys, lhcq\nlhcq.load\nassert 'torch' not in sys.modules\n"
        "print(os.environ.get('GOMP_SPINCOUNT', ''))",
    ],
    ids=["program", "notebook"],
)
def test_the_threads_of_a_program_and_of_a_notebook_spin_briefly_unless_the_user_says_otherwise(
    given: dict[str, str], spins: str, said: str
) -> None:
    own = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    told = subprocess.check_output([sys.executable, "-c", said], env={**own, **given}, text=True, timeout=60)
    assert told == f"{spins}\n"
