"""Whole jobs by the real broker and real workers: what a second process brings, and what the queue costs."""

import multiprocessing
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import reference
from benchmarks.clustering import JETS, momenta_of
from benchmarks.events import N_EVENTS, cache_directory, generated_events, repeat_events
from benchmarks.rows import Row, row, say
from lhcq.config import ClusterConfig
from lhcq.events.layout import open_event_file
from lhcq.manifests import read_manifest
from lhcq.records.jobs import Outcome, outcome_of
from lhcq.records.specs import ClusterSpec
from lhcq.requests.cluster import cluster_request
from lhcq.workspace import Workspace
from tasks.app import connect
from tasks.broker.embedded import embedded_broker
from tasks.engine.publish import publish_job
from tasks.jobs.store import create_job
from tasks.workers.local import LocalWorker, local_workers

N_ROWS = 200_000
ROUNDS = 7
# What a worker logs of a task that ended.
_SUCCEEDED = re.compile(r"Task lhcq\.cluster_(part|merge)\[[^]]*\] succeeded in ([0-9.e-]+)s")
_LOG_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One job."""

    seconds: float
    """From publishing to the outcome."""
    parts: list[float]
    """Seconds of each chunk task, as its worker counts them."""
    merge: float
    """Seconds of the merge."""
    peak: int
    """Bytes: the largest resident size that a process of the pool had."""


def measure() -> list[Row]:
    """The rows of the result."""
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        source = Path(scratch) / "events.h5"
        repeat_events(generated_events(), source, N_ROWS)
        rounds, machine = [], []
        for number in range(ROUNDS):
            say(f"job: round {number + 1} of {ROUNDS}")
            rounds.append(
                [run_job(Path(scratch) / f"{number}-{n}", source, JETS, processes=n) for n in (1, 2)]
            )
            machine.append(two_loops_over_one())
    note = f"{N_ROWS:,} rows (the {N_EVENTS:,} events repeated), jets, {len(rounds[0][0].parts)} chunks"
    return [
        row("job, one process", [one.seconds for one, _ in rounds], "s", note=note),
        row("job, two processes", [two.seconds for _, two in rounds], "s"),
        row("merge of the job", [one.merge for one, _ in rounds], "s"),
        row(
            "two processes over one, publishing to the last chunk",
            [(one.seconds - one.merge) / (two.seconds - two.merge) for one, two in rounds],
            "times",
            at_least=1.9,
        ),
        row(
            "two processes over one, whole job",
            [one.seconds / two.seconds for one, two in rounds],
            "times",
            note="with the merge, which is one task",
        ),
        row(
            "two C++ FastJet loops at once over one",
            machine,
            "times",
            note="what this machine gives to programs that have nothing to do with each other",
        ),
        row(
            "sum of the chunk tasks over the whole job, one process",
            [sum(one.parts) / one.seconds for one, _ in rounds],
            "",
            at_least=0.95,
            note="publishing, fanning out and merging included, starting the worker not",
        ),
    ]


def run_job(root: Path, source: Path, config: ClusterConfig, *, processes: int) -> Measured:
    """Cluster `source` in the new workspace `root` by one worker of so many processes, which is up before."""
    # In a process of its own, because Celery keeps its connections to a broker that ends with the job.
    with multiprocessing.get_context("spawn").Pool(1) as fresh:
        return fresh.apply(run_job_here, (root, source, config, processes))


def run_job_here(root: Path, source: Path, config: ClusterConfig, processes: int) -> Measured:
    """The same in this process, which may run one such job."""
    workspace = Workspace(root)
    workspace.create()
    job = cluster_request(workspace, open_event_file(source), "bench", config)
    with embedded_broker(workspace) as url:
        connect(url)
        with local_workers(workspace, url, [LocalWorker(kind="cpu", processes=processes)]):
            began = time.time()
            publish_job(workspace, create_job(workspace, job))
            while (outcome := outcome_of(workspace, job)) is None:
                time.sleep(0.02)
            took = _wait_for_log(workspace.logs / "cpu.log", job.parts + 1)
            peak = max(peaks_of_pools(psutil.Process()))
    _check(workspace, outcome, job.spec_of(ClusterSpec).n_events)
    parts = [seconds for kind, seconds in took if kind == "part"]
    (merge,) = (seconds for kind, seconds in took if kind == "merge")
    return Measured(seconds=outcome.finished - began, parts=parts, merge=merge, peak=peak)


def _wait_for_log(log: Path, n_tasks: int) -> list[tuple[str, float]]:
    """The kind and the seconds of every task, once a worker has logged that all have ended."""
    deadline = time.monotonic() + _LOG_SECONDS
    while time.monotonic() < deadline:
        took = [(kind, float(seconds)) for kind, seconds in _SUCCEEDED.findall(log.read_text())]
        if len(took) >= n_tasks:
            return took
        time.sleep(0.02)
    raise TimeoutError(f"{log} tells of fewer than {n_tasks} tasks")


def _check(workspace: Workspace, outcome: Outcome, n_events: int) -> None:
    assert outcome.state == "done", outcome.message
    manifest = read_manifest(workspace.dataset("bench"), what="the dataset", remedy="")
    assert manifest["rows"] == n_events, manifest["rows"]


def peaks_of_pools(parent: psutil.Process) -> list[int]:
    """The largest resident size, in bytes, that each process had of the pools of a process's workers."""
    peaks = []
    for worker in parent.children():
        if "worker" in worker.cmdline():
            peaks += [peak_of(child.pid) for child in worker.children()]
    return peaks


def peak_of(pid: int | str) -> int:
    """The largest resident size that a process had, in bytes, as Linux counts it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def two_loops_over_one() -> float:
    """The joint rate of two plain C++ loops over that of one."""
    program, vectors = reference.build("plain"), momenta_of(generated_events())
    alone, _ = reference.run(program, vectors)
    with ThreadPoolExecutor(2) as both:
        together = [took for took, _ in both.map(lambda _: reference.run(program, vectors), range(2))]
    return 2 * alone / max(together)
