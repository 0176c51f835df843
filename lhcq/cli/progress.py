"""Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import rich.progress
from rich.console import Console

Update = Callable[[int, str], None]
"""Takes how much is done, and a note such as the latest loss."""

_LINE_EVERY_SECONDS = 10.0


@contextlib.contextmanager
def progress(title: str, total: int, unit: str) -> Iterator[Update]:
    """Show progress from 0 to `total` units while the body runs."""
    showing = _bar if sys.stderr.isatty() else _lines
    with showing(title, total, unit) as update:
        yield update


@contextlib.contextmanager
def _bar(title: str, total: int, unit: str) -> Iterator[Update]:
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + unit),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("{task.fields[note]}"),
    )
    with rich.progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, note="")

        def update(done: int, note: str) -> None:
            bar.update(task, completed=done, note=note)

        yield update


@contextlib.contextmanager
def _lines(title: str, total: int, unit: str) -> Iterator[Update]:
    shown = time.monotonic()
    line = ""

    def update(done: int, note: str) -> None:
        nonlocal shown, line
        news = f"{title}: {done:,}/{total:,} {unit}  {note}".rstrip()
        if news != line and time.monotonic() - shown >= _LINE_EVERY_SECONDS:
            shown, line = time.monotonic(), news
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    yield update
