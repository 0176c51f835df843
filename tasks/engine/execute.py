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
from lhcq.records.failures import Failure, Holder, failures_of, record_failure
from lhcq.records.job_control import is_held
from lhcq.records.jobs import Job, find_job, outcome_of
from lhcq.workspace import Workspace
from tasks.app import own_workspace
from tasks.broker.connection import redis_client
from tasks.engine.publish import publish_released
from tasks.jobs.attempts import MAX_ATTEMPTS, announce_trouble
from tasks.jobs.kinds import is_chunk, kind_of, kind_of_task, queue_of
from tasks.jobs.leases import Lease, lease
from tasks.jobs.planner import pending_units
from tasks.jobs.store import OpenJob, end_with_failures, is_permanent, message_of, require_same_bytes
from tasks.jobs.turns import Claim, Ending, note_end, withdraw
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
    if job is None:
        return "closed"
    with working_on(unit):
        try:
            if is_held(workspace, job):
                withdraw(job)  # whoever resumes it publishes what is left
                return "paused"
            if outcome_of(workspace, job) is not None:
                withdraw(job)  # what else waits of it has no turn any more
                return "closed"
            return _perform(workspace, job, unit, work, done)
        except redis.RedisError as error:
            log.warning("%s: the broker is away, so this waits for the reconciler: %s", unit.key, error)
            return "again"


def _perform(
    workspace: Workspace, job: Job, unit: Unit, work: Work, done: Callable[[Workspace, Job], bool]
) -> Status:
    claim = Claim(job, unit, queue_of(unit))
    if done(workspace, job):
        publish_released(workspace, note_end(claim, "done"))
        return "already"
    with lease(redis_client(), unit.key, job_ended=OpenJob(workspace, job).ended, claim=claim) as held:
        if held is None:
            return "leased"
        publish_released(workspace, held.released)  # first: another worker may have nothing to do
        held.released = []
        status = _perform_held(workspace, job, unit, held, work, done)
        held.ending = _ENDINGS[status]
    publish_released(workspace, held.released)
    return status


_ENDINGS: dict[Status, Ending] = {
    "done": "done",
    "already": "done",
    "failed": "given up",
    "again": "again",
    "leased": "untried",
    "closed": "untried",
}


def _perform_held(
    workspace: Workspace,
    job: Job,
    unit: Unit,
    held: Lease,
    work: Work,
    done: Callable[[Workspace, Job], bool],
) -> Status:
    if done(workspace, job):
        return "already"  # since it was looked for
    if not kind_of(job).fans_out and unit not in pending_units(workspace, job):
        return "closed"  # out of turn: a test before the training's end, a step that nobody planned
    with span_under(job.trace, unit.task, **_told(job, unit)):
        status = _attempt(workspace, job, unit, held, work)
        note_span(status=status)
        return status


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
    attempts = held.attempts
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
        return "leased"
    except Exception as error:
        return _handle(workspace, job, unit, error, attempts)
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
