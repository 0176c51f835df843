"""The reconciler: finds work that is neither done nor under way, and publishes it again.

It heals a lost message, a dead submitter, a flushed broker and a dead chord. Every worker runs it in a thread; the
one that holds the lock acts. A unit is published again when its queue is empty, nobody holds its lease, it waits
for no backoff, and all this held in two scans in a row: then no message for it can be on the way.
"""

import contextlib
import logging
import threading

import redis
from redis.exceptions import LockError

from lhcq.workspace import Workspace
from tasks.app import redis_client, workspace
from tasks.attempts import backoff_key
from tasks.flows import publish_unit
from tasks.jobs import list_jobs, outcome_of
from tasks.leases import lease_key
from tasks.pending import Unit, pending_units

log = logging.getLogger(__name__)

SCAN_SECONDS = 4.0
_LOCK = "lhcq:reconciler"
_LOCK_SECONDS = 3 * SCAN_SECONDS


def reconcile(place: Workspace, suspects: set[str]) -> set[str]:
    """Scan once: publish the units that are idle and were so in `suspects`; give those newly idle."""
    idle = idle_units(place)
    for unit in idle:
        if unit.key in suspects:
            log.warning("%s was neither done nor under way: published again", unit.key)
            publish_unit(unit)
    return {unit.key for unit in idle} - suspects


def idle_units(place: Workspace) -> list[Unit]:
    """Units of open jobs that have no output, no lease, no backoff, and no message waiting in their queue."""
    client = redis_client()
    units = [
        unit
        for job in list_jobs(place)
        if outcome_of(place, job) is None
        for unit in pending_units(place, job)
    ]
    empty = {queue: client.llen(queue) == 0 for queue in {unit.queue for unit in units}}
    units = [unit for unit in units if empty[unit.queue]]
    if not units:
        return []
    marks = client.mget([key for unit in units for key in (lease_key(unit.key), backoff_key(unit))])
    return [
        unit
        for unit, held, waits in zip(units, marks[::2], marks[1::2], strict=True)
        if not held and not waits
    ]


def start_reconciler(stop: threading.Event) -> threading.Thread:
    """Run the scans in a daemon thread until `stop`."""
    thread = threading.Thread(target=_scan_for_ever, args=(stop,), name="reconciler", daemon=True)
    thread.start()
    return thread


def _scan_for_ever(stop: threading.Event) -> None:
    suspects: set[str] = set()
    lock: redis.lock.Lock | None = None
    while not stop.wait(SCAN_SECONDS):
        try:
            lock = _hold(lock)
            suspects = reconcile(workspace(), suspects) if lock else set()
        except redis.RedisError as error:
            log.warning("reconciler: the broker does not answer: %s", error)
            suspects = set()
        except Exception:  # a bug here must not end the healing
            log.exception("reconciler: a scan failed")
            suspects = set()


def _hold(lock: "redis.lock.Lock | None") -> "redis.lock.Lock | None":
    """Keep the lock from scan to scan, so that one worker sees a unit idle twice; None when another holds it."""
    if lock is not None:
        with contextlib.suppress(LockError):
            lock.extend(_LOCK_SECONDS, replace_ttl=True)
            return lock
    lock = redis_client().lock(_LOCK, timeout=_LOCK_SECONDS, blocking=False)
    return lock if lock.acquire() else None
