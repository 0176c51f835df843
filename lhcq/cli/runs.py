"""What the verbs show of a run."""

import statistics
from typing import Any

from lhcq.cli.options import printed_table
from lhcq.workspace import Workspace


def alarm_lines(workspace: Workspace, run: str) -> list[str]:
    """A line for each alarm of a run, with what followed it."""
    from lhcq.report.collect import alarms_of
    from lhcq.report.page import said_alarm

    return [said_alarm(alarm) for alarm in alarms_of(workspace.run(run))]


def run_answer(workspace: Workspace, run: str) -> tuple[dict[str, Any], str]:
    """A run's checkpoint table and what it amounts to, as a record and as text."""
    from lhcq.report.collect import collect_run, read_events
    from lhcq.report.page import verdict_of
    from lhcq.report.table import checkpoint_table

    view = collect_run(workspace, run)
    rows = checkpoint_table(view)
    report = workspace.run(run) / "report.html"
    value = {
        "run": run,
        "state": view.state,
        "message": view.message,
        "total_steps": view.total_steps,
        "best_step": view.best_step,
        "checkpoints": rows,
        "alarms": list(view.alarms),
        "calibrated": view.calibrated,
        "verdict": verdict_of(view),
        "report": str(report) if report.exists() else None,
    }
    title = f"{run}: {view.state}, {view.model} on split {view.split}"
    speed = speeds_of(read_events(workspace.run(run) / "events.jsonl"))
    rates = [f"{stage} at {rate:.1f} events/s" for stage, rate in speed.items()]
    return {**value, "events_per_second": speed}, "\n".join(
        [
            title,
            *([", ".join(rates)] if rates else []),
            table_text(rows),
            *(f"Alarm: {line}" for line in alarm_lines(workspace, run)),
            *verdict_of(view),
        ]
    )


def speeds_of(events: list[dict[str, Any]]) -> dict[str, float]:
    """Events a second of training (median over the steps) and of validation (loading the adapter included)."""
    steps = [event["samples_per_second"] for event in events if event["event"] == "step"]
    scored = [event for event in events if event["event"] == "validation"]
    speed = {}
    if steps:
        speed["trained"] = statistics.median(steps)
    if scored:
        speed["validated"] = sum(event["n"] for event in scored) / sum(event["seconds"] for event in scored)
    return speed


def table_text(rows: list[dict[str, Any]]) -> str:
    """The table for a terminal, as wide as it needs to be."""
    from lhcq.report.table import COLUMNS, printed_row

    return printed_table(COLUMNS, map(printed_row, rows), left=("classifier", "part"))
