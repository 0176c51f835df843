"""Leases: a claim on one unit of work, held in Redis while the work runs.

A lease saves work that two workers would do twice; correctness rests on the commit that only the first can make.
The lock is redis-py's (server-side expiry, owner token, scripts for extend and release). A thread extends it,
never the worker's event loop; whoever lost the lease finds `lost` set and stops.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator

import redis
from redis.exceptions import LockError

log = logging.getLogger(__name__)

LEASE_PREFIX = "lhcq:lease:"
LEASE_SECONDS = 15.0
_EXTEND_EVERY_SECONDS = LEASE_SECONDS / 3


class Lease:
    """A claim that is held."""

    def __init__(self) -> None:
        self._lost = threading.Event()
        self._ended = threading.Event()

    @property
    def lost(self) -> bool:
        """Whether somebody else may hold it by now."""
        return self._lost.is_set()


def lease_key(unit: str) -> str:
    """The Redis key of a unit's lease."""
    return f"{LEASE_PREFIX}{unit}"


def is_leased(client: "redis.Redis", unit: str) -> bool:
    """Whether a worker holds the lease on `unit`."""
    return bool(client.exists(lease_key(unit)))


@contextlib.contextmanager
def lease(client: "redis.Redis", unit: str) -> Iterator[Lease | None]:
    """Hold the lease on `unit` for the body; gives None when another worker holds it."""
    lock = client.lock(lease_key(unit), timeout=LEASE_SECONDS, blocking=False, thread_local=False)
    if not lock.acquire():
        yield None
        return
    held = Lease()
    extender = threading.Thread(target=_extend, args=(lock, held), name=f"lease-{unit}", daemon=True)
    extender.start()
    try:
        yield held
    finally:
        held._ended.set()
        extender.join()
        # Lost or out of reach: it expires by itself.
        with contextlib.suppress(LockError, redis.RedisError):
            lock.release()


def _extend(lock: "redis.lock.Lock", held: Lease) -> None:
    while not held._ended.wait(_EXTEND_EVERY_SECONDS):
        try:
            lock.extend(LEASE_SECONDS, replace_ttl=True)
        except LockError:
            log.warning("lease %s was lost", lock.name)
            held._lost.set()
            return
        except redis.RedisError as error:
            # The broker is away: the work goes on, since its commit is what counts.
            log.warning("lease %s could not be extended: %s", lock.name, error)
