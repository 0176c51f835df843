"""The Celery application: `celery -A tasks.app worker`."""

import functools
from typing import Any

import redis
from celery import Celery
from redis.backoff import NoBackoff
from redis.retry import Retry

from lhcq.config import Settings
from lhcq.errors import BadInput, TransientError
from lhcq.workspace import Workspace
from tasks.settings import celery_settings

app = Celery(
    "lhcq",
    include=["tasks.generation", "tasks.clustering", "tasks.prompting", "tasks.training", "tasks.duty"],
)

_SCHEMES = ("redis://", "rediss://", "redis+socket://")
_ASK_SECONDS = 5.0


def connect(broker_url: str) -> None:
    """Point the application at a broker."""
    app.conf.update(celery_settings(broker_url))
    redis_client.cache_clear()


@functools.cache
def workspace() -> Workspace:
    """The workspace of this process."""
    return Workspace(Settings.from_environment().workspace)


@functools.cache
def redis_client() -> "redis.Redis":
    """A client of the broker's own database, for leases and counters."""
    return _client(socket_timeout=30, socket_connect_timeout=10)


def _client(**options: Any) -> "redis.Redis":
    url = str(app.conf.broker_url).replace("redis+socket://", "unix://", 1)
    keepalive = {} if url.startswith("unix://") else {"socket_keepalive": True}
    return redis.Redis.from_url(url, decode_responses=True, **keepalive, **options)


def ask_broker() -> None:
    """Ask the broker once whether it is there: raises `BadInput` for an address that cannot be one, and
    `TransientError` with the remedy when it does not answer within seconds.
    """
    url = public_url(str(app.conf.broker_url))
    if not url.startswith(_SCHEMES):
        raise BadInput(f"LHCQ_BROKER_URL is {url!r}: it has to start with one of {', '.join(_SCHEMES)}.")
    once = Retry(NoBackoff(), 0)  # a person waits for the answer
    try:
        with _client(socket_timeout=_ASK_SECONDS, socket_connect_timeout=_ASK_SECONDS, retry=once) as client:
            client.ping()
    except (redis.RedisError, OSError) as error:
        reason = str(error).rstrip(".")
        raise TransientError(
            f"the broker at {url} does not answer ({reason}). Start it, or unset LHCQ_BROKER_URL to let lhcq "
            "bring its own."
        ) from error
    except ValueError as error:
        raise BadInput(f"LHCQ_BROKER_URL is {url!r}: {error}.") from error


def public_url(url: str) -> str:
    """The address without its password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


if broker_url := Settings.from_environment().broker_url:
    connect(broker_url)
