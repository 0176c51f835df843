"""The program itself, run as a user runs it: in processes of its own, in a workspace of its own."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from lhcq.events.layout import write_event_file
from lhcq.workspace import Workspace
from tests.inside import ended
from tests.integration.broker_users import User, servers

PROGRESS = re.compile(r"\w+ [\w.-]+: [\d,]+/[\d,]+ \w+.*|lhcq: workers are starting; .*")
TIMEOUT_SECONDS = 240
READING = ("inspect", "logs", "ls", "status", "why")
"""Verbs that answer from what stands there: a process of theirs would load for a second."""

# A shell makes what it runs in the background ignore Ctrl-C, and so would every command that these tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Program:
    """`lhcq` in one workspace."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.environment: dict[str, str] = {}
        """What all commands of this workspace have."""
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str | Path, **environment: str) -> "subprocess.Popen[str]":
        """Start a command."""
        inherited = {name: value for name, value in os.environ.items() if name != "LHCQ_BROKER_URL"}
        process = subprocess.Popen(
            [sys.executable, "-m", "lhcq.cli.main", *map(str, arguments)],
            env={**inherited, "LHCQ_WORKSPACE": str(self.workspace), **self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def finish(self, process: "subprocess.Popen[str]") -> "subprocess.CompletedProcess[str]":
        """Wait for a command that was started."""
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(
        self, *arguments: str | Path, code: int = 0, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command that must end with `code`, in this process where it only reads, in the usual environment."""
        if arguments[0] in READING and not environment:
            done = self.inside(*arguments)
        else:
            done = self.finish(self.start(*arguments, **environment))
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def inside(self, *arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in this process, however it ends."""
        own = {"LHCQ_WORKSPACE": str(self.workspace), "LHCQ_BROKER_URL": "", **self.environment}
        return ended(*arguments, **{**own, **environment})

    def cluster_here(self, file: Path, name: str, **options: Any) -> None:
        """Make a dataset in this process: for what is tested of it, whoever made it."""
        from lhcq.api import cluster

        cluster(file, name, workspace=self.workspace, **options)

    def ask(self, *arguments: str | Path, **environment: str) -> Any:
        """Run a command with --json and give its one object."""
        return json.loads(self.run(*arguments, "--json", **environment).stdout)

    def refused(self, *arguments: str | Path, code: int = 1, **environment: str) -> str:
        """Run a command that must be refused in one line, beside progress on a slow machine; gives the line."""
        done = self.run(*arguments, code=code, **environment)
        lines = [line for line in done.stderr.splitlines() if not PROGRESS.fullmatch(line)]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("lhcq: ")
        assert done.stdout == ""
        return lines[0]

    def processes(self) -> list[psutil.Process]:
        """Everything that runs for this workspace, in whatever session."""
        marks = (f"LHCQ_WORKSPACE={self.workspace}", str(self.workspace / "broker"))
        found = []
        for process in psutil.process_iter():
            try:
                words = [f"{name}={value}" for name, value in process.environ().items()] + process.cmdline()
                words.append(process.cwd())  # all that tells of the broker, which overwrites its environment
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if process.pid != os.getpid() and any(mark in word for word in words for mark in marks):
                found.append(process)
        return found

    def workers(self) -> list[psutil.Process]:
        """The main processes of the workers."""
        found = []
        for process in self.processes():
            # It may end between being found and being asked.
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                if "worker" in process.cmdline() and process.pid == os.getpgid(process.pid):
                    found.append(process)
        return found


class Inside(Program):
    """`lhcq` in one workspace, in this process: for what is refused, or at once done."""

    def start(self, *arguments: str | Path, **environment: str) -> Any:
        """Nothing that lasts can be had here."""
        raise AssertionError("a command that lasts needs a process: take `lhcq`")

    def run(
        self, *arguments: str | Path, code: int = 0, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command that must end with `code`."""
        done = self.inside(*arguments, **environment)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


@contextlib.contextmanager
def running_program(workspace: Path) -> Iterator[Program]:
    """The program in a workspace of its own; nothing of it is left running."""
    program = Program(workspace)
    yield program
    for process in program.started:
        if process.poll() is None:
            process.kill()
            process.communicate()
    for left in program.processes():
        with_children(left, signal.SIGKILL)


@pytest.fixture(scope="session")
def running() -> Callable[[Path], contextlib.AbstractContextManager[Program]]:
    """Runs the program in a workspace."""
    return running_program


@pytest.fixture
def lhcq(tmp_path: Path) -> Iterator[Program]:
    """The program in a workspace of the test's own."""
    with running_program(tmp_path / "workspace") as program:
        yield program


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    """The program in the workspace of `lhcq`, without processes."""
    return Inside(tmp_path / "workspace")


def with_children(process: psutil.Process, number: int) -> None:
    """Signal a whole process group, as a machine that dies would."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(os.getpgid(process.pid), number)


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
    """Wait for something to become true; gives its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")


def made_up_events(n_events: int, *, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Events with two clear jets of 40 particles each; signal is narrower in mass, labels alternate."""
    random = np.random.Generator(np.random.PCG64(seed))
    labels = (np.arange(n_events) % 2).astype(np.int8)
    particles = np.zeros((n_events, 700, 3))
    for jet, phi in enumerate((0.0, np.pi)):
        place = slice(40 * jet, 40 * (jet + 1))
        spread = np.where(labels == 1, 0.35, 0.15)[:, None]
        particles[:, place, 0] = random.exponential(40.0, (n_events, 40)) + 1.0
        particles[:, place, 1] = random.normal(0.0, 1.0, (n_events, 40)) * spread
        particles[:, place, 2] = phi + random.normal(0.0, 1.0, (n_events, 40)) * spread
    wrapped = (particles[:, :80, 2] + np.pi) % (2 * np.pi) - np.pi
    particles[:, :80, 2] = wrapped
    return particles.astype(np.float32).astype(np.float64), labels


@pytest.fixture(scope="session")
def event_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,100 made-up events in the LHCO layout, 7 to a storage chunk."""
    path = tmp_path_factory.mktemp("events") / "events.h5"
    write_event_file(path, [made_up_events(2100)], 2100, storage_rows=7)
    return path


@pytest.fixture(scope="session")
def kill_group() -> Callable[[psutil.Process, int], None]:
    """Signal a whole process group."""
    return with_children


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    """Wait for a condition."""
    return wait_until


@pytest.fixture
def use() -> Iterator[Callable[[Workspace], User]]:
    """Start users; none is left behind, nor the servers of their workspaces."""
    users: list[User] = []
    places: list[Workspace] = []

    def start(workspace: Workspace) -> User:
        places.append(workspace)
        users.append(User(workspace))
        return users[-1]

    yield start
    for user in users:
        user.kill()
    for place in places:
        for server in servers(place):
            server.kill()
