"""Attempts at a unit of work: counted, spaced out, and told to whoever waits for the job. Kept in Redis."""

import json
import logging
import traceback
from collections.abc import Iterable

import redis

from lhcq.errors import DiskFull
from lhcq.frozen import Frozen
from lhcq.records.failures import Holder
from lhcq.records.jobs import Job
from tasks.broker.connection import redis_client
from tasks.jobs.store import message_of
from tasks.jobs.units import Unit

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
LONGEST_BACKOFF_SECONDS = 2**MAX_ATTEMPTS
_TROUBLE_SECONDS = 60


class Attempt(Frozen):
    """The latest attempt at a unit that has not gone well yet."""

    count: int
    """How many there were with it."""
    by: Holder
    message: str | None = None
    """How it failed; None while it lasts, and when its worker died."""
    traceback: str | None = None


def forget_attempts(job: Job, units: Iterable[Unit] | None = None) -> None:
    """Count anew: the given units, or all of the job."""
    if units is None:
        redis_client().delete(_attempts_key(job), _latest_key(job), trouble_key(job))
    elif keys := [unit.key for unit in units]:
        with redis_client().pipeline() as pipe:
            pipe.hdel(_attempts_key(job), *keys)
            pipe.hdel(_latest_key(job), *keys)
            pipe.execute()


def latest_attempt(job: Job, unit: Unit) -> Attempt | None:
    """The latest attempt at `unit`, if there was one and it did not go well."""
    client = redis_client()
    count, latest = client.hget(_attempts_key(job), unit.key), client.hget(_latest_key(job), unit.key)
    if count is None or latest is None:
        return None
    return Attempt.checked(count=int(str(count)), **json.loads(str(latest)))


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
        latest = {
            "by": Holder.this_process().model_dump(),
            "message": message_of(error),
            "traceback": "".join(traceback.format_exception(error)),
        }
        client.hset(_latest_key(job), unit.key, json.dumps(latest))
    except redis.RedisError:
        log.warning("could not announce the trouble of %s", unit.key)


def _attempts_key(job: Job) -> str:
    return f"lhcq:attempts:{job.kind}:{job.name}"


def _latest_key(job: Job) -> str:
    return f"lhcq:latest:{job.kind}:{job.name}"
