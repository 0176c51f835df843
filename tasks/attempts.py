"""Attempts at a unit of work: counted, spaced out, and told to whoever waits for the job. Kept in Redis."""

import contextlib
import logging

import redis

from lhcq.errors import DiskFull
from tasks.app import redis_client
from tasks.jobs import Job, message_of
from tasks.pending import Unit

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
_TROUBLE_SECONDS = 60


def count_attempt(job: Job, unit: Unit) -> int:
    """Count one more attempt at `unit`, and say how many there were."""
    return int(redis_client().hincrby(_attempts_key(job), unit.key, 1))


def forget_attempt(job: Job, unit: Unit) -> None:
    """Count `unit` anew once it went well: the segments of a run are one unit, and each has all its attempts."""
    with contextlib.suppress(redis.RedisError):  # it went well all the same
        redis_client().hdel(_attempts_key(job), unit.key)


def forget_attempts(job: Job) -> None:
    """Count anew."""
    redis_client().delete(_attempts_key(job), trouble_key(job))


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


def announce_trouble(job: Job, unit: Unit, error: Exception, attempts: int) -> None:
    """Tell that an attempt failed, and keep the reconciler from the unit for a time that doubles."""
    kind = "full" if isinstance(error, DiskFull) else "other"
    try:
        client = redis_client()
        client.set(backoff_key(unit), "1", ex=2**attempts)
        client.set(trouble_key(job), f"{kind}|{message_of(error)}", ex=_TROUBLE_SECONDS)
    except redis.RedisError:
        log.warning("could not announce the trouble of %s", unit.key)


def _attempts_key(job: Job) -> str:
    return f"lhcq:attempts:{job.kind}:{job.name}"
