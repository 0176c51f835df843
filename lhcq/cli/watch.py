"""`lhcq watch NAME`."""

import time
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import answer, how_to_choose, json_option, kind_option
from lhcq.cli.parameters import NameOf, example

if TYPE_CHECKING:
    from lhcq.records.jobs import Job
    from lhcq.workspace import Workspace

_POLL_SECONDS = 0.5


@click.command("watch", epilog=example("lhcq watch first"))
@click.argument("name", type=NameOf("jobs"))
@kind_option
@click.option("--once", is_flag=True, help="Show how it stands and return.")
@json_option
def command(name: str, kind: str | None, once: bool, as_json: bool) -> int:
    """Follow job NAME: its progress while it lasts, and what came of it; of a training the table of checkpoints.

    Where several jobs have the name, it is the newest of those that have not ended, else the newest, unless --kind
    chooses one. With --json, prints how it stands as one object and returns. Nothing is worked for here, and the job
    goes on after Ctrl-C.
    """
    from lhcq.cli.session import EXIT_CODES, find_workspace, say
    from lhcq.records.jobs import jobs_named, outcome_of
    from tasks.client import meet_broker

    workspace = find_workspace()
    found = jobs_named(workspace, name, kind)
    job = next((one for one in found if outcome_of(workspace, one) is None), found[0])
    if len(found) > 1:
        say(how_to_choose([job, *(one for one in found if one is not job)]))
    met = meet_broker(workspace)  # which counts; without one the workspace is read
    if not (once or as_json):
        job = _follow(workspace, job, met)
    value, text = _told(workspace, job)
    answer(as_json, value, text)
    outcome = outcome_of(workspace, job)
    return EXIT_CODES[outcome.state] if outcome else 0


def _follow(workspace: "Workspace", job: "Job", met: bool) -> "Job":
    """Show progress until the job has ended, or is paused; gives it as it is recorded by then."""
    from lhcq.cli.progress import progress
    from lhcq.cli.session import say
    from lhcq.cli.why import nobody_works
    from lhcq.errors import NotThere
    from lhcq.records.job_control import is_paused, state_of
    from lhcq.records.jobs import find_job, outcome_of
    from tasks.client import progress_of

    outcome = outcome_of(workspace, job)
    if outcome is None and (left := nobody_works(workspace, job, state_of(workspace, job, outcome), met)):
        say(left)
    at = progress_of(workspace, job)
    with progress(job.title, at.total, at.unit) as update:
        while outcome_of(workspace, job) is None and not is_paused(workspace, job):
            at = progress_of(workspace, job)
            update(at.done, at.note)
            time.sleep(_POLL_SECONDS)
            recorded = find_job(workspace, job.kind, job.name)
            if recorded is None:
                raise NotThere(f"{job.title} was removed while it was watched.")
            job = recorded
    return job


def _told(workspace: "Workspace", job: "Job") -> "tuple[dict[str, Any], str]":
    """How a job stands, as a record and as text."""
    from lhcq.cli.runs import run_answer
    from tasks.client import result_of
    from tasks.observe.job_rows import row_of

    if job.kind == "train":
        return run_answer(workspace, job.name)
    row = row_of(workspace, job)
    result = result_of(workspace, job) if row["state"] == "done" else None
    amount = "" if row["done"] is None else f", {row['done']:,} of {row['total']:,} {row['unit']}"
    lines = [f"{job.title}: {row['state']}{amount}", *([row["message"]] if row["message"] else [])]
    return (
        {**row, "job": job.title, "result": result and str(result)},
        "\n".join([*lines, *([str(result)] if result else [])]),
    )
