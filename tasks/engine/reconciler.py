"""The reconciler: finds work that is neither done nor under way, and publishes it again.

It heals a lost message, a dead submitter, a flushed broker and a dead chord. Every worker runs it in a thread; the
one that holds the lock acts. Of a job that takes turns only those units are looked at that became messages and have
not ended, so that a scan costs the same whatever a job's size; if the broker knows nothing of it, what is left is
read off the workspace and waits for its turns anew. A unit is published again when no message for it waits, nobody
holds its lease, it waits for no backoff, and all this held in two scans in a row: then no message for it can be on
the way.
"""

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Literal

import redis
from redis.exceptions import LockError

from lhcq.records.failures import failures_of
from lhcq.records.job_control import is_held
from lhcq.records.jobs import Job, list_jobs, outcome_of, place_of
from lhcq.workspace import Workspace
from tasks.app import own_workspace
from tasks.broker.acceptance import claimed_by_another
from tasks.broker.connection import redis_client
from tasks.broker.transport import queue_length, waiting_messages
from tasks.engine.publish import publish_released, publish_rest, publish_unit
from tasks.jobs.attempts import LONGEST_BACKOFF_SECONDS, backoff_key
from tasks.jobs.kinds import KINDS, chunk_path, is_chunk, kind_of, queue_of
from tasks.jobs.leases import LEASE_SECONDS, drop_overlong, lease_key
from tasks.jobs.planner import pending_units
from tasks.jobs.turns import Claim, Turn, job_key, note_end, published_jobs, release, turns_of, withdraw
from tasks.jobs.units import Unit, unit_key
from tasks.settings import with_again

log = logging.getLogger(__name__)

# Twice this and the lease is what a killed worker costs; a scan looks at each open job.
SCAN_SECONDS = 2.0
_LOCK = "lhcq:reconciler"
_LOCK_SECONDS = 3 * SCAN_SECONDS
# A broker that forgot the lock forgot all else too: then nobody need wait for the next scan.
_LOOK_SECONDS = 0.5
_READ_MESSAGES_A_SECOND = 2000
"""On average: what reading queues may cost, some per cent of a core."""
_REREAD_SECONDS = 60.0
"""After how long the records of jobs that had ended are looked at again: somebody may have opened one by hand."""


class Reconciler:
    """What one scan has to tell the next."""

    def __init__(self, still_holds: Callable[[], bool] = lambda: True) -> None:
        self.suspects: set[str] = set()
        """Keys of the units that were idle at the last scan."""
        self._still_holds = still_holds
        self._ended: dict[str, tuple[float, str]] = {}
        """Where the records of jobs stand that have ended: when they were last read, and the job's key."""
        self._read_after: dict[str, float] = {}
        """When a long queue may be read again."""

    def scan(self, workspace: Workspace) -> None:
        """Publish the units that are idle and were so at the last scan."""
        idle = self.idle_units(workspace)
        again = [unit for unit in idle if unit.key in self.suspects]
        if not self._still_holds():  # it took so long that another worker scans by now
            self.suspects = set()
            return
        for (task, name), count in Counter((unit.task, unit.args[0]) for unit in again).items():
            log.warning("%s %s: %d neither done nor under way, published again", task, name, count)
        chords = self._chords
        for unit in again:
            publish_unit(unit, chord=chords.get(unit.key, ""), again=True)
        self.suspects = {unit.key for unit in idle} - self.suspects
        for queue in sorted(
            {queue for kind in KINDS.values() if kind.takes_turns for queue in kind.queues.values()}
        ):
            publish_released(
                workspace, release(queue)
            )  # who released some may have died before it published them

    def idle_units(self, workspace: Workspace) -> list[Unit]:
        """Units of open jobs that have no output, no lease, no backoff, and no message waiting in their queue.

        What the broker forgot of a job is made anew on the way.
        """
        client = redis_client()
        jobs = self._open_jobs(workspace)
        units: list[Unit] = []
        self._chords: dict[str, str] = {}
        for job, turn in zip(jobs, turns_of(jobs), strict=True):
            mine = _open_units(workspace, job, turn)
            units += mine
            if turn is not None:
                self._chords |= dict.fromkeys((unit.key for unit in mine), turn.chord)
        for queue in {queue_of(unit) for unit in units}:
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

    def _open_jobs(self, workspace: Workspace) -> list[Job]:
        """The jobs without an outcome. Records of those that have one are not looked at in every scan."""
        now = time.monotonic()
        published = published_jobs()
        ended = {place for place, (read, key) in self._ended.items() if now - read < _REREAD_SECONDS}
        reopened = {place for place, (_, key) in self._ended.items() if key in published}
        known = ended - reopened
        jobs = []
        for job in list_jobs(workspace, but=known):
            try:
                over = outcome_of(workspace, job) is not None
            except Exception as error:
                log.warning("%s is left alone: %s: %s", job.title, type(error).__name__, error)
                continue
            if not over:
                jobs.append(job)
                continue
            self._ended[place_of(workspace, job)] = (now, job_key(job))
            if job_key(job) in published:
                withdraw(job)
        self._forget_removed(workspace, published, jobs)
        return jobs

    def _forget_removed(self, workspace: Workspace, published: set[str], jobs: list[Job]) -> None:
        """Take the turns of jobs that are there no more."""
        for key in published.difference(map(job_key, jobs)):
            kind, _, name = key.partition(":")
            if kind not in KINDS or not workspace.job(kind, name).exists():
                withdraw(key)

    def _missing(self, client: "redis.Redis", queue: str) -> Callable[[Unit], bool]:
        """Whether a queue has no message for a unit: by reading it; where it is long, at times by the last scan."""
        now = time.monotonic()
        if now < self._read_after.get(queue, 0.0) and queue_length(client, *with_again(queue)):
            return lambda unit: unit.key in self.suspects
        waiting = [unit_key(*message) for message in waiting_messages(client, *with_again(queue))]
        self._read_after[queue] = now + len(waiting) / _READ_MESSAGES_A_SECOND
        found = set(waiting)
        return lambda unit: unit.key not in found


def _open_units(workspace: Workspace, job: Job, turn: Turn | None) -> list[Unit]:
    """The units of an open job that should be under way; none of one whose record makes no sense, so that others are
    healed."""
    try:
        kind = kind_of(job)
        if is_held(workspace, job):
            if turn is not None:
                withdraw(job)  # whoever resumes it publishes what is left
            return []
        if not kind.takes_turns:
            return pending_units(workspace, job)
        if turn is None or not (turn.waiting or turn.out):
            units = pending_units(workspace, job)
            if units and units[0] != kind.last(job):
                publish_rest(workspace, job, anew=turn is not None)
                return []
            return units
        return _still_out(workspace, job, turn)
    except redis.RedisError:
        raise
    except Exception as error:
        log.warning("%s is left alone: %s: %s", job.title, type(error).__name__, error)
        return []


def _still_out(workspace: Workspace, job: Job, turn: Turn) -> list[Unit]:
    """The units of a job that became messages and have not ended, whatever their workers lived to say of them."""
    given_up = {failure.unit for failure in failures_of(workspace, job)}
    out = []
    for unit in turn.out:
        if is_chunk(unit) and chunk_path(workspace, job, unit.number or 0).exists():
            publish_released(workspace, note_end(Claim(job, unit, queue_of(unit)), "done"))
        elif unit.key in given_up:
            publish_released(workspace, note_end(Claim(job, unit, queue_of(unit)), "given up"))
        else:
            out.append(unit)
    return out


def start_reconciler(stop: threading.Event) -> threading.Thread:
    """Run the scans in a daemon thread until `stop`."""
    thread = threading.Thread(target=_scan_for_ever, args=(stop,), name="reconciler", daemon=True)
    thread.start()
    return thread


def _scan_for_ever(stop: threading.Event) -> None:
    lock: redis.lock.Lock | None = None

    def still_holds() -> bool:
        nonlocal lock
        lock = _hold(lock)
        return lock is not None

    reconciler = Reconciler(still_holds)
    while (why := await_scan(stop, lock)) != "stopped":
        try:
            if why == "forgotten":
                reconciler.suspects = set()  # this scan comes too soon after the last one to confirm anything
            if still_holds():
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


def await_scan(
    stop: threading.Event, lock: "redis.lock.Lock | None"
) -> Literal["due", "forgotten", "stopped"]:
    """Wait for the next scan: until its time, or until the broker does not know any more who holds `lock`."""
    due = time.monotonic() + SCAN_SECONDS
    while (left := due - time.monotonic()) > 0:
        if stop.wait(min(_LOOK_SECONDS, left)):
            return "stopped"
        with contextlib.suppress(redis.RedisError):  # a broker that does not answer is told of by the scan
            if lock is not None and not lock.owned():
                return "forgotten"
    return "due"


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
