"""Publishing: the only place where chords and chains are built, and where a unit becomes a message."""

import contextlib

from celery import chord

from lhcq.errors import LhcqError
from lhcq.records.jobs import Job, find_job
from lhcq.workspace import Workspace
from tasks.app import app, own_workspace
from tasks.broker.connection import redis_client
from tasks.jobs.attempts import backoff_key, forget_attempts
from tasks.jobs.kinds import Caption, kind_of, kind_of_task, merge_unit, queue_of
from tasks.jobs.planner import pending_units
from tasks.jobs.progress import forget_count, recount
from tasks.jobs.store import forget_failures, set_trace
from tasks.jobs.task_labels import captioner
from tasks.jobs.units import Unit
from tasks.observe.tracing import current_traceparent, span
from tasks.settings import with_again


def publish_job(workspace: Workspace, job: Job) -> list[Unit]:
    """Publish what is left of `job`: a fan-out as a chord that ends in the merge, anything else unit by unit.

    A person asked for it, so earlier attempts no longer count.
    """
    forget_attempts(job)
    if kind_of(job).fans_out:
        forget_count(job)  # an earlier job of this name may have left it
        recount(workspace, job)
    units = pending_units(workspace, job)
    _publish(workspace, job, units)
    return units


def retry_units(workspace: Workspace, job: Job, units: list[Unit]) -> None:
    """Try units that were given up once more, and no others."""
    forget_attempts(job, units)
    redis_client().delete(*(backoff_key(unit) for unit in units))
    forget_failures(workspace, job, [unit.key for unit in units])
    _publish(workspace, job, units)


def _publish(workspace: Workspace, job: Job, units: list[Unit]) -> None:
    with span("publish", job=job.title, units=len(units)):
        set_trace(workspace, job, current_traceparent())  # before anybody can have a message
        send_units(workspace, job, units)


def send_units(workspace: Workspace, job: Job, units: list[Unit]) -> None:
    """Send units of a job: chunks of a fan-out as a chord that ends in the merge, anything else one by one."""
    if kind_of(job).fans_out and units and units[0] != merge_unit(job):
        caption = captioner(workspace, job)
        # Keys travel, not data: each header message carries the body.
        chord([signature_of(unit, caption(unit)) for unit in units])(
            signature_of(merge_unit(job), caption(merge_unit(job)))
        )
    else:
        for unit in units:
            publish_unit(unit)


def publish_unit(unit: Unit, *, again: bool = False) -> None:
    """Publish one unit; `again`, before all that waits in its queue."""
    queue = with_again(queue_of(unit))[0] if again else queue_of(unit)
    signature_of(unit, _caption_of(unit)).apply_async(queue=queue)


def signature_of(unit: Unit, caption: Caption):  # type: ignore[no-untyped-def]
    """The message of a unit; immutable, since results never travel. Flower shows the caption as its kwargs."""
    return app.signature(
        unit.task,
        args=list(unit.args),
        immutable=True,
        queue=queue_of(unit),
        ignore_result=True,
        kwargsrepr=repr(caption),
    )


def _caption_of(unit: Unit) -> Caption:
    """What a single unit is about, by the record of its job, if it still has one."""
    workspace = own_workspace()
    with contextlib.suppress(LhcqError, OSError):
        job = find_job(workspace, kind_of_task(unit.task).name, unit.name)
        return captioner(workspace, job)(unit) if job else {}
    return {}
