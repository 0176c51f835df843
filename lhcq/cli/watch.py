"""`lhcq watch RUN`."""

import time

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import NameOf, example

_POLL_SECONDS = 0.5


@click.command("watch", epilog=example("lhcq watch first"))
@click.argument("run", type=NameOf("runs"))
@click.option("--once", is_flag=True, help="Show how it stands and return.")
@json_option
def command(run: str, once: bool, as_json: bool) -> int:
    """Follow training RUN: its progress while it lasts, each validation as it comes, the table at the end.

    With --json, prints how the run stands as one object and returns.
    """
    from lhcq.cli.progress import progress
    from lhcq.cli.runs import run_answer
    from lhcq.cli.session import EXIT_CODES, find_workspace
    from lhcq.records.job_control import is_paused
    from lhcq.records.jobs import load_job, outcome_of
    from tasks.client import progress_of

    workspace = find_workspace()
    job = load_job(workspace, "train", run)
    if not (once or as_json):
        at = progress_of(workspace, job)
        with progress(job.title, at.total, at.unit) as update:
            while outcome_of(workspace, job) is None and not is_paused(workspace, job):
                at = progress_of(workspace, job)
                update(at.done, at.note)
                time.sleep(_POLL_SECONDS)
    value, text = run_answer(workspace, run)
    answer(as_json, value, text)
    outcome = outcome_of(workspace, job)
    return EXIT_CODES[outcome.state] if outcome else 0
