"""How every task does its work: once at a time, counted, and without raising.

A chord header that raises takes the chord with it, and a merge that was refused can be asked for again; so a task
returns a word about what happened, and what it could not do is left to the reconciler or given up in the open.
"""

import logging
import traceback
from collections.abc import Callable
from typing import Literal

import redis
from celery import current_task

from lhcq.errors import LeaseLost, LhcqError
from lhcq.records.job_control import is_held
from lhcq.records.jobs import Failure, Holder, Job, failures_of, find_job, outcome_of, record_failure
from lhcq.workspace import Workspace
from tasks.app import own_workspace
from tasks.broker.connection import redis_client
from tasks.jobs.attempts import (
    MAX_ATTEMPTS,
    announce_trouble,
    count_attempt,
    forget_attempt,
    take_back_attempt,
)
from tasks.jobs.kinds import is_chunk, kind_of, kind_of_task, queue_of
from tasks.jobs.leases import Lease, lease
from tasks.jobs.planner import pending_units
from tasks.jobs.store import OpenJob, end_with_failures, is_permanent, message_of, require_same_bytes
from tasks.jobs.units import Unit
from tasks.observe.logging import note_attempt, working_on
from tasks.observe.tracing import note_error, note_span, span_under

log = logging.getLogger(__name__)

Status = Literal["done", "already", "leased", "closed", "paused", "again", "failed"]
Work = Callable[[Workspace, Job, Unit, Lease], None]
"""What a task does for a unit of a job, under a lease."""


def perform(unit: Unit, work: Work, *, done: Callable[[Workspace, Job], bool]) -> Status:
    """Do `work` for `unit` under its lease, unless its output stands or its job has ended.

    An error that is wrong input, or the last of `MAX_ATTEMPTS`, is recorded beside the job; any other leaves the
    unit pending, and the reconciler publishes it again after a pause that doubles. Work that finds its lease lost
    stops by `LeaseLost`, which counts as no attempt.
    """
    workspace = own_workspace()
    job = find_job(workspace, kind_of_task(unit.task).name, unit.name)
    if job is None or outcome_of(workspace, job) is not None:
        return "closed"
    if is_held(workspace, job):
        return "paused"
    with working_on(unit):
        return _perform(workspace, job, unit, work, done)


def _perform(
    workspace: Workspace, job: Job, unit: Unit, work: Work, done: Callable[[Workspace, Job], bool]
) -> Status:
    try:
        with lease(redis_client(), unit.key, job_ended=OpenJob(workspace, job).ended) as held:
            if held is None:
                return "leased"
            if done(workspace, job):
                return "already"
            if not kind_of(job).fans_out and unit not in pending_units(workspace, job):
                return "closed"  # out of turn: a test before the training's end, a step that nobody planned
            with span_under(job.trace, unit.task, **_told(job, unit)):
                status = _attempt(workspace, job, unit, held, work)
                note_span(status=status)
                return status
    except redis.RedisError as error:
        log.warning("%s: the broker is away, so this waits for the reconciler: %s", unit.key, error)
        return "again"


def _told(job: Job, unit: Unit) -> dict[str, str | int | None]:
    """What the span of an attempt tells beside its name."""
    request = current_task.request if current_task else None
    delivery = (request and request.delivery_info) or {}
    return {
        "job": job.title,
        "unit": unit.key,
        "part" if kind_of(job).fans_out else "step": unit.number,
        "queue": delivery.get("routing_key", queue_of(unit)),  # which tells whether it was published again
        "worker": request and request.hostname,
    }


def _attempt(workspace: Workspace, job: Job, unit: Unit, held: Lease, work: Work) -> Status:
    attempts = count_attempt(job, unit)
    note_attempt(attempts)
    note_span(attempt=attempts)
    log.info("begun")  # the last line of an attempt whose worker was killed
    try:
        if attempts > MAX_ATTEMPTS:
            raise _WorkerKilled(f"{unit.key}: its worker died {attempts - 1} times. See the workers' logs.")
        require_same_bytes(job)
        work(workspace, job, unit, held)
    except LeaseLost as error:
        log.warning("%s: %s", unit.key, error)
        take_back_attempt(job, unit)
        return "leased"
    except Exception as error:
        return _handle(workspace, job, unit, error, attempts)
    forget_attempt(job, unit)
    return "done"


class _WorkerKilled(LhcqError):
    """The attempts ran out without one ending."""


def _handle(workspace: Workspace, job: Job, unit: Unit, error: Exception, attempts: int) -> Status:
    permanent = is_permanent(error)
    note_error(error)
    log.error("%s, attempt %d: %s", unit.key, attempts, message_of(error), exc_info=not permanent)
    if not permanent and attempts < MAX_ATTEMPTS:
        announce_trouble(job, unit, error, attempts)
        return "again"
    failure = Failure(
        unit=unit.key,
        message=message_of(error),
        permanent=permanent,
        attempts=attempts,
        by=Holder.this_process(),
        traceback="".join(traceback.format_exception(error)),
    )
    record_failure(workspace, job, failure)
    if not is_chunk(unit):  # a fan-out goes on with its other chunks; the merge ends it
        end_with_failures(workspace, job, failures_of(workspace, job))
    return "failed"
