"""`lhcq resume NAME`."""

from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import (
    json_option,
    kind_option,
    traced,
    wait_option,
    workers_option,
)
from lhcq.cli.parameters import NameOf, example

if TYPE_CHECKING:
    from lhcq.records.jobs import Job
    from lhcq.workspace import Workspace


@click.command("resume", epilog=example("lhcq resume lhco"))
@click.argument("name", type=NameOf("jobs"))
@kind_option
@workers_option
@wait_option
@json_option
@traced
def command(name: str, kind: str | None, workers: int | None, wait: bool, as_json: bool) -> int:
    """Go on with job NAME: paused by you or by an alarm, interrupted, or ended incomplete.

    All that it needs stands in its record: the command that began it need not be known.
    """
    from lhcq.cli.session import find_workspace
    from lhcq.cli.train import follow_run
    from lhcq.errors import BadInput
    from lhcq.records.job_control import set_wish
    from lhcq.records.jobs import GOES_ON, named_job
    from lhcq.records.run_state import current_course, go_on, write_answer
    from tasks.client import mend_outcome, reopen_job

    workspace = find_workspace()
    job = named_job(workspace, name, kind, ended=GOES_ON)
    outcome = mend_outcome(workspace, job)
    if outcome and outcome.state in ("done", "cancelled"):
        again = "Ask for it again, under another name, or `lhcq rm` it before."
        raise BadInput(f"{job.title} is {outcome.state}: there is nothing to resume. {again}")
    if job.kind == "train":
        run_dir = workspace.run(job.name)
        course = current_course(run_dir)
        if course.paused:
            write_answer(run_dir, course, go_on(course))
        reopen_job(workspace, job)
        set_wish(workspace, job, "run")
        return follow_run(workspace, job, wait=wait, as_json=as_json)
    set_wish(workspace, job, "run")
    return _go_on(workspace, job, workers, wait=wait, as_json=as_json)


def _go_on(workspace: "Workspace", job: "Job", workers: int | None, *, wait: bool, as_json: bool) -> int:
    from lhcq.cli.session import conclude, have_done
    from lhcq.records.jobs import outcome_of
    from tasks.client import progress_of, workers_for

    waited = have_done(
        workspace,
        job,
        workers_for(job, workers),
        measure=lambda: progress_of(workspace, job),
        again=f"Run `lhcq resume {job.name}` to go on.",
        wait=wait,
    )

    def told() -> tuple[dict[str, Any], str]:
        outcome = outcome_of(workspace, job)
        message = outcome.message if outcome else ""
        return {"job": job.title, "message": message, "seconds": waited.seconds}, message

    return conclude(waited, job, told, as_json=as_json)
