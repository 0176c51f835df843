"""How many parts of a job are done, for those who watch: a set of their indices in Redis, counted in one step.

The truth is the workspace, where counting lists a directory of as many files. A broker that was flushed has lost the
mark of completeness with the set, so nothing is shown from half of one: the reconciler reads the workspace again.
"""

import contextlib

import redis

from lhcq.workspace import Workspace
from tasks.broker.connection import redis_client
from tasks.jobs.planner import finished_parts
from tasks.jobs.store import Job

_COMPLETE = "complete"
"""Member of a set into which the workspace was read."""
_KEEP_SECONDS = 7 * 24 * 3600


def count_part(job: Job, index: int) -> None:
    """Count a part that was committed; twice is once."""
    with contextlib.suppress(redis.RedisError):  # it is committed all the same
        redis_client().sadd(_key(job), index)


def counted_parts(job: Job) -> int | None:
    """How many parts of `job` are done; None when Redis does not know."""
    with redis_client().pipeline(transaction=False) as pipe:
        pipe.sismember(_key(job), _COMPLETE)
        pipe.scard(_key(job))
        complete, size = pipe.execute()
    return int(size) - 1 if complete else None


def recount(place: Workspace, job: Job) -> None:
    """Read the workspace into the set, if Redis lost it; parts that are committed meanwhile count themselves."""
    client = redis_client()
    if not client.sismember(_key(job), _COMPLETE):
        client.sadd(_key(job), _COMPLETE, *finished_parts(place, job))
        client.expire(_key(job), _KEEP_SECONDS)


def forget_count(job: Job) -> None:
    """Know nothing of a job."""
    with contextlib.suppress(redis.RedisError):
        redis_client().delete(_key(job))


def _key(job: Job) -> str:
    return f"lhcq:done:{job.kind}:{job.name}"
