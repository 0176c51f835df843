"""Publishing: the only place where chords and chains are built, and where a unit becomes a message.

A job's units become messages when their turns come (`tasks.jobs.turns`); until then they are numbers in Redis. The
chunks of one publishing are the header of a chord all the same, message by message: Celery counts them by the chord's
name, and publishes its body, the merge, when the last of them has ended.
"""

import contextlib
import secrets
import uuid
from collections.abc import Iterable

from lhcq.errors import LhcqError
from lhcq.records.jobs import Job, find_job
from lhcq.workspace import Workspace
from tasks.app import app, own_workspace
from tasks.broker.connection import redis_client
from tasks.broker.transport import Chord, chord_body, new_message, put_messages
from tasks.jobs.attempts import backoff_key, forget_attempts
from tasks.jobs.kinds import chunk_unit, is_chunk, kind_of, kind_of_task, merge_unit, queue_of
from tasks.jobs.planner import pending_chunks, pending_units
from tasks.jobs.store import forget_failures, set_trace
from tasks.jobs.task_labels import captioner
from tasks.jobs.turns import Released, enter, release, unit_of_member
from tasks.jobs.units import Unit
from tasks.observe.tracing import current_traceparent, note_span, span
from tasks.settings import with_again


def publish_job(workspace: Workspace, job: Job) -> None:
    """Publish what is left of `job`: a fan-out as a chord that ends in the merge, anything else unit by unit.

    A person asked for it, so earlier attempts no longer count.
    """
    forget_attempts(job)
    _publish(workspace, job)


def retry_units(workspace: Workspace, job: Job, units: list[Unit]) -> None:
    """Try units that were given up once more, and no others."""
    forget_attempts(job, units)
    redis_client().delete(*(backoff_key(unit) for unit in units))
    forget_failures(workspace, job, [unit.key for unit in units])
    _publish(workspace, job)


def _publish(workspace: Workspace, job: Job) -> None:
    with span("publish", job=job.title):
        set_trace(workspace, job, current_traceparent())  # before anybody can have a message
        publish_rest(workspace, job)


def publish_rest(workspace: Workspace, job: Job, *, anew: bool = True) -> None:
    """Have what is left of a job wait for its turns, and publish what needs none and those that have come.

    Without `anew`, nothing is done where the job takes turns already.
    """
    kind = kind_of(job)
    chunks, done = pending_chunks(workspace, job)
    units = [] if chunks else pending_units(workspace, job)
    note_span(units=len(chunks) or len(units))
    waiting = [unit for unit in units if kind.takes_turns and unit != kind.last(job)]
    first = [chunk_unit(job, chunks[0])] if chunks else waiting
    queue = queue_of(first[0]) if first else kind.first_queue
    chord = secrets.token_hex(8) if chunks else ""
    if chunks:
        app.backend.set_chord_size(chord, len(chunks))
    if not enter(job, queue, chunks or [unit.key for unit in waiting], chord=chord, done=done, anew=anew):
        return
    messages = [_message(workspace, job, unit) for unit in units if unit not in waiting]
    put_messages(redis_client(), messages)
    publish_released(workspace, release(queue))


def publish_released(workspace: Workspace, released: Iterable[Released]) -> None:
    """Make messages of units whose turns have come."""
    messages = []
    for unit in released:
        job = _record(workspace, unit.kind, unit.name)
        if job is not None:  # else it was removed
            messages.append(_message(workspace, job, unit_of_member(job, unit.member), chord=unit.chord))
    put_messages(redis_client(), messages)


def publish_unit(unit: Unit, *, chord: str = "", again: bool = False) -> None:
    """Publish one unit of the workspace of this process, as one of the header of a chord if it is named.

    What ends a job, and what is published `again`, goes before all that waits in the queue.
    """
    workspace = own_workspace()
    job = _record(workspace, kind_of_task(unit.task).name, unit.name)
    put_messages(redis_client(), [_message(workspace, job, unit, chord=chord, again=again)])


def _message(
    workspace: Workspace, job: Job | None, unit: Unit, *, chord: str = "", again: bool = False
) -> tuple[str, str]:
    """The queue of a unit, and its message. Flower shows the caption as its keyword arguments."""
    caption = captioner(workspace, job) if job else lambda _: {}
    first = again or (job is not None and unit == kind_of(job).last(job))
    queue = with_again(queue_of(unit))[0 if first else 1]
    header, identity = None, str(uuid.uuid4())
    if chord and job and is_chunk(unit):
        merge = merge_unit(job)
        body = chord_body(
            merge.task,
            merge.args,
            queue=with_again(queue_of(merge))[0],
            caption=repr(caption(merge)),
            identity=f"{chord}.merge",
        )
        identity = f"{chord}.{unit.number}"  # a copy has the name of the first, so that it is counted once
        header = Chord(chord, unit.number or 0, body)
    told = repr(caption(unit))
    return queue, new_message(
        unit.task, unit.args, queue=queue, caption=told, identity=identity, chord=header
    )


def _record(workspace: Workspace, kind: str, name: str) -> Job | None:
    """The record of a job, unless it has none or a damaged one: what waits is published all the same."""
    with contextlib.suppress(LhcqError, OSError):
        return find_job(workspace, kind, name)
    return None
