"""`lhcq inspect FILE`."""

from pathlib import Path
from typing import Any

import click

from lhcq.cli.conventions import label_map_option, padding_option
from lhcq.cli.options import answer, json_option, told_by_option
from lhcq.cli.parameters import FilePath, example


@click.command("inspect", epilog=example("lhcq inspect data/events_anomalydetection_v2.h5"))
@click.argument("file", type=FilePath())
@padding_option
@label_map_option
@json_option
def command(file: Path, as_json: bool, **given: Any) -> int:
    """Say what FILE is: its kind, events, labels, particles, storage, and what is wrong with it."""
    from lhcq.config import Conventions
    from lhcq.events.inspect import inspect_file
    from lhcq.events.sandboxed_read import read_apart

    with told_by_option():
        conventions = Conventions.checked(
            **{name: value for name, value in given.items() if value is not None}
        )
    (report,) = read_apart(file, lambda: [inspect_file(file, conventions)])
    fields = report.model_dump()
    lines = [
        f"{name.replace('_', ' '):<24} {_shown(value)}"
        for name, value in fields.items()
        if name != "problems" and value not in (None, [])
    ]
    problems = [f"problem: {problem}" for problem in report.problems] or ["no problem found"]
    answer(as_json, {"file": str(file), **fields}, "\n".join([str(file), *lines, *problems]))
    return 1 if report.problems else 0


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(value) if any(" " in one for one in value) else ", ".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
