"""lhcq's own metrics for Prometheus, read from the workspace and the broker when they are asked for.

Nothing counts in the background: what a scrape tells is what stands in the workspace, so an exporter may start late,
die, and run twice. Rates are Prometheus's to compute, from counters.
"""

import contextlib
import shutil
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from lhcq.address import BrokerAddress
from lhcq.environment import Settings
from lhcq.errors import LhcqError
from lhcq.model.gpus import gpus_of_host
from lhcq.records.failures import failures_of
from lhcq.records.job_control import state_of
from lhcq.records.jobs import Job, Outcome, outcome_of, read_jobs
from lhcq.records.journal import Journal
from lhcq.records.specs import TrainSpec
from lhcq.workspace import Workspace
from tasks.app import connect
from tasks.broker.acceptance import ask_broker
from tasks.broker.connection import LEASE_PREFIX, broker_address, has_broker, redis_client
from tasks.broker.embedded import running_broker
from tasks.broker.transport import queue_length
from tasks.jobs.kinds import chunk_unit, finished_chunks, kind_of
from tasks.jobs.leases import holder_of
from tasks.settings import QUEUES, with_again

_RECENT_SECONDS = 7 * 24 * 3600
"""A job that ended longer ago has no series of its own any more."""
_STALE_SECONDS = 60.0
"""A run whose last step is older trains at no rate."""


class LhcqCollector(Collector):
    """Everything that `lhcq metrics` tells of one workspace and its broker."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._journals: dict[str, Journal] = {}
        self._one_at_a_time = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        with self._one_at_a_time:
            yield from list(self._all())

    def _all(self) -> Iterator[Metric]:
        jobs, ended, states = read_states(self._workspace)
        yield _gauge("lhcq_jobs", "Jobs of the workspace by state", ("kind", "state"), states)
        horizon = time.time() - _RECENT_SECONDS
        recent = [job for job in jobs if id(job) not in ended or ended[id(job)].finished > horizon]
        leases: dict[str, float] | None = None
        client = self._broker()
        try:
            leases = lease_ages(client) if client else None
            yield from _of_broker(client, leases)
        except redis.RedisError:  # it went away in between
            yield _gauge("lhcq_broker_up", _BROKER_UP, (), {(): 0})
        parts = [job for job in recent if kind_of(job).fans_out]
        yield from self._of_parts(parts, {id(job) for job in recent if id(job) in ended}, leases or {})
        yield from self._of_runs([job for job in recent if isinstance(job.spec, TrainSpec)], ended.keys())
        yield from _of_host(self._workspace)

    def _broker(self) -> "redis.Redis | None":
        """A client of the broker, looked for at each scrape, since it comes and goes; None where none answers."""
        url = Settings.from_environment().broker_url or running_broker(self._workspace)
        if url is None:
            return None
        try:
            if not has_broker() or broker_address() != BrokerAddress.of(url):
                connect(url)
            ask_broker(self._workspace)
        except LhcqError:
            return None
        return redis_client()

    def _of_parts(self, jobs: list[Job], ended: set[int], leases: dict[str, float]) -> Iterator[Metric]:
        parts: dict[tuple[str, ...], float] = {}
        events: dict[tuple[str, ...], float] = {}
        totals: dict[tuple[str, ...], float] = {}
        for job in jobs:
            outcome = outcome_of(self._workspace, job) if id(job) in ended else None
            whole = outcome is not None and outcome.state == "done"
            done = set(range(job.parts)) if whole else finished_chunks(self._workspace, job)
            given_up = len(failures_of(self._workspace, job))
            prefix = f"{chunk_unit(job, 0).task}:{job.name}:"
            at_work = sum(unit.startswith(prefix) for unit in leases)
            waiting = max(0, job.parts - len(done) - given_up - at_work)
            counts = {"done": len(done), "at_work": at_work, "given_up": given_up, "waiting": waiting}
            parts |= {(job.kind, job.name, state): count for state, count in counts.items()}
            if sizes := sizes_of_parts(job):
                events[job.kind, job.name] = sum(sizes[index] for index in done if index < len(sizes))
                totals[job.kind, job.name] = sum(sizes)
        labels = ("kind", "job")
        yield _gauge("lhcq_job_parts", "Chunks of a job by state", (*labels, "state"), parts)
        yield _counter("lhcq_job_events_done", "Events in the chunks of a job that are done", labels, events)
        yield _gauge("lhcq_job_events", "Events of a job", labels, totals)

    def _of_runs(self, jobs: list[Job], ended: Any) -> Iterator[Metric]:
        values: dict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
        alarms: dict[tuple[str, ...], float] = {}
        checkpoints: dict[tuple[str, ...], float] = {}
        for job in jobs:
            journal = self._journal(job.name)
            for name, value in run_values(job, journal, over=id(job) in ended).items():
                values[name][job.name,] = value
            alarms |= {(job.name, kind): count for kind, count in journal.alarms.items()}
            checkpoints[job.name,] = journal.counts["checkpoint"]
        for name, help_text in RUN_GAUGES.items():
            yield _gauge(name, help_text, ("run",), values[name])
        yield _counter("lhcq_run_alarms", "Alarms of the watchdog", ("run", "alarm"), alarms)
        yield _counter("lhcq_run_checkpoints", "Checkpoints committed", ("run",), checkpoints)

    def _journal(self, run: str) -> Journal:
        journal = self._journals.setdefault(run, Journal(self._workspace.run(run)))
        journal.read()
        return journal


def read_states(
    workspace: Workspace,
) -> tuple[list[Job], dict[int, Outcome], Counter[tuple[str, str]]]:
    """The jobs whose records can be read, the outcomes of those that ended, and how many of each kind are how."""
    found, damaged = read_jobs(workspace)
    states = Counter((one.kind, "damaged") for one in damaged)
    jobs, ended = [], {}
    for job in found:
        try:
            outcome = outcome_of(workspace, job)
            states[job.kind, state_of(workspace, job, outcome)] += 1
        except (LhcqError, OSError):
            states[job.kind, "damaged"] += 1
            continue
        jobs.append(job)
        if outcome:
            ended[id(job)] = outcome
    return jobs, ended, states


RUN_GAUGES = {
    "lhcq_run_step": "The newest optimizer step",
    "lhcq_run_steps": "Optimizer steps that the run will have",
    "lhcq_run_loss": "Loss of the newest step",
    "lhcq_run_samples_per_second": "Events a second of the newest step; 0 when none was made for a minute",
    "lhcq_run_validation_step": "The newest validated checkpoint",
    "lhcq_run_validation_auc": "AUC of the newest validated checkpoint",
    "lhcq_run_validation_accuracy": "Accuracy of the newest validated checkpoint",
    "lhcq_run_validation_events_per_second": "Events a second of the newest validation",
}


def run_values(job: Job, journal: Journal, *, over: bool) -> dict[str, float]:
    """The gauges of a run that are known, by their names; `over`: the run has ended."""
    known: dict[str, float | None] = {
        "lhcq_run_steps": job.spec_of(TrainSpec).total_steps,
        "lhcq_run_samples_per_second": 0.0,
    }
    if step := journal.step:
        stands = over or time.time() - (step.time or 0.0) > _STALE_SECONDS
        known |= {
            "lhcq_run_step": step.step,
            "lhcq_run_loss": step.loss,
            "lhcq_run_samples_per_second": 0.0 if stands else step.samples_per_second,
        }
    if validation := journal.validation:
        known |= {
            "lhcq_run_validation_step": validation.step,
            "lhcq_run_validation_auc": validation.auc,
            "lhcq_run_validation_accuracy": validation.accuracy,
        }
        if validation.seconds and validation.n is not None:
            known["lhcq_run_validation_events_per_second"] = validation.n / validation.seconds
    return {name: float(value) for name, value in known.items() if value is not None}


def sizes_of_parts(job: Job) -> list[int]:
    """Events in each chunk of a clustering or a prediction; empty for what is not cut by events or does not tell."""
    stretch = kind_of(job).stretch
    with contextlib.suppress(LhcqError, IndexError):  # a damaged record must not hide the others
        if stretch is not None:
            return [stop - start for _, start, stop in (stretch(job, index) for index in range(job.parts))]
    return []


def lease_ages(client: "redis.Redis") -> dict[str, float]:
    """Seconds that each lease has been held, by its unit and by the holder's clock."""
    ages = {}
    for key in client.scan_iter(f"{LEASE_PREFIX}*", count=1000):
        unit = str(key).removeprefix(LEASE_PREFIX)
        holder = holder_of(client, unit)
        if holder is not None:  # it may have ended in between
            ages[unit] = max(0.0, time.time() - holder.since)
    return ages


_BROKER_UP = "Whether the broker answers and keeps what it is given"


def _of_broker(client: "redis.Redis | None", leases: dict[str, float] | None) -> Iterator[Metric]:
    if client is None:
        yield _gauge("lhcq_broker_up", _BROKER_UP, (), {(): 0})
        return
    waiting = {(queue,): sum(queue_length(client, name) for name in with_again(queue)) for queue in QUEUES}
    memory = int(client.info("memory")["used_memory"])
    held: Counter[tuple[str, ...]] = Counter()
    oldest: dict[tuple[str, ...], float] = {}
    for unit, age in (leases or {}).items():
        task = (unit.partition(":")[0],)
        held[task] += 1
        oldest[task] = max(age, oldest.get(task, 0.0))
    yield _gauge("lhcq_broker_up", _BROKER_UP, (), {(): 1})
    yield _gauge("lhcq_broker_memory_bytes", "Memory that the broker uses", (), {(): memory})
    yield _gauge("lhcq_queue_messages", "Messages that wait for a worker", ("queue",), waiting)
    yield _gauge("lhcq_leases", "Units at work", ("task",), held)
    yield _gauge("lhcq_lease_age_seconds", "How long the longest unit has been at work", ("task",), oldest)


def _of_host(workspace: Workspace) -> Iterator[Metric]:
    gpus = gpus_of_host()
    host = socket.gethostname()
    labels = ("host", "gpu", "name")
    used, total = (
        {(host, str(gpu.index), gpu.name): getattr(gpu, field) for gpu in gpus} for field in ("used", "total")
    )
    yield _gauge("lhcq_gpu_memory_used_bytes", "GPU memory that all processes use", labels, used)
    yield _gauge("lhcq_gpu_memory_total_bytes", "GPU memory", labels, total)
    if workspace.root.is_dir():
        free = shutil.disk_usage(workspace.root).free
        yield _gauge("lhcq_workspace_free_bytes", "Room in the workspace's file system", (), {(): free})


def _gauge(name: str, help_text: str, labels: tuple[str, ...], values: Any) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counter(name: str, help_text: str, labels: tuple[str, ...], values: Any) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
