"""The language model that a job computes with, in this process."""

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lhcq.records.jobs import Job
from lhcq.records.specs import FromBase, TrainTerms
from lhcq.records.threads import beyond_cores, keep_threads
from lhcq.workspace import Workspace
from tasks.jobs.leases import Lease

if TYPE_CHECKING:
    from lhcq.model.base import Base

log = logging.getLogger(__name__)


@contextlib.contextmanager
def model_of_job(workspace: Workspace, job: Job, named: FromBase, held: Lease) -> Iterator["Base"]:
    """The base model that a record of a job names, for the body.

    On a CPU it computes with as many threads as the job keeps: those that its terms ask for, or else those of the
    process that begins it. So its bytes depend neither on who goes on with it, nor on where it is validated.
    """
    from lhcq.model.model_cache import base_of
    from lhcq.model.threads import on_threads, threads_here

    base = base_of(workspace, named)
    if base.device.type != "cpu":
        yield base
        return
    asked = job.terms.threads if isinstance(job.terms, TrainTerms) else None
    held.check()  # loading takes long, and nothing is written for a job that is gone
    threads = keep_threads(workspace, job, asked or threads_here())
    if word := beyond_cores(job, threads):
        log.warning("%s", word)
    with on_threads(threads):
        yield base
