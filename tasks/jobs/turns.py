"""Whose turn it is: which units of the open jobs become messages next, kept in Redis as what is left of each job.

A queue is first in, first out, so whoever fills it makes all others wait. It is never filled: a job's units wait as
ranges of numbers, and whoever begins or ends a unit releases as many as keep `WINDOW` messages in the queue. Turns go
round by user and, within one's jobs, by job, among those of the highest priority that may begin another unit. Who
comes anew is `HEAD_START` turns ahead, so that a small job ends in about the time of its own work.

The workspace says what is left to do; this may be lost with the broker, and the reconciler makes it anew.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import redis
from redis.commands.core import Script

from lhcq.records.jobs import Job, Priority
from tasks.broker.connection import redis_client
from tasks.jobs.kinds import chunk_unit, is_chunk
from tasks.jobs.units import Unit, unit_of_key

WINDOW = 4
"""Messages of jobs that take turns which wait in a queue at a time: what a newcomer may have to wait for. Each worker
that takes one releases the next, so it need not grow with their number."""
HEAD_START = 16
_LEVELS: tuple[str, ...] = get_args(Priority)

_LUA = Path(__file__).with_suffix(".lua")


class Released(NamedTuple):
    """A unit whose turn has come."""

    kind: str
    name: str
    member: str
    """A chunk's index, or the key of a unit that its job has one of."""
    chord: str
    """The chord that counts it; empty where there is none."""


class Turn(NamedTuple):
    """What Redis knows of a job that takes turns."""

    done: int
    """Units that ended well, those before its publishing included."""
    waiting: int
    """Stretches of units that have not become messages."""
    out: list[Unit]
    """Units that did, and have not ended."""
    chord: str


def job_key(job: Job) -> str:
    """How scripts and keys name a job; names hold no colon."""
    return f"{job.kind}:{job.name}"


def enter(
    job: Job,
    queue: str,
    units: Iterable[int] | Iterable[str],
    *,
    chord: str = "",
    done: int = 0,
    anew: bool = True,
) -> bool:
    """Have the `units` of a job, chunks by index or others by key, wait for their turns; what was known is forgotten.

    Without `anew`, nothing is done where the job takes turns already, and False given.
    """
    entries = ranges(units)
    level = _LEVELS.index(job.priority)
    head = (job_key(job), queue, level, job.owner, job.max_parallel or 0, chord, done, int(anew))
    return bool(_act(redis_client(), "enter", *head, " ".join(entries)))


def ranges(units: Iterable[int] | Iterable[str]) -> list[str]:
    """Ascending numbers as `a-b` and `a`; keys stay as they are."""
    entries: list[str] = []
    first = last = None
    for unit in units:
        if isinstance(unit, str):
            entries.append(unit)
        elif last is not None and unit == last + 1:
            last = unit
        else:
            entries += _range(first, last)
            first = last = unit
    return entries + _range(first, last)


def _range(first: int | None, last: int | None) -> list[str]:
    if first is None:
        return []
    return [f"{first}" if first == last else f"{first}-{last}"]


def withdraw(job: Job | str) -> None:
    """Release no more units of a job, and know nothing of it."""
    key = job if isinstance(job, str) else job_key(job)
    _act(redis_client(), "forget", key)


def release(queue: str) -> list[Released]:
    """Units that are to become messages now, as many as the queue's window lacks."""
    return _released(_act(redis_client(), "release", queue))


def published_jobs() -> set[str]:
    """The keys of jobs that were published and are not known to have ended."""
    return {str(key) for key in redis_client().smembers("lhcq:published")}


def counted(job: Job) -> int | None:
    """How many units of a job ended well; None where Redis does not know."""
    done = redis_client().hget(f"lhcq:turn:{job_key(job)}", "done")
    return None if done is None else int(str(done))


def turns_of(jobs: Sequence[Job]) -> list[Turn | None]:
    """What Redis knows of each job; None of one that takes no turns, or that it forgot."""
    with redis_client().pipeline() as pipe:
        for job in jobs:
            key = job_key(job)
            pipe.hmget(f"lhcq:turn:{key}", "done", "chord")
            pipe.llen(f"lhcq:todo:{key}")
            pipe.smembers(f"lhcq:out:{key}")
        answers = pipe.execute()
    return [_turn(job, *answers[3 * at : 3 * at + 3]) for at, job in enumerate(jobs)]


def _turn(job: Job, known: Any, waiting: int, out: set[str]) -> Turn | None:
    done, chord = known
    if done is None:
        return None
    return Turn(int(done), waiting, [unit_of_member(job, member) for member in sorted(out)], str(chord))


def unit_of_member(job: Job, member: str) -> Unit:
    """The unit that a released member of a job stands for."""
    return chunk_unit(job, int(member)) if member.isdigit() else unit_of_key(member)


def _member_of(unit: Unit) -> str:
    return str(unit.number) if is_chunk(unit) else unit.key


class Claim(NamedTuple):
    """What a lease on a unit stands for beside itself: an attempt that is counted, and a turn of its job."""

    job: Job
    unit: Unit
    queue: str

    @property
    def words(self) -> list[str]:
        """The job, the unit and its queue, as the script takes them."""
        return [job_key(self.job), self.unit.key, self.queue]


_NO_CLAIM = ["", "", ""]
Ending = Literal["done", "given up", "again", "untried"]
"""How an attempt ended; after `again` the unit is tried once more, and `untried` counts as no attempt."""


def take_lease(
    client: "redis.Redis", key: str, token: str, seconds: float, claim: Claim | None, latest: str
) -> tuple[int, list[Released]]:
    """Take a lease and count the attempt: how many there were, 0 where another holds it; and what to publish now."""
    words = claim.words if claim else _NO_CLAIM
    attempts, *released = _act(client, "claim", key, token, int(1000 * seconds), *words, latest)
    return int(attempts), _released(released)


def extend_lease(
    client: "redis.Redis", key: str, token: str, seconds: float, claim: Claim | None, attempts: int
) -> bool:
    """Extend a lease, or take one that expired again where nobody began the unit since; False where it is lost.

    `attempts` is what `take_lease` gave.
    """
    job, unit, _ = claim.words if claim else _NO_CLAIM
    words = ("extend", key, token, int(1000 * seconds), job, unit, attempts)
    return bool(client.register_script(_program())(args=words))  # by a client that does not last


def give_back_lease(
    client: "redis.Redis", key: str, token: str, claim: Claim | None, how: Ending
) -> list[Released]:
    """End a lease, unless it is another's by now, and say how the attempt ended; gives what to publish now."""
    words, member = (claim.words, _member_of(claim.unit)) if claim else (_NO_CLAIM, "")
    return _released(_act(client, "end", key, token, *words, member, how))


def note_end(claim: Claim, how: Ending) -> list[Released]:
    """Say how a unit ended that nobody holds a lease on: its output stands already."""
    return give_back_lease(redis_client(), "", "", claim, how)


def _released(values: Sequence[str]) -> list[Released]:
    found = []
    for at in range(0, len(values), 3):
        kind, _, name = str(values[at]).partition(":")
        found.append(Released(kind, name, str(values[at + 1]), str(values[at + 2])))
    return found


def _act(client: "redis.Redis", *words: str | int) -> Any:
    """Do one act of the script, which the broker knows by its hash after the first."""
    return _script(client)(args=words)


@lru_cache(maxsize=8)
def _script(client: "redis.Redis") -> Script:
    return client.register_script(_program())


@lru_cache(maxsize=1)
def _program() -> str:
    constants = f"local WINDOW, HEAD_START, LAST_LEVEL = {WINDOW}, {HEAD_START}, {len(_LEVELS) - 1}\n"
    return constants + _LUA.read_text("utf-8")
