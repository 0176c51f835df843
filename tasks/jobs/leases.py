"""Leases: a claim on one unit of work, held in Redis while the work runs.

A lease saves work that two workers would do twice; correctness rests on the commit that only the first can make.
It expires on the server, and its token says who holds it. It is taken, extended and given back by one script, which
counts the attempt too (`tasks.jobs.turns`); a thread of the process extends it, never the worker's event loop, and
whoever lost it stops at its next `check`.

A lease may expire while its holder lives: its process stood still, on a machine that does too much at once, or the
broker was away. That alone loses nothing. Whoever stood still asks before anything else, and has it again unless
somebody else began the unit since: to stop would throw away an hour's training for nothing. While the broker cannot
be asked, the work goes on: nobody can take the lease there either, or, if this host alone is cut off, the copy that
another makes is harmless.
"""

import contextlib
import contextvars
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lhcq.errors import LeaseLost
from lhcq.records.failures import Holder
from tasks.broker.connection import LEASE_PREFIX
from tasks.jobs.turns import Claim, Ending, Released, extend_lease, give_back_lease, take_lease
from tasks.jobs.units import unit_key

log = logging.getLogger(__name__)

# A killed worker's unit is found after this and two scans. Shorter would lose the leases of workers that stand still
# for a moment (a swapping host, a broker that restarts from its file), and each lost lease is a unit done twice.
LEASE_SECONDS = 10.0
_EXTEND_EVERY_SECONDS = LEASE_SECONDS / 4


class Lease:
    """A claim that is held."""

    attempts = 1
    """How many there were with this one, where they are counted."""
    ending: Ending = "untried"
    """How the attempt ended, for whoever counts."""

    def __init__(
        self,
        job_ended: Callable[[], bool] = lambda: False,
        extend: Callable[["Lease"], None] = lambda _: None,
    ) -> None:
        self._lost = threading.Event()
        self._asking = threading.Lock()
        """Held by who extends it and who gives it back: what was given back must not be taken again by the other."""
        self._job_ended = job_ended
        self._extend = extend
        self._awake = time.monotonic()
        self._over = False
        self.released: list[Released] = []
        """Units to publish: those that its beginning released, and afterwards those that its end did."""

    @property
    def lost(self) -> bool:
        """Whether somebody else took it, as far as the broker can be asked, or the job ended: then nothing may be
        committed any more."""
        if time.monotonic() - self._awake > LEASE_SECONDS and not self._lost.is_set():
            self._extend(self)  # this process stood still, and its thread may not have asked yet
        return self._lost.is_set() or self._job_ended()

    def check(self) -> None:
        """Raise `LeaseLost` if it is lost: called between blocks of work, and before a commit."""
        if self.lost:
            raise LeaseLost("the lease was lost, so another worker does this or did it")


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
    takes it again, unless another was first.
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
    client: "redis.Redis",
    unit: str,
    *,
    job_ended: Callable[[], bool] = lambda: False,
    claim: Claim | None = None,
) -> Iterator[Lease | None]:
    """Hold the lease on `unit` for the body; gives None when another worker holds it.

    `job_ended` is asked at each check: a worker that is cut off from the broker still sees the workspace. With a
    `claim` the attempt is counted in the same step, and the body says in `held.ending` how it ended.
    """
    holder = {"by": Holder.this_process().model_dump()}
    token = json.dumps({"holder": holder["by"], "token": secrets.token_hex(8)})
    key = lease_key(unit)

    def ask(held: Lease) -> None:
        with _impatient(client) as own:
            _extend(own, key, token, claim, held)

    held = Lease(job_ended, ask)
    held.attempts, held.released = take_lease(client, key, token, LEASE_SECONDS, claim, json.dumps(holder))
    if not held.attempts:
        yield None
        return
    _extender.add(held, client, key, token, claim)
    try:
        yield held
    finally:
        _extender.remove(held)
        with contextlib.suppress(redis.RedisError):  # out of reach: it expires by itself
            held.released = give_back_lease(client, key, token, claim, held.ending)


class _Extender:
    """The thread of this process that extends the leases which it holds; it ends once there was none for a while."""

    def __init__(self) -> None:
        self._leases: dict[Lease, tuple[redis.Redis, str, str, Claim | None, contextvars.Context]] = {}
        os.register_at_fork(after_in_child=self._begin)
        self._begin()

    def _begin(self) -> None:
        """With nothing: a forked child has none of its parent's threads and leases."""
        for held in self._leases:
            held._asking = threading.Lock()  # which a thread of the parent may have held
        self._leases.clear()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, held: Lease, client: "redis.Redis", key: str, token: str, claim: Claim | None) -> None:
        """Extend a lease from now on; what is logged about it is about the unit of the caller too."""
        with self._guard:
            self._leases[held] = (client, key, token, claim, contextvars.copy_context())
            if self._thread is None:  # short work follows each other under one thread, and pays for none
                self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
                self._thread.start()

    def remove(self, held: Lease) -> None:
        """Extend it no more."""
        with held._asking:
            held._over = True
        with self._guard:
            self._leases.pop(held, None)  # a child that was forked meanwhile does not know it

    def _run(self) -> None:
        with contextlib.ExitStack() as clients:
            impatient: dict[int, redis.Redis] = {}
            while True:
                time.sleep(_EXTEND_EVERY_SECONDS)
                with self._guard:
                    if not self._leases:
                        self._thread = None
                        return
                    leases = list(self._leases.items())
                for held, (client, key, token, claim, context) in leases:
                    if id(client) not in impatient:
                        impatient[id(client)] = clients.enter_context(_impatient(client))
                    context.run(_extend, impatient[id(client)], key, token, claim, held)


def _extend(client: "redis.Redis", key: str, token: str, claim: Claim | None, held: Lease) -> None:
    with held._asking:
        if held._over or held._lost.is_set():
            return
        held._awake = time.monotonic()
        try:
            if not extend_lease(client, key, token, LEASE_SECONDS, claim, held.attempts):
                log.warning("lease %s was lost: another worker began the unit", key)
                held._lost.set()
        except redis.RedisError as error:
            log.warning("lease %s could not be extended: %s", key, error)


_extender = _Extender()


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
