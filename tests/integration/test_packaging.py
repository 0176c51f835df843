"""The wheel, installed alone into a fresh environment: a clustering worker needs no torch."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest

PROJECT = Path(__file__).parents[2]
INSTALL_SECONDS = 280

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Installed:
    """The installed program, run from a directory that is not the project's."""

    def __init__(self, environment: Path, place: Path) -> None:
        self.environment = environment
        self.place = place
        self.workspace = place / "workspace"

    def run(self, program: str, *arguments: Any, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run a program of the environment, which must end with `code`."""
        dropped = {"LHCQ_BROKER_URL", "PYTHONPATH", "VIRTUAL_ENV"}
        inherited = {name: value for name, value in os.environ.items() if name not in dropped}
        done = subprocess.run(
            [self.environment / "bin" / program, *map(str, arguments)],
            cwd=self.place,
            env={**inherited, "LHCQ_WORKSPACE": str(self.workspace)},
            capture_output=True,
            check=False,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        return done

    def python(self, source: str) -> str:
        """What a Python program prints."""
        return self.run("python", "-c", source).stdout.strip()

    def refused(self, *arguments: Any) -> str:
        """The last line of a command that must be refused; what comes before says what was done until then."""
        done = self.run("lhcq", *arguments, code=1)
        assert "Traceback" not in done.stderr
        return done.stderr.strip().splitlines()[-1]


def pip(*arguments: Any, python: Path = Path(sys.executable)) -> None:
    """Run pip; what it says comes with a failure."""
    done = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *map(str, arguments)],
        cwd=PROJECT,
        capture_output=True,
        check=False,
        text=True,
        timeout=INSTALL_SECONDS,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wheel")
    pip("wheel", PROJECT, "--no-deps", "--no-build-isolation", "--wheel-dir", place)
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    place = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True, timeout=INSTALL_SECONDS)
    python = place / "venv" / "bin" / "python"
    pip("install", "--no-compile", "--constraint", PROJECT / "constraints.txt", wheel, python=python)
    return Installed(place / "venv", place)


@pytest.fixture(scope="module")
def dataset(installed: Installed, event_file: Path) -> dict[str, Any]:
    """The answer of a clustering in the fresh environment."""
    done = installed.run("lhcq", "cluster", event_file, "--name", "made", "--events-per-chunk", 350, "--json")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_wheel_holds_the_two_packages_and_what_they_read(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"lhcq", "tasks"}
    for folder in ("lhcq", "tasks"):
        files = {
            str(path.relative_to(PROJECT))
            for path in (PROJECT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert files <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_application_is_found_from_any_directory(installed: Installed) -> None:
    where = installed.python("import tasks.app, lhcq; print(tasks.app.__file__, lhcq.__file__)")
    assert all(path.startswith(str(installed.environment)) for path in where.split())
    assert installed.run("lhcq", "--version").stdout.startswith("lhcq, version ")


def test_nothing_that_trains_or_generates_is_installed(installed: Installed) -> None:
    names = ("torch", "transformers", "peft", "bitsandbytes", "pythia8mc", "opentelemetry", "pytest")
    source = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    assert installed.python(source) == "[]"


def test_clustering_works_there_from_end_to_end(
    installed: Installed, dataset: dict[str, Any], event_file: Path
) -> None:
    assert (dataset["rows"], dataset["chunks"]) == (2100, 6)
    assert dataset["labels"] == {"signal": 1050, "background": 1050, "unknown": 0}
    inspected = json.loads(installed.run("lhcq", "inspect", event_file, "--json").stdout)
    assert inspected["problems"] == []
    jobs = json.loads(installed.run("lhcq", "status", "--json").stdout)["jobs"]
    assert [job["state"] for job in jobs] == ["done"]


def test_prompts_can_be_prepared_there(installed: Installed, dataset: dict[str, Any]) -> None:
    done = installed.run("lhcq", "prepare", "made", "--split", "small", "--json")
    answer = json.loads(done.stdout)
    assert sum(answer["counts"]["train"].values()) > 100
    assert answer["tokens"] is None
    assert "lhcq[train] is not installed" in done.stderr


def test_what_cannot_be_done_there_says_what_to_install(
    installed: Installed, dataset: dict[str, Any]
) -> None:
    installed.run("lhcq", "prepare", "made", "--split", "other")
    line = installed.refused("train", "other", "--name", "run")
    assert line.startswith("lhcq: ")
    assert "pip install" in line
    assert "lhcq[train]" in line
    assert "lhcq[train]" in installed.refused("up", "--gpu")
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not any(str(installed.environment) in word for words in commands for word in words)
    line = installed.refused("generate", "out.h5", "--background", 5, "--signal", 5)
    assert "pip install" in line
    assert "lhcq[generate]" in line
    jobs = json.loads(installed.run("lhcq", "status", "--json").stdout)["jobs"]
    assert {job["kind"] for job in jobs} == {"cluster", "prepare"}
