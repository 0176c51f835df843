"""Where one unit stands: what was tried, by whom, and what it waits for."""

import time
from typing import Literal

from lhcq.environment import Settings
from lhcq.frozen import Frozen
from lhcq.records.failures import Holder, failures_of
from lhcq.records.job_control import is_held
from lhcq.records.jobs import Job, outcome_of
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.broker.connection import redis_client
from tasks.broker.transport import queue_length
from tasks.jobs.attempts import MAX_ATTEMPTS, backoff_key, latest_attempt
from tasks.jobs.kinds import kind_of, queue_of
from tasks.jobs.leases import holder_of, lease_key
from tasks.jobs.planner import pending_units
from tasks.jobs.turns import turns_of
from tasks.jobs.units import Unit
from tasks.settings import with_again

State = Literal[
    "finished",
    "given up",
    "at work",
    "backoff",
    "no worker",
    "queued",
    "lost",
    "not yet",
    "stopped",
    "paused",
]
_REPLY_SECONDS = 1.0


class Standing(Frozen):
    """How one unit of a job stands."""

    unit: str
    state: State
    waits_for: str
    """One line for people; empty where it waits for nothing."""
    attempts: int = 0
    holder: Holder | None = None
    """Who works on it now."""
    lease_expires_in: float | None = None
    """Seconds, unless it is extended."""
    last: Holder | None = None
    """Who tried last, where that did not go well."""
    message: str | None = None
    traceback: str | None = None


def standing_of(workspace: Workspace, job: Job, unit: Unit, listened: set[str] | None) -> Standing:
    """How `unit` of `job` stands; `listened` are the queues that have a worker, None where the broker is away."""
    outcome = outcome_of(workspace, job)
    # The chunks of what was merged are gone.
    pending = [] if outcome and outcome.state == "done" else pending_units(workspace, job)
    failure = {failure.unit: failure for failure in failures_of(workspace, job)}.get(unit.key)
    if failure is not None:
        return Standing(
            unit=unit.key,
            state="given up",
            waits_for=f"`lhcq retry {job.name}`",
            attempts=failure.attempts,
            last=failure.by,
            message=failure.message,
            traceback=failure.traceback,
        )
    if outcome is None and is_held(workspace, job):
        return Standing(unit=unit.key, state="paused", waits_for=f"`lhcq resume {job.name}`")
    if unit not in pending:
        later = unit == kind_of(job).last(job)
        waits_for = f"{len(pending)} units before it" if later and pending else ""
        return Standing(
            unit=unit.key, state="not yet" if later and pending else "finished", waits_for=waits_for
        )
    if listened is None and Settings.from_environment().broker_url is None:
        return Standing(unit=unit.key, state="stopped", waits_for="a command that has it done")
    if listened is None:
        return Standing(unit=unit.key, state="lost", waits_for="a broker; none answers")
    return _pending_standing(job, unit, listened)


def _pending_standing(job: Job, unit: Unit, listened: set[str]) -> Standing:
    client, queue = redis_client(), queue_of(unit)
    holder, latest = holder_of(client, unit.key), latest_attempt(job, unit)
    attempts = latest.count if latest else 0
    if holder is not None:
        state: State = "at work"
        waits_for = f"its end; at work for {time.time() - holder.since:.0f} s"
    elif (pause := client.pttl(backoff_key(unit))) > 0:
        state = "backoff"
        waits_for = f"backoff for {pause / 1000:.0f} s before attempt {attempts + 1} of {MAX_ATTEMPTS}"
    elif queue not in listened:
        state, waits_for = "no worker", f"a worker: none listens to queue {queue}"
    elif (turn := turns_of([job])[0]) and turn.waiting and unit not in turn.out:
        state, waits_for = "queued", f"its turn among all jobs; it has not been put into queue {queue}"
    elif waiting := queue_length(client, *with_again(queue)):
        state, waits_for = "queued", f"its turn in queue {queue}, where {waiting} messages wait"
    else:
        state, waits_for = "lost", "the reconciler, which publishes it again within seconds"
    return Standing(
        unit=unit.key,
        state=state,
        waits_for=waits_for,
        attempts=attempts,
        holder=holder,
        lease_expires_in=client.pttl(lease_key(unit.key)) / 1000 if holder else None,
        last=latest.by if latest else None,
        message=latest.message if latest else None,
        traceback=latest.traceback if latest else None,
    )


def listened_queues() -> set[str]:
    """The queues that a worker of the broker listens to; asks all workers and waits a second for their answers."""
    replies = app.control.inspect(timeout=_REPLY_SECONDS).active_queues() or {}
    return {queue["name"] for queues in replies.values() for queue in queues}
