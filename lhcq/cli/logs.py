"""`lhcq logs JOB [PART]`."""

import json
import time
from typing import TYPE_CHECKING

import click

from lhcq.cli.options import kind_option

if TYPE_CHECKING:
    from tasks.observe.log_reader import Line

_POLL_SECONDS = 0.5


@click.command("logs")
@click.argument("job")
@click.argument("part", type=click.IntRange(min=0), required=False)
@kind_option
@click.option("--follow", is_flag=True, help="Go on with what is logged until the job ends.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def command(job: str, part: int | None, kind: str | None, follow: bool, as_json: bool) -> None:
    """Show what workers on all hosts logged about JOB, or its chunk PART (of a run: a step), in the order of time."""
    from lhcq.cli.session import find_workspace
    from lhcq.records.jobs import named_job, outcome_of
    from tasks.observe.log_reader import LogReader, is_about

    workspace = find_workspace()
    found = named_job(workspace, job, kind)
    reader = LogReader(workspace)
    while True:
        ended = not follow or outcome_of(workspace, found) is not None  # asked before the last reading
        for line in reader.lines(lambda line: is_about(line, found, part)):
            click.echo(_json(line) if as_json else _text(line))
        if ended:
            return
        time.sleep(_POLL_SECONDS)


def _text(line: "Line") -> str:
    attempt = f" attempt {line.attempt}" if line.attempt is not None else ""
    lead = f"{line.time} {line.level:<7} {line.host}/{line.process} {line.unit}{attempt}"
    return "\n".join(f"{lead}  {message}" for message in line.message.splitlines() or [""])


def _json(line: "Line") -> str:
    return json.dumps({**line.model_dump(), "part": line.part}, sort_keys=True)
