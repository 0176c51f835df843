"""`lhcq watch RUN`."""

import time

import click

from lhcq.cli.options import answer, json_option

_POLL_SECONDS = 0.5


@click.command("watch")
@click.argument("run")
@click.option("--once", is_flag=True, help="Show how it stands and return.")
@json_option
def command(run: str, once: bool, as_json: bool) -> int:
    """Follow training RUN: its progress while it lasts, each validation as it comes, the table at the end.

    With --json, prints how the run stands as one object and returns.
    """
    from lhcq.cli.progress import progress
    from lhcq.cli.runs import last_step, run_answer, validations_note
    from lhcq.cli.session import EXIT_CODES, open_workspace
    from lhcq.records.run_control import is_paused
    from tasks.jobs.store import load_job, outcome_of

    workspace = open_workspace()
    job = load_job(workspace, "train", run)
    last_planned = job.spec["checkpoint_steps"][-1]
    if not (once or as_json):
        with progress(job.title, job.spec["total_steps"], "steps") as update:
            while outcome_of(workspace, job) is None and not is_paused(
                workspace, run, last_step=last_planned
            ):
                step, note = last_step(workspace, run)
                update(step, note + validations_note(workspace, run))
                time.sleep(_POLL_SECONDS)
    value, text = run_answer(workspace, run)
    answer(as_json, value, text)
    outcome = outcome_of(workspace, job)
    return EXIT_CODES[outcome.state] if outcome else 0
