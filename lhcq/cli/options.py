"""Options that several verbs share."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output."
)


def wait_option(function: F) -> F:
    """`--wait/--detach`."""
    return click.option(
        "--wait/--detach",
        default=True,
        help="Wait for the end, with progress (the default), or return once everything is queued.",
    )(function)


def kind_option(function: F) -> F:
    """`--kind KIND`."""
    return click.option(
        "--kind",
        type=click.Choice(["generate", "cluster", "prepare", "train", "predict"]),
        help="Which job, where several have that name.",
    )(function)


def workers_option(function: F) -> F:
    """`--workers N`."""
    return click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=None,
        help="Worker processes of the embedded mode. Default: one a core.",
    )(function)


def answer(as_json: bool, value: dict[str, Any], text: str) -> None:
    """Print the answer of a command: one JSON object, or the text for people."""
    click.echo(json.dumps(value, sort_keys=True, allow_nan=False) if as_json else text)
