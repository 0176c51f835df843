"""`lhcq why JOB [PART]`."""

import os
import time
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import answer, how_to_choose, json_option, kind_option
from lhcq.cli.parameters import NameOf, example
from lhcq.storage import is_full

if TYPE_CHECKING:
    from lhcq.records.failures import Holder
    from lhcq.records.jobs import Job
    from lhcq.workspace import Workspace
    from tasks.client import Unit
    from tasks.observe.unit_status import Standing

_SHOWN = 10


@click.command("why", epilog=example("lhcq why lhco"))
@click.argument("job", type=NameOf("jobs"))
@click.argument("part", type=click.IntRange(min=0), required=False)
@kind_option
@json_option
def command(job: str, part: int | None, kind: str | None, as_json: bool) -> int:
    """Tell why JOB, or its chunk PART, is not done: attempts, who is at work, the last traceback, what it awaits.

    Where several jobs have the name, it is told of all, the newest first, unless --kind chooses one; of a PART, of
    those that have it.
    """
    from lhcq.cli.session import find_workspace
    from lhcq.records.jobs import jobs_named
    from tasks.client import meet_broker

    workspace = find_workspace()
    found = jobs_named(workspace, job, kind)
    if part is not None:
        found = [one for one in found if part < one.parts] or found[:1]
    met = meet_broker(workspace)
    told = [_told(workspace, one, part, met) for one in found]
    values = [value for value, _ in told]
    lines = [line for _, lines in told for line in lines]
    if len(found) > 1:
        lines.append(how_to_choose(found))
    answer(as_json, {**values[0], "jobs": values}, "\n".join(lines))
    return 0


def _told(
    workspace: "Workspace", job: "Job", part: int | None, met: bool
) -> tuple[dict[str, Any], list[str]]:
    """How one job stands, as a record and in lines."""
    from lhcq.records.job_control import state_of
    from lhcq.records.jobs import outcome_of

    outcome = outcome_of(workspace, job)
    state = state_of(workspace, job, outcome)
    message = outcome.message if outcome else nobody_works(workspace, job, state, met)
    shown, left = _units(workspace, job, part)
    standings = _standings(workspace, job, shown, met)
    value = {
        "job": job.title,
        "state": state,
        "message": message,
        "units": [standing.model_dump() for standing in standings],
        "more_units": left,
    }
    separator = ", " if outcome else ". "
    title = f"{job.title}: {state}{f'{separator}{message}' if message else ''}"
    lines = [title, *(line for standing in standings for line in _lines(standing))]
    return value, [*lines, *([f"and {left} more units"] if left else [])]


def nobody_works(workspace: "Workspace", job: "Job", state: str, met: bool) -> str:
    """Of an open job: why nobody works for it, and the command that goes on; empty where somebody may."""
    from lhcq.environment import Settings
    from lhcq.records.failures import stop_of

    goes_on = f"`lhcq resume {job.name}` goes on."
    if state == "paused":
        return goes_on
    if met or Settings.from_environment().broker_url:
        return ""
    if workspace.broker.exists() and not os.access(workspace.broker, os.R_OK | os.X_OK):
        return "Whether somebody works for it, the owner of its broker can tell alone."
    stop = stop_of(workspace, job)
    if stop is None:
        ended = "Nobody works for it: its command is gone without a word, killed or with its machine."
    else:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stop.by.since))
        ended = f"Nobody works for it since {when} ({stop.by.host}): {stop.message}"
    full = " There is no space left on the device now." if is_full(workspace.root) else ""
    return f"{ended}{full} {goes_on}"


def _units(workspace: "Workspace", job: "Job", part: int | None) -> "tuple[list[Unit], int]":
    """What to tell of: the chunk, or what was given up and what is left to do; and how many more there are."""
    from lhcq.records.failures import failures_of
    from lhcq.records.jobs import outcome_of
    from tasks.client import named_chunk, pending_units, unit_of_key

    if part is not None:
        return [named_chunk(job, part)], 0
    units = [unit_of_key(failure.unit) for failure in failures_of(workspace, job)]
    if outcome_of(workspace, job) is None:
        units += pending_units(workspace, job)
    return units[:_SHOWN], max(0, len(units) - _SHOWN)


def _standings(workspace: "Workspace", job: "Job", units: "list[Unit]", met: bool) -> "list[Standing]":
    from tasks.observe.unit_status import listened_queues, standing_of

    listened = listened_queues() if units and met else None
    return [standing_of(workspace, job, unit, listened) for unit in units]


def _lines(standing: "Standing") -> list[str]:
    attempts = f", {standing.attempts} attempts" if standing.attempts else ""
    lines = [f"  {standing.unit}: {standing.state}{attempts}"]
    if standing.waits_for:
        lines.append(f"    waits for   {standing.waits_for}")
    if standing.lease_expires_in is not None:
        lines.append(f"    lease       expires in {standing.lease_expires_in:.0f} s unless extended")
    who = standing.holder or standing.last
    if who is not None:
        lines.append(f"    {'at work     ' if standing.holder else 'tried last  '}{_described(who)}")
    if standing.message:
        lines.append(f"    last error  {standing.message}")
    if standing.traceback:
        lines += [f"      {line}" for line in standing.traceback.rstrip().splitlines()]
    return lines


def _described(who: "Holder") -> str:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(who.since))
    return f"{who.host}, process {who.pid}, from {began}, log: {who.log or 'where that worker prints'}"
