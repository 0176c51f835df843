"""What lay in a queue of lhcq's and was not for lhcq: put aside, for whoever sent it, and told by `lhcq doctor`.

A message of another project reaches a queue of ours when both publish to one database, or when somebody's program has
the same queue's name. It has left the queue when it is looked at, and is nobody's to throw away.
"""

import json
import logging
from collections import Counter

import redis

from tasks.broker.connection import redis_client

log = logging.getLogger(__name__)

REFUSED_KEY = "lhcq:refused"
"""List of the messages as they lay in their queues, the newest first."""
MOST = 1_000
"""Beyond, the oldest make way: a stranger must not fill the broker with them."""
LARGEST = 64 * 1024
"""Bytes. What is larger is dropped, and said: with `MOST` it would fill the broker."""


def put_aside(message: str | bytes | None) -> str:
    """Keep a message that was taken from a queue and refused; gives what became of it, for the log."""
    if message is None or len(message) > LARGEST:
        return "dropped, being too large or too odd to keep"
    try:
        client = redis_client()
        if client.lpush(REFUSED_KEY, message) > MOST:
            client.rpop(REFUSED_KEY)
    except redis.RedisError as error:
        return f"dropped, since it could not be put aside ({error})"
    return f"put aside in the broker's list {REFUSED_KEY}"


def refused_messages() -> tuple[int, Counter[str]]:
    """How many messages were put aside and are there still, and how many of the newest hundred are of which task."""
    client = redis_client()
    # Not decoded, since a stranger's bytes need not be text.
    newest = client.execute_command("LRANGE", REFUSED_KEY, 0, 99, NEVER_DECODE=True)  # type: ignore[no-untyped-call]
    return int(client.llen(REFUSED_KEY)), Counter(_task_of(message) for message in newest)


def _task_of(message: bytes) -> str:
    """The task that a message asks for, as Celery writes it; a few words where it is none of Celery's."""
    try:
        task = json.loads(message)["headers"]["task"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return "what is no task of Celery's"
    return str(task)[:80]
