"""Options that several verbs share."""

import contextlib
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click
from pydantic import ValidationError

from lhcq.errors import BadInput
from lhcq.frozen import Frozen, explain_faults
from lhcq.records.jobs import Priority
from lhcq.records.specs import SPECS
from tasks.observe.tracing import flush, note_failure, note_span, span

if TYPE_CHECKING:
    from lhcq.records.jobs import Job

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output."
)


def traced(function: F) -> F:
    """The verb asks for a job: where traces are wanted, it is the root of one."""

    @functools.wraps(function)
    def command(**options: Any) -> int:
        try:
            with span(f"lhcq {click.get_current_context().info_name}"):
                code: int = function(**options)
                note_span(exit_code=code)
                if code:
                    note_failure(f"exit code {code}")
                return code
        finally:
            flush()

    return command  # type: ignore[return-value]


def choice_of(config: type[Frozen], field: str) -> click.Choice[str]:
    """What a configuration allows for a field."""
    return click.Choice(get_args(config.model_fields[field].annotation))


def preset_choice(presets: Mapping[str, Frozen]) -> Callable[[F], F]:
    """`--preset`, the first by default; the options made by `preset_option` stand below it."""
    return click.option(
        "--preset",
        type=click.Choice(list(presets)),
        default=next(iter(presets)),
        show_default=True,
        help="Where the defaults of the options below come from.",
    )


def preset_option(
    name: str, presets: Mapping[str, Frozen], *, none: str = "", **attributes: Any
) -> Callable[[F], F]:
    """An option for a field of presets, with the value that each of these has; `none` says what None means."""
    field = name.removeprefix("--").replace("-", "_")
    values = {preset: getattr(config, field) for preset, config in presets.items()}
    words = {preset: none if value is None else f"{value}" for preset, value in values.items()}
    usual, *others = words
    shown = words[usual] + "".join(f"; {one}: {words[one]}" for one in others if words[one] != words[usual])
    return click.option(name, show_default=shown or False, **attributes)


@contextlib.contextmanager
def told_by_option(**words: str) -> Iterator[None]:
    """What is wrong with a configuration is told by the options of this command that it was made of.

    A field is what the option of its name gives; `words` say what other fields were made of.
    """
    try:
        yield
    except BadInput as error:
        if not isinstance(error.__cause__, ValidationError):
            raise
        parameters = click.get_current_context().command.params
        options = {one.name or "": one.opts[0] for one in parameters if isinstance(one, click.Option)}
        raise BadInput(explain_faults(error.__cause__, {**options, **words})) from error


def seed_option(function: F) -> F:
    """`--seed N`."""
    return click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)(function)


def step_option(function: F) -> F:
    """`--step STEP`, a checkpoint of the argument RUN."""
    return click.option(
        "--step", default="best", show_default=True, help="A step of RUN, a tag, best or latest."
    )(function)


def wait_option(function: F) -> F:
    """`--wait/--detach`."""
    return click.option(
        "--wait/--detach",
        default=True,
        help="Wait for the end, with progress (the default), or return once everything is queued.",
    )(function)


def force_option(function: F) -> F:
    """`--force`."""
    return click.option(
        "--force",
        is_flag=True,
        help="Make it anew: what stands under that name is removed first, unless something else was made of it.",
    )(function)


def kind_option(function: F) -> F:
    """`--kind KIND`."""
    return click.option(
        "--kind",
        type=click.Choice(list(SPECS)),
        help="Which job, where several have that name. Default: of any kind.",
    )(function)


def holding_option(function: F) -> F:
    """`--kind` of what the workspace holds."""
    from tasks.jobs.holdings import words

    return click.option(
        "--kind",
        "what",
        type=click.Choice(words()),
        help="Of what sort it is. Default: any.",
    )(function)


def workers_option(function: F) -> F:
    """`--workers N`."""
    return click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=None,
        help="Worker processes of the embedded mode. Default: one a core.",
    )(function)


def how_to_choose(jobs: "Sequence[Job]") -> str:
    """A line under what was told of several jobs of one name."""
    kinds = ", ".join(job.kind for job in jobs)
    return f"({len(jobs)} jobs are called {jobs[0].name}: {kinds}. --kind {jobs[0].kind} chooses one.)"


def priority_option(function: F) -> F:
    """`--priority high|normal|low`."""
    return click.option(
        "--priority",
        type=click.Choice(get_args(Priority)),
        default="normal",
        show_default=True,
        help="Whose tasks come first, among those of all jobs that wait.",
    )(function)


def max_parallel_option(function: F) -> F:
    """`--max-parallel N`."""
    return click.option(
        "--max-parallel",
        type=click.IntRange(min=1),
        default=None,
        help="Tasks of this job that may be under way at a time. Default: as many as there are workers.",
    )(function)


def printed_table(
    headings: Mapping[str, str], rows: Iterable[Mapping[str, str]], *, left: Sequence[str]
) -> str:
    """Rows of cells under `headings`, by column; those of the columns `left` begin on the left."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for key, heading in headings.items():
        table.add_column(heading, no_wrap=True, justify="left" if key in left else "right")
    for row in rows:
        table.add_row(*(row[key] for key in headings))
    console = Console(width=240)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()).rstrip()


def answer(as_json: bool, value: dict[str, Any], text: str) -> None:
    """Print the answer of a command: one JSON object, or the text for people."""
    click.echo(json.dumps(value, sort_keys=True, allow_nan=False) if as_json else text)
