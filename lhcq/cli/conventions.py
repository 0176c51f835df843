"""Options of the verbs that read a file: what it lacks, and what its numbers mean where it is written otherwise."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from lhcq.cli.parameters import FilePath

Command = TypeVar("Command", bound=Callable[..., Any])


def _to_padding(context: click.Context, option: click.Parameter, text: str | None) -> float | str | None:
    if text is None or text.lower() == "nan":
        return text and "nan"
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither nan nor a number.") from None


def _to_map(context: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, int] | None:
    pairs = [text.partition("=") for text in texts]
    for label, _, meaning in pairs:
        if meaning not in ("0", "1") or not label.removeprefix("-").isdecimal():
            raise click.BadParameter("give it as LABEL=1 (signal) or LABEL=0 (background), such as 2=1.")
    return {label: int(meaning) for label, _, meaning in pairs} or None


labels_option: Callable[[Command], Command] = click.option(
    "--labels",
    "key",
    type=FilePath(),
    help="The master key of a file without labels: one number an event, 0 background. Default: none.",
)
padding_option: Callable[[Command], Command] = click.option(
    "--padding",
    metavar="nan|NUMBER",
    callback=_to_padding,
    help="pt of places without a particle. Default: 0.",
)
label_map_option: Callable[[Command], Command] = click.option(
    "--label-map",
    metavar="LABEL=0|1",
    multiple=True,
    callback=_to_map,
    help="What another label than 0 and 1 stands for: 2=1 makes a second signal signal. May be given several times.",
)
