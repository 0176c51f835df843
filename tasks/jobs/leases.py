"""Leases: a claim on one unit of work, held in Redis while the work runs.

A lease saves work that two workers would do twice; correctness rests on the commit that only the first can make.
The lock is redis-py's (server-side expiry, owner token, scripts for extend and release); the token says who holds
it. A thread extends it, never the worker's event loop; whoever lost the lease stops at its next `check`.

Two things can keep a lease from being extended, and they are told apart. When the broker is away, the work goes on:
nobody can take the lease there either, or, if this host alone is cut off, another's copy of the work is harmless,
while stopping would throw away every task in flight whenever the broker restarts. When the process itself stood
still for longer than the lease, the lease has expired, and it stops without asking.
"""

import contextlib
import contextvars
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import redis
from redis.backoff import NoBackoff
from redis.exceptions import LockError
from redis.retry import Retry

from lhcq.errors import LeaseLost
from lhcq.records.jobs import Holder
from tasks.broker.connection import LEASE_PREFIX
from tasks.jobs.units import unit_key

log = logging.getLogger(__name__)

# A killed worker's unit is found after this and two scans. Shorter would lose the leases of workers that stand still
# for a moment (a swapping host, a broker that restarts from its file), and each lost lease is a unit done twice.
LEASE_SECONDS = 10.0
_EXTEND_EVERY_SECONDS = LEASE_SECONDS / 4


class Lease:
    """A claim that is held."""

    def __init__(self, job_ended: Callable[[], bool] = lambda: False) -> None:
        self._lost = threading.Event()
        self._job_ended = job_ended
        self._ended = threading.Event()
        self._awake = time.monotonic()

    @property
    def lost(self) -> bool:
        """Whether somebody else may hold it by now, or the job ended: then nothing may be committed any more."""
        return self._lost.is_set() or self._stood_still() or self._job_ended()

    def check(self) -> None:
        """Raise `LeaseLost` if it is lost: called between blocks of work, and before a commit."""
        if self.lost:
            raise LeaseLost("the lease was lost, so another worker does this or did it")

    def _stood_still(self) -> bool:
        return time.monotonic() - self._awake > LEASE_SECONDS


class NoLease(Lease):
    """Of work that nobody else is asked to do."""

    @property
    def lost(self) -> bool:
        """Never."""
        return False


def lease_key(unit: str) -> str:
    """The Redis key of a unit's lease."""
    return f"{LEASE_PREFIX}{unit}"


def is_leased(client: "redis.Redis", unit: str) -> bool:
    """Whether a worker holds the lease on `unit`."""
    return 0 < client.pttl(lease_key(unit)) <= 1000 * LEASE_SECONDS


def drop_overlong(client: "redis.Redis", key: str, seconds: float) -> bool:
    """Forget a key that was set for `seconds` and claims to last longer; whether it did.

    The broker's clock was set back since, and would keep what a dead host held for all that time. A holder that lives
    finds its lease lost, and stops.
    """
    if client.pttl(key) <= 1000 * seconds:
        return False
    log.warning(
        "%s claims more than the %.0f s that it was set for: the broker's clock was set back", key, seconds
    )
    client.delete(key)
    return True


def is_any_leased(client: "redis.Redis", tasks: Iterable[str], name: str) -> bool:
    """Whether a worker holds the lease on a unit of these tasks for the job of a name."""
    for task in tasks:
        key = lease_key(unit_key(task, (name,)))
        for one in (key, *client.scan_iter(f"{key}:*", count=1000)):
            if 0 < client.pttl(one) <= 1000 * LEASE_SECONDS:
                return True
    return False


def holder_of(client: "redis.Redis", unit: str) -> Holder | None:
    """Who holds the lease on `unit`."""
    token = client.get(lease_key(unit))
    if token is None:
        return None
    return Holder.checked(**json.loads(str(token))["holder"])


@contextlib.contextmanager
def lease(
    client: "redis.Redis", unit: str, *, job_ended: Callable[[], bool] = lambda: False
) -> Iterator[Lease | None]:
    """Hold the lease on `unit` for the body; gives None when another worker holds it.

    `job_ended` is asked at each check: a worker that is cut off from the broker still sees the workspace.
    """
    lock = client.lock(lease_key(unit), timeout=LEASE_SECONDS, blocking=False, thread_local=False)
    token = json.dumps({"holder": Holder.this_process().model_dump(), "token": secrets.token_hex(8)})
    if not lock.acquire(token=token) and not (
        drop_overlong(client, lease_key(unit), LEASE_SECONDS) and lock.acquire(token=token)
    ):
        yield None
        return
    held = Lease(job_ended)
    extender = threading.Thread(
        target=contextvars.copy_context().run,  # what it logs is about this unit too
        args=(_extend, client, lock, held),
        name=f"lease-{unit}",
        daemon=True,
    )
    extender.start()
    try:
        yield held
    finally:
        held._ended.set()
        extender.join()
        # Lost or out of reach: it expires by itself.
        with contextlib.suppress(LockError, redis.RedisError):
            lock.release()


def _extend(client: "redis.Redis", lock: "redis.lock.Lock", held: Lease) -> None:
    if held._ended.wait(_EXTEND_EVERY_SECONDS):
        return  # most chunks end before the first extension, and pay nothing for it
    with _impatient(client) as own:
        mine = own.lock(lock.name, timeout=LEASE_SECONDS, thread_local=False)
        mine.local.token = lock.local.token
        while True:
            try:
                if held._stood_still():
                    raise LockError("this process stood still for longer")
                held._awake = time.monotonic()
                mine.extend(LEASE_SECONDS, replace_ttl=True)
            except LockError as error:
                log.warning("lease %s was lost: %s", lock.name, error)
                held._lost.set()
                return
            except redis.RedisError as error:
                log.warning("lease %s could not be extended: %s", lock.name, error)
            if held._ended.wait(_EXTEND_EVERY_SECONDS):
                return


@contextlib.contextmanager
def _impatient(client: "redis.Redis") -> Iterator["redis.Redis"]:
    """A client that gives up within an interval, so that the next try still finds the lease alive."""
    options = {
        **client.connection_pool.connection_kwargs,
        "socket_timeout": _EXTEND_EVERY_SECONDS,
        "socket_connect_timeout": _EXTEND_EVERY_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    pool = redis.ConnectionPool(connection_class=client.connection_pool.connection_class, **options)
    own = redis.Redis(connection_pool=pool)
    try:
        yield own
    finally:
        own.close()
        pool.disconnect()
