"""`lhcq logs JOB [PART]`."""

import json
import time
from typing import TYPE_CHECKING

import click

from lhcq.cli.options import how_to_choose, kind_option
from lhcq.cli.parameters import NameOf, example

if TYPE_CHECKING:
    from tasks.observe.log_reader import Line

_POLL_SECONDS = 0.5


@click.command("logs", epilog=example("lhcq logs lhco 3", "lhcq logs first --follow"))
@click.argument("job", type=NameOf("jobs"))
@click.argument("part", type=click.IntRange(min=0), required=False)
@kind_option
@click.option("--follow", is_flag=True, help="Go on with what is logged until the job ends.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def command(job: str, part: int | None, kind: str | None, follow: bool, as_json: bool) -> None:
    """Show what workers on all hosts logged about JOB, or its chunk PART (of a run: a step), in the order of time.

    Where several jobs have the name, it is what was logged about all, unless --kind chooses one.
    """
    from lhcq.cli.session import find_workspace, say
    from lhcq.records.jobs import jobs_named, outcome_of
    from tasks.observe.log_reader import LogReader, is_about

    workspace = find_workspace()
    found = jobs_named(workspace, job, kind)
    if len(found) > 1:
        say(how_to_choose(found))
    reader = LogReader(workspace)
    while True:
        ended = not follow or all(
            outcome_of(workspace, one) for one in found
        )  # asked before the last reading
        for line in reader.lines(lambda line: any(is_about(line, one, part) for one in found)):
            click.echo(_json(line) if as_json else line.text)
        if ended:
            return
        time.sleep(_POLL_SECONDS)


def _json(line: "Line") -> str:
    return json.dumps({**line.model_dump(), "part": line.part}, sort_keys=True)
