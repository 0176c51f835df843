"""How far a job is, for those who watch: as the broker counts what ends, or, where it cannot tell, as the workspace
has it.

The truth is the workspace, where counting lists a directory of as many files.
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
from tasks.broker.connection import has_broker
from tasks.jobs.kinds import finished_chunks, kind_of
from tasks.jobs.turns import counted


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
            done = counted(job)
            if done is not None:
                return done
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
