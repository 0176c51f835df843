"""The Celery application."""

import functools
from typing import Any

import redis
from celery import Celery

from lhcq.address import BrokerAddress
from lhcq.config import Settings
from lhcq.workspace import Workspace
from tasks.internals import OwnLoader, check_messages
from tasks.settings import celery_settings, forget_foreign, tls_options

foreign_settings = forget_foreign()
"""Celery's variables that another project left in the environment; nothing of lhcq's follows them."""
check_messages()
app = Celery(
    "lhcq",
    loader=OwnLoader,
    include=[
        "tasks.generation",
        "tasks.clustering",
        "tasks.prompting",
        "tasks.training",
        "tasks.prediction",
        "tasks.duty",
        "tasks.examination",
    ],
)


def connect(broker_url: str) -> None:
    """Point the application at a broker; the empty address at none. Raises `BadInput` for one that cannot be."""
    address = BrokerAddress.of(broker_url) if broker_url else None
    app.conf.update(celery_settings(address, Settings.from_environment().broker_ca))
    redis_client.cache_clear()


def broker_address() -> BrokerAddress:
    """Where the application points."""
    return BrokerAddress.of(str(app.conf.broker_url))


@functools.cache
def workspace() -> Workspace:
    """The workspace of this process."""
    settings = Settings.from_environment()
    return Workspace(settings.workspace, settings.data_roots)


@functools.cache
def redis_client() -> "redis.Redis":
    """A client of the broker's own database, for leases and counters."""
    return new_client(socket_timeout=30, socket_connect_timeout=10)


def new_client(**options: Any) -> "redis.Redis":
    """A client of the broker's own database, with connections of its own."""
    address = broker_address()
    tls = tls_options(address, Settings.from_environment().broker_ca)
    return redis.Redis(decode_responses=True, **address.client_options(), **tls, **options)


if broker_url := Settings.from_environment().broker_url:
    connect(broker_url)
