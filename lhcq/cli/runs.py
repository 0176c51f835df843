"""What the verbs show of a run."""

import shlex
import statistics
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lhcq.cli.options import printed_table
from lhcq.workspace import RunPaths, Workspace

if TYPE_CHECKING:
    from lhcq.records.journal import Line


def alarm_lines(workspace: Workspace, run: str) -> list[str]:
    """A line for each alarm of a run, with what followed it."""
    from lhcq.records.run_state import alarms_of, answer_to, open_pause
    from lhcq.report.verdict import said_alarm

    run_dir = workspace.run(run)
    paused = open_pause(run_dir) is not None
    return [said_alarm(alarm, answer_to(run_dir, alarm), paused=paused) for alarm in alarms_of(run_dir)]


def run_answer(workspace: Workspace, run: str) -> tuple[dict[str, Any], str]:
    """A run's checkpoint table and what it amounts to, as a record and as text."""
    from lhcq.records.journal import read_journal
    from lhcq.report.collect import collect_run
    from lhcq.report.table import checkpoint_table
    from lhcq.report.verdict import verdict_of

    view = collect_run(workspace, run)
    rows = checkpoint_table(view)
    report, recipe = RunPaths(workspace.run(run)).page, RunPaths(workspace.run(run)).recipe
    value = {
        "run": run,
        "state": view.state,
        "message": view.message,
        "total_steps": view.total_steps,
        "best_step": view.best_step,
        "checkpoints": rows,
        "alarms": [
            {**alarm.model_dump(), "answer": answer and answer.model_dump()} for alarm, answer in view.alarms
        ],
        "calibrated": view.calibrated and view.calibrated.model_dump(),
        "verdict": verdict_of(view),
        "report": str(report) if report.exists() else None,
        "recipe": str(recipe) if recipe.exists() else None,
    }
    title = f"{run}: {view.state}, {view.model} on split {view.split}"
    speed = speeds_of(read_journal(workspace.run(run)))
    rates = [f"{stage} at {rate:.1f} events/s" for stage, rate in speed.items()]
    return {**value, "events_per_second": speed}, "\n".join(
        [
            title,
            *([", ".join(rates)] if rates else []),
            table_text(rows),
            *(f"Alarm: {line}" for line in alarm_lines(workspace, run)),
            *verdict_of(view),
            *([f"To make it again: lhcq run {shlex.quote(str(recipe))}"] if recipe.exists() else []),
        ]
    )


def speeds_of(lines: "Iterable[Line]") -> dict[str, float]:
    """Events a second of training (median over the steps) and of validation (loading the adapter included)."""
    steps, n, seconds = [], 0, 0.0
    for line in lines:
        if line.event == "step" and line.samples_per_second is not None:
            steps.append(line.samples_per_second)
        elif line.event == "validation":
            n, seconds = n + (line.n or 0), seconds + (line.seconds or 0.0)
    trained = {"trained": statistics.median(steps)} if steps else {}
    return trained | ({"validated": n / seconds} if seconds else {})


def table_text(rows: list[dict[str, Any]]) -> str:
    """The table for a terminal, as wide as it needs to be."""
    from lhcq.report.table import COLUMNS, printed_row

    return printed_table(COLUMNS, map(printed_row, rows), left=("classifier", "part"))
