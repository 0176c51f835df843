"""Where the broker of this process is, clients of its database, and the keys there that several rooms know."""

import functools
from typing import Any

import redis

from lhcq.address import BrokerAddress
from lhcq.environment import Settings
from tasks.settings import tls_options

LEASE_PREFIX = "lhcq:lease:"
CLAIM_KEY = "lhcq:workspace"
"""Whose database it is: the identity of the workspace, and where it was seen first. Held for good."""

_here: list[BrokerAddress] = []


def point_at(address: BrokerAddress | None) -> None:
    """Have all that is asked for from now on go to a broker; None: to none."""
    _here[:] = [address] if address else []
    redis_client.cache_clear()


def has_broker() -> bool:
    """Whether this process was pointed at a broker."""
    return bool(_here)


def broker_address() -> BrokerAddress:
    """Where this process points. Raises `BadInput` where that is nowhere."""
    return _here[0] if _here else BrokerAddress.of("")


@functools.cache
def redis_client() -> "redis.Redis":
    """A client of the broker's own database, for leases and counters."""
    return new_client(socket_timeout=30, socket_connect_timeout=10)


def new_client(**options: Any) -> "redis.Redis":
    """A client of the broker's own database, with connections of its own."""
    address = broker_address()
    tls = tls_options(address, Settings.from_environment())
    return redis.Redis(decode_responses=True, **address.client_options(), **tls, **options)
