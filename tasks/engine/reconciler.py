"""The reconciler: finds work that is neither done nor under way, and publishes it again.

It heals a lost message, a dead submitter, a flushed broker and a dead chord. Every worker runs it in a thread; the
one that holds the lock acts. A unit is published again when no message for it waits, nobody holds its lease, it waits
for no backoff, and all this held in two scans in a row: then no message for it can be on the way.

That no message waits is plain when the queue is empty. A busy queue is read through now and then, so that what was
lost is found while other jobs keep the workers busy for hours.
"""

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable

import redis
from redis.exceptions import LockError

from lhcq.records.jobs import Job, list_jobs, outcome_of
from lhcq.workspace import Workspace
from tasks.app import own_workspace
from tasks.broker.acceptance import claimed_by_another
from tasks.broker.connection import redis_client
from tasks.broker.transport import queue_length, waiting_messages
from tasks.engine.publish import publish_unit
from tasks.jobs.attempts import LONGEST_BACKOFF_SECONDS, backoff_key
from tasks.jobs.kinds import kind_of, queue_of
from tasks.jobs.leases import LEASE_SECONDS, drop_overlong, lease_key
from tasks.jobs.planner import pending_units
from tasks.jobs.progress import recount
from tasks.jobs.units import Unit, unit_key
from tasks.settings import with_again

log = logging.getLogger(__name__)

# Twice this and the lease is what a killed worker costs; a scan lists the directory of each open job.
SCAN_SECONDS = 2.0
_LOCK = "lhcq:reconciler"
_LOCK_SECONDS = 3 * SCAN_SECONDS
_FIRST_READING_SECONDS = 60.0
_READ_EVERY_SECONDS = 20.0
_READ_MESSAGES_A_SECOND = 500
"""On average: what reading busy queues may cost, 1% of a core."""
_FORGET_SECONDS = 30.0
"""A queue that nobody scans for so long counts as new."""


class Reconciler:
    """What one scan has to tell the next."""

    def __init__(self) -> None:
        self.suspects: set[str] = set()
        """Keys of the units that were idle at the last scan."""

    def scan(self, workspace: Workspace) -> None:
        """Publish the units that are idle and were so at the last scan."""
        idle = self.idle_units(workspace)
        again = [unit for unit in idle if unit.key in self.suspects]
        for (task, name), count in Counter((unit.task, unit.args[0]) for unit in again).items():
            log.warning("%s %s: %d neither done nor under way, published again", task, name, count)
        for unit in again:
            publish_unit(unit, again=True)
        self.suspects = {unit.key for unit in idle} - self.suspects

    def idle_units(self, workspace: Workspace) -> list[Unit]:
        """Units of open jobs that have no output, no lease, no backoff, and no message waiting in their queue."""
        client = redis_client()
        units = [unit for job in list_jobs(workspace) for unit in _open_units(workspace, job)]
        for queue in {queue_of(unit) for unit in units}:
            if not queue_length(client, *with_again(queue)):
                client.delete(_due_key(queue))  # the next job's submitter has all the time again
            else:
                missing = self._missing(client, queue)
                units = [unit for unit in units if queue_of(unit) != queue or missing(unit)]
        if not units:
            return []
        marks = client.mget([key for unit in units for key in (lease_key(unit.key), backoff_key(unit))])
        return [
            unit
            for unit, held, waits in zip(units, marks[::2], marks[1::2], strict=True)
            if not (held and not drop_overlong(client, lease_key(unit.key), LEASE_SECONDS))
            and not (waits and not drop_overlong(client, backoff_key(unit), LONGEST_BACKOFF_SECONDS))
        ]

    def _missing(self, client: "redis.Redis", queue: str) -> Callable[[Unit], bool]:
        """Whether a busy queue has no message for a unit, by a fresh reading if one is due, else by the last scan."""
        if not _reading_is_due(client, queue):
            return lambda unit: unit.key in self.suspects
        waiting = {
            unit_key(task, arguments) for task, arguments in waiting_messages(client, *with_again(queue))
        }
        _read_again_in(client, queue, max(_READ_EVERY_SECONDS, len(waiting) / _READ_MESSAGES_A_SECOND))
        return lambda unit: unit.key not in waiting


def _reading_is_due(client: "redis.Redis", queue: str) -> bool:
    """By the broker's clock and memory: hosts that do not live long follow each other, and go on where one ended."""
    due = client.get(_due_key(queue))
    if due is None:
        _read_again_in(client, queue, _FIRST_READING_SECONDS)  # its submitter may still be publishing
        return False
    at, seconds = map(float, str(due).split())
    return not 0 < at - _broker_time(client) <= seconds  # further off, the broker's clock was set back


def _read_again_in(client: "redis.Redis", queue: str, seconds: float) -> None:
    forgotten = int(1000 * (seconds + _FORGET_SECONDS))
    client.set(_due_key(queue), f"{_broker_time(client) + seconds} {seconds}", px=forgotten)


def _due_key(queue: str) -> str:
    return f"lhcq:read:{queue}"


def _broker_time(client: "redis.Redis") -> float:
    seconds, microseconds = client.time()
    return float(seconds + microseconds / 1e6)


def _open_units(workspace: Workspace, job: Job) -> list[Unit]:
    """The pending units of a job that is open; none of one whose record makes no sense, so that others are healed."""
    try:
        if outcome_of(workspace, job) is not None:
            return []
        if kind_of(job).fans_out:
            recount(workspace, job)
        return pending_units(workspace, job)
    except redis.RedisError:
        raise
    except Exception as error:
        log.warning("%s is left alone: %s: %s", job.title, type(error).__name__, error)
        return []


def start_reconciler(stop: threading.Event) -> threading.Thread:
    """Run the scans in a daemon thread until `stop`."""
    thread = threading.Thread(target=_scan_for_ever, args=(stop,), name="reconciler", daemon=True)
    thread.start()
    return thread


def _scan_for_ever(stop: threading.Event) -> None:
    reconciler = Reconciler()
    lock: redis.lock.Lock | None = None
    while not stop.wait(SCAN_SECONDS):
        try:
            lock = _hold(lock)
            if lock:
                # A broker that forgot everything forgot whose it is as well.
                if other := claimed_by_another(redis_client(), own_workspace()):
                    log.error("reconciler: the broker serves another workspace now (%s)", other)
                else:
                    reconciler.scan(own_workspace())
                continue
        except redis.RedisError as error:
            log.warning("reconciler: the broker does not answer: %s", error)
        except Exception:  # a bug here must not end the healing
            log.exception("reconciler: a scan failed")
        reconciler.suspects = set()


def _hold(lock: "redis.lock.Lock | None") -> "redis.lock.Lock | None":
    """Keep the lock from scan to scan, so that one worker sees a unit idle twice; None when another holds it."""
    if lock is not None:
        with contextlib.suppress(LockError):
            lock.extend(_LOCK_SECONDS, replace_ttl=True)
            return lock
    client = redis_client()
    drop_overlong(client, _LOCK, _LOCK_SECONDS)
    lock = client.lock(_LOCK, timeout=_LOCK_SECONDS, blocking=False)
    return lock if lock.acquire() else None
