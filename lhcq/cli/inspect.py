"""`lhcq inspect FILE`."""

from pathlib import Path

import click

from lhcq.cli.options import answer, json_option


@click.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def command(file: Path, as_json: bool) -> int:
    """Say what FILE is: its kind, events, labels, particles, storage, and what is wrong with it."""
    from lhcq.events.inspect import inspect_file

    report = inspect_file(file)
    fields = report.model_dump()
    lines = [f"{name.replace('_', ' '):<24} {value}" for name, value in fields.items() if name != "problems"]
    problems = [f"problem: {problem}" for problem in report.problems] or ["no problem found"]
    answer(as_json, {"file": str(file), **fields}, "\n".join([str(file), *lines, *problems]))
    return 1 if report.problems else 0
