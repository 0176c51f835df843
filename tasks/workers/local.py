"""Worker processes: the command line of each kind, and local ones that live as long as a command."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from lhcq.environment import Settings, spin_briefly
from lhcq.errors import TransientError
from lhcq.frozen import Frozen
from lhcq.interrupts import held_back
from lhcq.records.failures import LOG_VARIABLE
from lhcq.workspace import Workspace
from tasks.broker.connection import redis_client
from tasks.settings import with_again
from tasks.workers.lifecycle import PARENT_VARIABLE, READY_KEY

WorkerKind = Literal["cpu", "gpu", "validate"]
Tell = Callable[[str], None]

# A GPU worker validates first. A `validate` worker with a GPU of its own takes the same messages beside it.
_QUEUES: dict[WorkerKind, tuple[str, ...]] = {
    "cpu": ("cpu",),
    "gpu": ("validate", "gpu"),
    "validate": ("validate",),
}
# One that dies is noticed at once, so this is for one that hangs. The first on a machine compiles the loops, which
# took more than three minutes where ten processes wanted each core.
_START_SECONDS = 900.0
_SLOW_SECONDS = 10.0
"""So long they may take before a word is said of it."""
_STOP_SECONDS = 1.0
_MAX_RESTARTS = 5
# `error` made a library's warning the end of a worker; 2 takes the docstrings that transformers reads.
_OF_OTHER_PROGRAMS = ("PYTHONWARNINGS", "PYTHONOPTIMIZE")


class LocalWorker(Frozen):
    """A worker to run beside a command."""

    kind: WorkerKind
    processes: int = 1


def queues_of(kind: WorkerKind) -> tuple[str, ...]:
    """The queues that a kind of worker serves."""
    return _QUEUES[kind]


def worker_command(kind: WorkerKind, *, processes: int, name: str) -> list[str]:
    """The command that runs one worker; kinds that use a GPU have one process, which is spawned.

    Raises `BadInput` where a kind cannot work for want of what trains.
    """
    if kind != "cpu":
        from lhcq.model.sources import require_training

        require_training()
    # Gossip and mingle share clocks and revokes; lhcq pauses and cancels by the workspace instead.
    start_method = "fork" if kind == "cpu" else "spawn"  # a forked child cannot use CUDA
    return [
        *(sys.executable, "-P", "-m", "tasks", "worker"),
        *(
            "--hostname",
            f"{kind}-{name}",
            "--queues",
            ",".join(name for queue in _QUEUES[kind] for name in with_again(queue)),
        ),
        *("--concurrency", str(processes if kind == "cpu" else 1)),
        *("--pool", "prefork", "--pool-start-method", start_method, "--without-gossip", "--without-mingle"),
        *("--loglevel", "INFO"),
    ]


def worker_environment(workspace: Workspace, broker_url: str, kind: WorkerKind) -> dict[str, str]:
    """The environment of a worker process."""
    environment = {**os.environ, "LHCQ_WORKSPACE": str(workspace.root)}
    environment["PYTHONSAFEPATH"] = (
        "1"  # for what it starts: the user's directory holds modules of the user's
    )
    for name in _OF_OTHER_PROGRAMS:
        environment.pop(name, None)
    if Settings.from_environment().broker_url != broker_url:  # what stands in a file stays there
        environment["LHCQ_BROKER_URL"] = broker_url
    if kind == "cpu":
        # One process a core: numerical libraries must not start a thread a core in each.
        environment.setdefault("OMP_NUM_THREADS", "1")
        environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    spin_briefly(environment)
    # In the workspace, where `lhcq logs` finds it; a file a host, since hosts cannot append to one.
    environment.setdefault(LOG_VARIABLE, str(workspace.logs / f"{kind}-{socket.gethostname()}.log"))
    return environment


@contextlib.contextmanager
def local_workers(
    workspace: Workspace, broker_url: str, wanted: list[LocalWorker], say: Tell = lambda _: None
) -> Iterator["LocalWorkers"]:
    """Run workers for the body; they end with it, and by themselves when this process is killed.

    `say` is told where their start takes long.
    """
    workers = LocalWorkers(workspace, broker_url)
    try:
        workers.bring(wanted, say)
        yield workers
    finally:
        workers.stop()


class RunningWorker(NamedTuple):
    """A worker's main process."""

    worker: LocalWorker
    name: str
    """As it says once it is ready; of one that is started again, another."""
    process: "subprocess.Popen[bytes]"


class LocalWorkers:
    """Worker processes that are started again when they die, and stopped together."""

    def __init__(self, workspace: Workspace, broker_url: str) -> None:
        self._workspace = workspace
        self._broker_url = broker_url
        self._running: list[RunningWorker] = []
        self._restarts = 0
        self._not_started: OSError | None = None
        """Why the last one that died could not be started again."""
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="worker-keeper", daemon=True)

    @property
    def given_up(self) -> bool:
        """Whether workers died too often to be started again."""
        return self._restarts > _MAX_RESTARTS

    def check(self) -> None:
        """Raise when the workers keep dying."""
        if self.given_up and self._not_started:  # as where the workspace was moved
            raise TransientError(
                f"a local worker died and cannot be started again ({self._not_started}). Run the same command again."
            )
        if self.given_up:
            raise TransientError(f"the local workers keep dying; see {self._workspace.logs}.")

    def bring(self, wanted: list[LocalWorker], say: Tell) -> None:
        """Start those whose kind is not here yet, and wait until they are up.

        What died until now is forgotten: too often is too often for what they are wanted for next.
        """
        self._restarts = 0
        missing = [
            worker for worker in wanted if worker.kind not in {one.worker.kind for one in self._running}
        ]
        self._workspace.logs.mkdir(parents=True, exist_ok=True)
        for worker in missing:
            with held_back():  # what was started is stopped in any case
                self._running.append(self._launch(worker))
        if self._keeper.ident is None:
            self._keeper.start()
        began = time.monotonic()
        deadline, slow = began + _START_SECONDS, began + _SLOW_SECONDS
        while starting := {one.name for one in self._running} - redis_client().smembers(READY_KEY):
            self.check()
            if time.monotonic() > deadline:
                raise TransientError(
                    f"{len(starting)} local workers did not start within {_START_SECONDS:.0f} s; "
                    f"see {self._workspace.logs}."
                )
            if time.monotonic() > slow:
                slow = deadline
                say(
                    "workers are starting; on their first time here they compile what finds jets, about half a minute"
                )
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop all of them at once: what they do is idempotent, so nothing is lost by not waiting long."""
        self._ending.set()
        if self._keeper.is_alive():
            self._keeper.join()
        processes = [one.process for one in self._running]
        for process in processes:
            process.terminate()  # the main process alone: it ends its pool in order
        deadline = time.monotonic() + _STOP_SECONDS
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            _signal_group(process, signal.SIGKILL)
            process.wait()

    def _launch(self, worker: LocalWorker) -> RunningWorker:
        environment = worker_environment(self._workspace, self._broker_url, worker.kind)
        environment[PARENT_VARIABLE] = str(os.getpid())
        name = f"{os.getpid()}-{secrets.token_hex(2)}@{socket.gethostname()}"
        path = self._workspace.logs / f"{worker.kind}.log"
        environment[LOG_VARIABLE] = str(path)
        with path.open("ab") as log:
            process = subprocess.Popen(
                worker_command(worker.kind, processes=worker.processes, name=name),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return RunningWorker(worker, f"{worker.kind}-{name}", process)

    def _keep(self) -> None:
        while not self._ending.wait(0.5):
            for place, one in enumerate(self._running):
                if one.process.poll() is not None and not self.given_up:
                    self._restarts += 1
                    try:
                        self._running[place], self._not_started = self._launch(one.worker), None
                    except OSError as error:  # nobody hears this thread: it goes on, until it is too often
                        self._not_started = error


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
