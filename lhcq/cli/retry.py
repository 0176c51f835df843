"""`lhcq retry NAME`."""

from typing import TYPE_CHECKING

import click

from lhcq.cli.options import answer, json_option, kind_option, traced, wait_option, workers_option
from lhcq.cli.parameters import NameOf, example
from lhcq.errors import BadInput

if TYPE_CHECKING:
    from lhcq.records.jobs import Job
    from tasks.client import Unit


@click.command("retry", epilog=example("lhcq retry lhco --part 3"))
@click.argument("name", type=NameOf("jobs"))
@click.option("--part", type=click.IntRange(min=0), help="This chunk alone. Default: all that were given up.")
@kind_option
@workers_option
@wait_option
@json_option
@traced
def command(
    name: str, part: int | None, kind: str | None, workers: int | None, wait: bool, as_json: bool
) -> int:
    """Try again what was given up of job NAME: chunks that failed too often, a segment, a validation.

    What is finished is kept, and nothing else is done again. `lhcq why NAME` tells why each was given up.
    """
    from lhcq.cli.session import answer_end, find_workspace, follow, say, telling_what_is_left
    from lhcq.records.failures import failures_of
    from lhcq.records.job_control import is_held
    from lhcq.records.jobs import GOES_ON, named_job, outcome_of
    from tasks.client import progress_of, session, try_again, workers_for

    workspace = find_workspace()
    job = named_job(workspace, name, kind, ended=GOES_ON)
    outcome = outcome_of(workspace, job)
    if outcome and outcome.state in ("done", "cancelled"):
        raise BadInput(f"{job.title} is {outcome.state}: there is nothing to try again.")
    if is_held(workspace, job):
        raise BadInput(f"{job.title} is paused. `lhcq resume {name}` goes on, with what was given up too.")
    failures = failures_of(workspace, job)
    if outcome and not failures:
        raise BadInput(
            f"nothing of {job.title} was given up: there is nothing to try again. {outcome.message}"
        )
    units = _given_up(job, [failure.unit for failure in failures], part)

    with (
        telling_what_is_left(workspace, job, f"Run `lhcq resume {name}` to go on."),
        session(workspace, workers_for(job, workers, units=len(units)), detach=not wait, say=say) as current,
    ):
        waited = follow(
            current,
            job,
            lambda: try_again(current, job, units),
            measure=lambda: progress_of(workspace, job),
            again=f"`lhcq why {name}` tells why.",
            wait=wait,
        )
    value = {"job": job.title, "units": [unit.key for unit in units]}
    if not waited.finished:
        answer(as_json, value, f"{job.title}: {len(units)} queued. `lhcq status` shows it.")
    elif waited.code == 0:
        outcome = outcome_of(workspace, job)
        answer(as_json, {**value, "seconds": waited.seconds}, outcome.message if outcome else "")
    else:
        answer_end(waited)
    return waited.code


def _given_up(job: "Job", failed: list[str], part: int | None) -> "list[Unit]":
    from tasks.client import named_chunk, unit_of_key

    if part is not None:
        unit = named_chunk(job, part)
        if unit.key not in failed:
            raise BadInput(f"chunk {part} of {job.title} was not given up: there is nothing to try again.")
        return [unit]
    if not failed:
        raise BadInput(
            f"nothing of {job.title} was given up: there is nothing to try again. The command that began it goes on "
            "with what is missing."
        )
    return [unit_of_key(key) for key in failed]
