"""`lhcq status`."""

import time
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import example

if TYPE_CHECKING:
    from lhcq.workspace import Workspace


@click.command("status", epilog=example("lhcq status", "lhcq status --open --mine"))
@click.option("--open", "only_open", is_flag=True, help="Only jobs that have not ended.")
@click.option("--mine", is_flag=True, help="Only jobs that you asked for.")
@click.option("--user", metavar="NAME", help="Only jobs that this user asked for. Default: of all users.")
@json_option
def command(only_open: bool, mine: bool, user: str | None, as_json: bool) -> int:
    """List the jobs of the workspace: what they are, whose, how far they got, how they ended."""
    from lhcq.cli.session import find_workspace
    from lhcq.records.jobs import this_user
    from tasks.client import meet_broker
    from tasks.observe.job_rows import JobRows

    if mine and user is not None:
        raise click.UsageError("--mine and --user name two users: leave one out.")
    user = this_user() if mine else user
    workspace = find_workspace()
    meet_broker(workspace)  # which counts; without one the workspace is read
    rows = JobRows(workspace).read()
    if user is not None:  # whose a damaged one is, its record does not tell
        rows = [row for row in rows if row["owner"] == user]
    if only_open:
        rows = [row for row in rows if row["finished"] is None]
    answer(
        as_json,
        {"workspace": str(workspace.root), "jobs": rows},
        _text(workspace, rows, narrowed=only_open or user is not None),
    )
    return 0


def _text(workspace: "Workspace", rows: list[dict[str, Any]], *, narrowed: bool) -> str:
    if not rows:
        return f"no such jobs in {workspace.root}" if narrowed else f"no jobs in {workspace.root}"
    lines = [f"{'job':<32} {'owner':<10} {'state':<11} {'progress':>18}  {'started':<16}  message"]
    for row in rows:
        began = row["created"]
        started = "" if began is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(began))
        amount = "" if row["done"] is None else f"{row['done']:,}/{row['total']:,} {row['unit']}"
        job = f"{row['kind']} {row['name']}"
        told = [row["message"]] if row["message"] else []
        if alarms := row["alarms"]:
            newest = alarms[-1]
            more = f" ({len(alarms)} alarms)" if len(alarms) > 1 else ""
            told.append(f"ALARM at step {newest['step']}, {newest['kind']}: {newest['message']}{more}")
        stands = f"{row['state']:<11} {amount:>18}  {started:<16}"
        lines.append(f"{job:<32} {row['owner'] or '-':<10} {stands}  {'; '.join(told)}".rstrip())
    return "\n".join(lines)
