"""`lhcq resume RUN`."""

import click

from lhcq.cli.options import json_option, traced, wait_option
from lhcq.cli.parameters import NameOf, example


@click.command("resume", epilog=example("lhcq resume first"))
@click.argument("run", type=NameOf("runs"))
@wait_option
@json_option
@traced
def command(run: str, wait: bool, as_json: bool) -> int:
    """Go on with training RUN: paused by you or by an alarm, interrupted, or ended incomplete."""
    from lhcq.cli.session import find_workspace
    from lhcq.cli.train import follow_run
    from lhcq.errors import BadInput
    from lhcq.records.jobs import load_job, outcome_of
    from lhcq.records.run_control import set_wish
    from lhcq.records.run_state import current_course, go_on, write_answer
    from tasks.client import reopen_job

    workspace = find_workspace()
    job = load_job(workspace, "train", run)
    outcome = outcome_of(workspace, job)
    if outcome and outcome.state in ("done", "cancelled"):
        raise BadInput(
            f"run {run!r} is {outcome.state}: there is nothing to resume. Train under another name."
        )
    run_dir = workspace.run(run)
    course = current_course(run_dir)
    if course.paused:
        write_answer(run_dir, course, go_on(course))
    reopen_job(workspace, job)
    set_wish(workspace, run, "run")
    return follow_run(workspace, job, wait=wait, as_json=as_json)
