"""How many chunks of a job are done, for those who watch: a set of their indices in Redis, counted in one step.

The truth is the workspace, where counting lists a directory of as many files. A broker that was flushed has lost the
mark of completeness with the set, so nothing is shown from half of one: the reconciler reads the workspace again.
"""

import contextlib
from pathlib import Path
from typing import NamedTuple

import redis

from lhcq.records.jobs import Job, outcome_of
from lhcq.records.journal import newest_step
from lhcq.records.run_state import validated_steps
from lhcq.records.specs import TrainSpec
from lhcq.records.validations import read_metrics
from lhcq.workspace import RunPaths, Workspace
from tasks.broker.connection import has_broker, redis_client
from tasks.jobs.kinds import finished_chunks, kind_of

_COMPLETE = "complete"
"""Member of a set into which the workspace was read."""
_KEEP_SECONDS = 7 * 24 * 3600


def count_chunk(job: Job, index: int) -> None:
    """Count a chunk that was committed, where there is somebody to count for; twice is once."""
    if not has_broker():
        return
    with contextlib.suppress(redis.RedisError):  # it is committed all the same
        redis_client().sadd(_key(job), index)


def forget_chunk(job: Job, index: int) -> None:
    """Count a chunk no longer that was discarded."""
    if not has_broker():
        return
    with contextlib.suppress(redis.RedisError):
        redis_client().srem(_key(job), index)


def counted_chunks(job: Job) -> int | None:
    """How many chunks of `job` are done; None when Redis does not know."""
    with redis_client().pipeline(transaction=False) as pipe:
        pipe.sismember(_key(job), _COMPLETE)
        pipe.scard(_key(job))
        complete, size = pipe.execute()
    return int(size) - 1 if complete else None


def recount(workspace: Workspace, job: Job) -> None:
    """Read the workspace into the set, if Redis lost it; chunks that are committed meanwhile count themselves."""
    client = redis_client()
    if not client.sismember(_key(job), _COMPLETE):
        client.sadd(_key(job), _COMPLETE, *finished_chunks(workspace, job))
        client.expire(_key(job), _KEEP_SECONDS)


def forget_count(job: Job) -> None:
    """Know nothing of a job."""
    if not has_broker():
        return
    with contextlib.suppress(redis.RedisError):
        redis_client().delete(_key(job))


class Progress(NamedTuple):
    """How much of a job is done."""

    done: int
    total: int
    unit: str
    """What is counted: events, parts, steps or splits."""
    note: str = ""
    """A run's newest loss and AUC."""


def progress_of(workspace: Workspace, job: Job) -> Progress:
    """How much of a job is done, in what its kind counts."""
    kind = kind_of(job)
    outcome = outcome_of(workspace, job)
    ended = outcome is not None and outcome.state == "done"
    if isinstance(job.spec, TrainSpec):
        step, note = _run_note(workspace.run(job.name))
        return Progress(step, job.spec.total_steps, kind.measured_in, note)
    if kind.fans_out:
        return Progress(job.parts if ended else done_chunks(workspace, job), job.parts, kind.measured_in)
    return Progress(int(ended), 1, kind.measured_in)


def events_done(workspace: Workspace, job: Job, n_events: int) -> Progress:
    """How much of a fan-out is done, as a number of its events."""
    return Progress(n_events * done_chunks(workspace, job) // max(1, job.parts), n_events, "events")


def done_chunks(workspace: Workspace, job: Job) -> int:
    """How many chunks of a fan-out stand: as the broker counts them, or, where it cannot tell, as they are listed."""
    if has_broker():
        with contextlib.suppress(redis.RedisError, ValueError):
            counted = counted_chunks(job)
            if counted is not None:
                return counted
    return len(finished_chunks(workspace, job))


def _run_note(run_dir: Path) -> tuple[int, str]:
    """The newest step of a run, and a note: its loss and speed, how many checkpoints are validated, the last AUC."""
    line, validated = newest_step(run_dir), validated_steps(run_dir)
    note = []
    if line is not None and line.loss is not None:
        note.append(f"loss {line.loss:.3f}")
    if line is not None and line.samples_per_second is not None:
        note.append(f"{line.samples_per_second:.1f} samples/s")
    if validated:
        auc = read_metrics(RunPaths(run_dir).validation(validated[-1])).auc
        note.append(f"{len(validated)} validated" + ("" if auc is None else f", AUC {auc:.3f}"))
    return line.step if line else 0, ", ".join(note)


def _key(job: Job) -> str:
    return f"lhcq:done:{job.kind}:{job.name}"
