"""How every task does its work: once at a time, counted, and without raising.

A chord header that raises takes the chord with it, and a merge that was refused can be asked for again; so a task
returns a word about what happened, and what it could not do is left to the reconciler or given up in the open.
"""

import logging
import socket
import traceback
from collections.abc import Callable
from typing import Literal

import redis

from lhcq.errors import DiskFull, LhcqError
from lhcq.workspace import Workspace
from tasks.app import redis_client, workspace
from tasks.jobs import (
    Failure,
    Job,
    Kind,
    end_with_failures,
    failures_of,
    find_job,
    is_permanent,
    message_of,
    outcome_of,
    record_failure,
)
from tasks.leases import Lease, lease
from tasks.pending import Unit

log = logging.getLogger(__name__)

Status = Literal["done", "already", "leased", "closed", "again", "failed"]
Work = Callable[[Workspace, Job, Lease], None]

MAX_ATTEMPTS = 5
_TROUBLE_SECONDS = 60


def perform(kind: Kind, unit: Unit, work: Work, *, done: Callable[[Workspace, Job], bool]) -> Status:
    """Do `work` for `unit` under its lease, unless its output stands or its job has ended.

    An error that is wrong input, or the last of `MAX_ATTEMPTS`, is recorded beside the job; any other leaves the
    unit pending, and the reconciler publishes it again after a pause that doubles.
    """
    place = workspace()
    job = find_job(place, kind, str(unit.args[0]))
    if job is None or outcome_of(place, job) is not None:
        return "closed"
    with lease(redis_client(), unit.key) as held:
        if held is None:
            return "leased"
        if done(place, job):
            return "already"
        attempts = count_attempt(unit)
        try:
            if attempts > MAX_ATTEMPTS:
                raise _WorkerKilled(
                    f"{unit.key}: its worker died {attempts - 1} times. See the workers' logs."
                )
            work(place, job, held)
        except Exception as error:
            return _handle(place, job, unit, error, attempts)
    return "done"


class _WorkerKilled(LhcqError):
    """The attempts ran out without one ending."""


def count_attempt(unit: Unit) -> int:
    """Count one more attempt at `unit`, and say how many there were."""
    return int(redis_client().hincrby("lhcq:attempts", unit.key, 1))


def forget_attempts(units: list[str]) -> None:
    """Start counting anew, after a person asked to try again."""
    if units:
        redis_client().hdel("lhcq:attempts", *units)


def backoff_key(unit: Unit) -> str:
    """The Redis key that stands while a unit should not be tried again yet."""
    return f"lhcq:backoff:{unit.key}"


def trouble_key(job: Job) -> str:
    """The Redis key that holds a job's latest trouble, for whoever waits for the job."""
    return f"lhcq:trouble:{job.kind}:{job.name}"


def trouble_of(job: Job) -> tuple[bool, str] | None:
    """The latest trouble of a job in the last minute: whether the disk was full, and the message."""
    value = redis_client().get(trouble_key(job))
    if not value:
        return None
    kind, _, message = str(value).partition("|")
    return kind == "full", message


def _handle(place: Workspace, job: Job, unit: Unit, error: Exception, attempts: int) -> Status:
    permanent = is_permanent(error)
    log.error("%s, attempt %d: %s", unit.key, attempts, message_of(error), exc_info=not permanent)
    if not permanent and attempts < MAX_ATTEMPTS:
        _announce_trouble(job, unit, error, attempts)
        return "again"
    failure = Failure(
        unit=unit.key,
        message=message_of(error),
        permanent=permanent,
        attempts=attempts,
        host=socket.gethostname(),
        traceback="".join(traceback.format_exception(error)),
    )
    record_failure(place, job, failure)
    if not unit.task.endswith("_part"):  # a fan-out goes on with its other parts; the merge ends it
        end_with_failures(place, job, failures_of(place, job))
    return "failed"


def _announce_trouble(job: Job, unit: Unit, error: Exception, attempts: int) -> None:
    kind = "full" if isinstance(error, DiskFull) else "other"
    try:
        client = redis_client()
        client.set(backoff_key(unit), "1", ex=2**attempts)
        client.set(trouble_key(job), f"{kind}|{message_of(error)}", ex=_TROUBLE_SECONDS)
    except redis.RedisError:
        log.warning("could not announce the trouble of %s", unit.key)
