"""The wheel in a fresh environment of what it declares, and no more: a clustering worker needs no torch."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import psutil
import pytest
from packaging.requirements import Requirement

from lhcq.version import RELEASE

PROJECT = Path(__file__).parents[2]
INSTALL_SECONDS = 280

pytestmark = pytest.mark.timeout(600)


class Installed:
    """The installed program, run from a directory that is not the project's."""

    def __init__(self, environment: Path, place: Path) -> None:
        self.environment = environment
        self.place = place
        self.workspace = place / "workspace"

    def start(self, program: str, *arguments: Any, **variables: str) -> "subprocess.Popen[str]":
        """Start a program of the environment."""
        dropped = {"LHCQ_BROKER_URL", "PYTHONPATH", "VIRTUAL_ENV"}
        inherited = {name: value for name, value in os.environ.items() if name not in dropped}
        return subprocess.Popen(
            [self.environment / "bin" / program, *map(str, arguments)],
            cwd=self.place,
            env={**inherited, "LHCQ_WORKSPACE": str(self.workspace), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, program: str, *arguments: Any, code: int = 0, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program of the environment, which must end with `code`."""
        with self.start(program, *arguments, **variables) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == code, f"{out}\n{err}"
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def left(self) -> list[list[str]]:
        """The command lines of what runs of this environment."""
        commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
        return [words for words in commands if any(str(self.environment) in word for word in words)]

    def python(self, source: str) -> str:
        """What a Python program prints."""
        return self.run("python", "-c", source).stdout.strip()

    def refused(self, *arguments: Any) -> str:
        """The last line of a command that must be refused; what comes before says what was done until then."""
        done = self.run("lhcq", *arguments, code=1)
        assert "Traceback" not in done.stderr
        return done.stderr.strip().splitlines()[-1]


def pip(*arguments: Any, python: Path = Path(sys.executable)) -> None:
    """Run pip for the environment of `python`; what it says comes with a failure."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"),
            *map(str, arguments),
        ],
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


def needed_by(requirements: list[str], extra: str = "") -> dict[str, Distribution]:
    """The distributions that requirements name, and those that these need, as they are installed here."""
    found: dict[str, Distribution] = {}
    waiting = [(text, extra) for text in requirements]
    while waiting:
        text, extra = waiting.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in ("", *requirement.extras):
            if (key := f"{requirement.name}[{wanted}]") not in found:
                found[key] = distribution(requirement.name)
                waiting += [(more, wanted) for more in found[key].requires or ()]
    return found


def link_files(distributions: list[Distribution], site_packages: Path) -> None:
    """Put the files of distributions into another environment, as links: an index need not be asked for them."""
    made: set[Path] = set()
    for one in distributions:
        for file in one.files or ():
            to = site_packages / file
            if ".." in file.parts or to in made:  # a script
                continue
            to.parent.mkdir(parents=True, exist_ok=True)
            to.symlink_to(Path(str(file.locate())).resolve())
            made.add(to)


def share_compiled(package: Path) -> None:
    """Give the installed loops what was compiled for the checkout's, which saves half a minute of a core.

    numba takes it only for the same code, and compiles otherwise.
    """
    for kept in (PROJECT / "lhcq").rglob("__pycache__/*.nb[ic]"):
        to = package / kept.relative_to(PROJECT / "lhcq")
        to.parent.mkdir(exist_ok=True)
        shutil.copyfile(kept, to)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    place = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "venv", "--without-pip", place / "venv"]
    subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
    pip(*("install", "--no-deps", "--no-index", "--no-compile", wheel), python=place / "venv/bin/python")
    found = Installed(place / "venv", place)
    package = Path(found.python("import importlib.util as u; print(u.find_spec('lhcq').origin)")).parent
    declared = json.loads(
        found.python("import importlib.metadata as m, json; print(json.dumps(m.requires('lhcq')))")
    )
    link_files(list(needed_by(declared).values()), package.parent)
    share_compiled(package)
    return found


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


def _metadata(wheel: Path) -> tuple[str, str]:
    """What the wheel says of itself: its fields, and its description."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        fields, _, text = archive.read(name).decode().partition("\n\n")
    return fields, text


def test_its_metadata_say_whose_events_they_are_and_how_it_is_found(wheel: Path) -> None:
    fields = _metadata(wheel)[0].splitlines()
    addresses = [line for line in fields if line.startswith("Project-URL: ")]
    assert any("zenodo.6466204" in line for line in addresses)
    assert all(line.split(", ")[1].startswith("https://") for line in addresses)
    assert any(line.startswith("Keywords: ") and "LHC Olympics" in line for line in fields)
    assert "Author: The lhcq developers" in fields


def test_its_description_has_no_link_that_leads_nowhere_on_a_package_index(wheel: Path) -> None:
    text = _metadata(wheel)[1]
    assert text.startswith("# lhcq\n")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    assert "docs/tutorial.md" in text


def test_the_application_is_found_from_any_directory(installed: Installed) -> None:
    where = installed.python("import tasks.app, lhcq; print(tasks.app.__file__, lhcq.__file__)")
    assert all(path.startswith(str(installed.environment)) for path in where.split())
    built = installed.python("import importlib.metadata as m; print(m.version('lhcq'))")
    assert installed.run("lhcq", "--version").stdout == f"lhcq, version {built}\n"
    assert built.partition(".dev")[0] == RELEASE


@pytest.mark.torture  # it asks the index for all of it; what is declared is all that the others have, too
def test_pip_installs_it_with_the_constraints(wheel: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"],
        check=True,
        timeout=INSTALL_SECONDS,
    )
    python = tmp_path / "venv/bin/python"
    pip("install", "--no-compile", "--constraint", PROJECT / "constraints.txt", wheel, python=python)
    pip("check", python=python)
    assert Installed(tmp_path / "venv", tmp_path).run("lhcq", "--version").stdout.startswith("lhcq, version ")


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


@pytest.mark.torture  # clustering there says most of it
def test_prompts_can_be_prepared_there(installed: Installed, dataset: dict[str, Any]) -> None:
    done = installed.run("lhcq", "prepare", "made", "--split", "small", "--json")
    answer = json.loads(done.stdout)
    assert sum(answer["counts"]["train"].values()) > 100
    assert answer["tokens"] is None
    assert "lhcq[train] is not installed" in done.stderr


def test_what_cannot_be_done_there_says_what_to_install(
    installed: Installed, dataset: dict[str, Any], wheel: Path
) -> None:
    installed.run("lhcq", "prepare", "made", "--split", "other")
    line = installed.refused("train", "other", "--name", "run")
    assert line.startswith("lhcq: ")
    # From where it was installed: no index has it by its name.
    assert f"{installed.environment}/bin/python -m pip install 'lhcq[train] @ {wheel.as_uri()}'" in line
    assert "lhcq[train]" in installed.refused("up", "--gpu")
    assert installed.left() == []
    line = installed.refused("generate", "out.h5", "--background", 5, "--signal", 5)
    assert "pip install" in line
    assert "lhcq[generate]" in line
    jobs = json.loads(installed.run("lhcq", "status", "--json").stdout)["jobs"]
    assert {job["kind"] for job in jobs} == {"cluster", "prepare"}


# What lies beside the work of somebody who knows Celery, and modules that have the names of others' modules.
TUTORIAL = """
from celery import Celery
app = Celery("tasks", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/0")
@app.task
def add(x, y):
    return x + y
"""
USERS = ("tasks", "random", "numpy", "billiard", "celery", "redis", "lhcq", "celeryconfig", "flowerconfig")


@pytest.fixture
def beside(installed: Installed, tmp_path: Path) -> Installed:
    """The program, run from a directory with modules of the user's, each of which would leave a file."""
    for name in USERS:
        mark = f"open({str(tmp_path / f'{name}-ran')!r}, 'w').close()\n"
        (tmp_path / f"{name}.py").write_text(mark + (TUTORIAL if name == "tasks" else ""))
    return Installed(installed.environment, tmp_path)


def test_a_user_s_modules_in_the_current_directory_are_not_run(beside: Installed, event_file: Path) -> None:
    done = beside.run("lhcq", "cluster", event_file, "--name", "made", "--events-per-chunk", 350, "--json")
    assert json.loads(done.stdout)["rows"] == 2100
    with beside.start("lhcq", "up", "--workers", 1, "--no-gpu") as up:
        assert up.stdout
        try:
            while "Ctrl-C" not in (line := up.stdout.readline()):
                assert line, up.communicate()
            done = beside.run("lhcq", "cluster", event_file, "--name", "again", "--json")
            assert json.loads(done.stdout)["rows"] == 2100
        finally:
            up.send_signal(signal.SIGINT)
            up.communicate(timeout=60)
    assert not list(beside.place.glob("*-ran"))
    assert beside.left() == []


@pytest.mark.parametrize("kind", ["a module", "a package", "the current directory"])
def test_another_tasks_in_front_of_ours_is_one_line(
    beside: Installed, tmp_path: Path, event_file: Path, kind: str
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    if kind == "a module":
        (tmp_path / "tasks.py").rename(theirs / "tasks.py")
    elif kind == "a package":
        (theirs / "tasks").mkdir()
        (tmp_path / "tasks.py").rename(theirs / "tasks" / "__init__.py")
    else:
        for name in set(USERS) - {"tasks"}:
            (tmp_path / f"{name}.py").unlink()
    path = ":" if kind == "the current directory" else str(theirs)
    for words in (
        ("cluster", event_file, "--name", "made"),
        ("up", "--no-gpu"),
        ("worker", "cpu"),
        ("doctor",),
    ):
        done = beside.run("lhcq", *words, code=1, PYTHONPATH=path)
        (line,) = done.stderr.splitlines()
        assert line.startswith("lhcq: the Python module `tasks` is ")
        assert "take its directory out of PYTHONPATH" in line
        assert done.stdout == ""
    assert not list(tmp_path.glob("*-ran"))
    assert beside.left() == []
