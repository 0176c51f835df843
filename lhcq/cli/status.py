"""`lhcq status`."""

import contextlib
import time
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import answer, json_option

if TYPE_CHECKING:
    from lhcq.workspace import Workspace
    from tasks.jobs.store import Job


@click.command("status")
@json_option
def command(as_json: bool) -> int:
    """List all jobs of the workspace: what they are, how far they got, how they ended."""
    from lhcq.cli.session import meet_broker, open_workspace
    from tasks.jobs.store import list_jobs

    workspace = open_workspace()
    meet_broker(workspace)  # which counts; without one the workspace is read
    rows = [_row(workspace, job) for job in list_jobs(workspace)]
    answer(as_json, {"workspace": str(workspace.root), "jobs": rows}, _text(workspace, rows))
    return 0


def _row(workspace: "Workspace", job: "Job") -> dict[str, Any]:
    from lhcq.records.run_control import is_paused
    from lhcq.records.run_state import alarms_of
    from tasks.jobs.store import outcome_of

    alarms = alarms_of(workspace.run(job.name)) if job.kind == "train" else []
    outcome = outcome_of(workspace, job)
    done, total, unit = progress_of(workspace, job, ended=outcome is not None and outcome.state == "done")
    state: str = outcome.state if outcome else "open"
    if state == "open" and job.kind == "train":
        last_step = job.spec["checkpoint_steps"][-1]
        state = "paused" if is_paused(workspace, job.name, last_step=last_step) else state
    return {
        "kind": job.kind,
        "name": job.name,
        "state": state,
        "done": done,
        "total": total,
        "unit": unit,
        "created": job.created,
        "finished": outcome.finished if outcome else None,
        "message": outcome.message if outcome else "",
        "alarms": [alarm.model_dump(exclude={"after", "round"}) for alarm in alarms],
    }


def progress_of(workspace: "Workspace", job: "Job", *, ended: bool) -> tuple[int, int, str]:
    """How much of a job is done, of how much, and of what."""
    from lhcq.cli.runs import last_step
    from tasks.jobs.planner import PART_SUFFIX

    if job.kind == "train":
        return last_step(workspace, job.name)[0], job.spec["total_steps"], "steps"
    if job.kind in PART_SUFFIX:
        return job.parts if ended else done_parts(workspace, job), job.parts, "parts"
    return int(ended), 1, "split"


def done_parts(workspace: "Workspace", job: "Job") -> int:
    """How many parts of a fan-out stand: as the broker counts them, or, where it cannot tell, as they are listed."""
    import redis

    from tasks.broker.connection import has_broker
    from tasks.jobs.planner import finished_parts
    from tasks.jobs.progress import counted_parts

    if has_broker():
        with contextlib.suppress(redis.RedisError, ValueError):
            counted = counted_parts(job)
            if counted is not None:
                return counted
    return len(finished_parts(workspace, job))


def _text(workspace: "Workspace", rows: list[dict[str, Any]]) -> str:
    if not rows:
        return f"no jobs in {workspace.root}"
    lines = [f"{'job':<32} {'state':<11} {'progress':>18}  {'started':<16}  message"]
    for row in rows:
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))
        amount = f"{row['done']:,}/{row['total']:,} {row['unit']}"
        job = f"{row['kind']} {row['name']}"
        told = [row["message"]] if row["message"] else []
        if alarms := row["alarms"]:
            newest = alarms[-1]
            more = f" ({len(alarms)} alarms)" if len(alarms) > 1 else ""
            told.append(f"ALARM at step {newest['step']}, {newest['kind']}: {newest['message']}{more}")
        lines.append(f"{job:<32} {row['state']:<11} {amount:>18}  {started:<16}  {'; '.join(told)}".rstrip())
    return "\n".join(lines)
