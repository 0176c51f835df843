"""What a message is about, in words for Flower's list of tasks: dataset and rows, run and step.

They travel as the representation of keyword arguments that a task does not have, which Flower shows and searches.
"""

import contextlib
from collections.abc import Callable

from lhcq.errors import LhcqError
from lhcq.records.jobs import Job
from lhcq.workspace import Workspace
from tasks.jobs.kinds import kind_of
from tasks.jobs.units import Caption, Unit


def captioner(workspace: Workspace, job: Job) -> Callable[[Unit], Caption]:
    """Tells of each unit of `job` what it is about; nothing where a record does not say."""
    try:
        describe = kind_of(job).describe(workspace, job)
    except LhcqError:
        return lambda _: {}

    def caption(unit: Unit) -> Caption:
        with contextlib.suppress(LhcqError, IndexError):
            return describe(unit)
        return {}

    return caption
