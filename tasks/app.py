"""The Celery application: `celery -A tasks.app worker`."""

import functools
from typing import Any

import redis
from celery import Celery

from lhcq.config import Settings
from lhcq.errors import TransientError
from lhcq.workspace import Workspace
from tasks.settings import celery_settings

app = Celery(
    "lhcq",
    include=["tasks.generation", "tasks.clustering", "tasks.prompting", "tasks.training", "tasks.duty"],
)


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
    url = str(app.conf.broker_url).replace("redis+socket://", "unix://", 1)
    keepalive = {} if url.startswith("unix://") else {"socket_keepalive": True}
    return redis.Redis.from_url(
        url, socket_timeout=30, socket_connect_timeout=10, decode_responses=True, **keepalive
    )


def ask_broker(question: str = "ping") -> Any:
    """Ask the broker something simple, or raise `TransientError` with the remedy."""
    try:
        return getattr(redis_client(), question)()
    except redis.RedisError as error:
        raise TransientError(
            f"the broker at {public_url(app.conf.broker_url)} does not answer ({error}). Start it, or unset "
            "LHCQ_BROKER_URL to let lhcq bring its own."
        ) from error


def public_url(url: str) -> str:
    """The address without its password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


if broker_url := Settings.from_environment().broker_url:
    connect(broker_url)
