"""`lhcq fetch NAME`."""

import contextlib
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import FilePath, NumberRange, example
from lhcq.cli.progress import Update, progress

if TYPE_CHECKING:
    from lhcq.events.archive import ArchiveFile
    from lhcq.events.download import Fetched


_REDRAW_SECONDS = 0.1


@click.command("fetch", epilog=example("lhcq fetch rnd --to data/"))
@click.argument("name", required=False)
@click.option("--list", "listing", is_flag=True, help="List the files, as without a NAME.")
@click.option(
    "--to",
    "directory",
    type=FilePath(),
    default=Path(),
    help="Directory to load into. Default: the current one.",
)
@click.option(
    "--from", "mirror", metavar="URL", help="A web directory that holds the file. Default: its archive."
)
@click.option(
    "--attempts",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Attempts in a row without a new byte until it gives up.",
)
@click.option(
    "--stall",
    type=NumberRange(min=0, min_open=True),
    default=30,
    show_default=True,
    help="Seconds without a byte until a connection counts as dead.",
)
@json_option
def command(
    name: str | None,
    listing: bool,
    directory: Path,
    mirror: str | None,
    attempts: int,
    stall: float,
    as_json: bool,
) -> int:
    """Load a published file of the LHC Olympics, or list them.

    NAME is a short name of the list (rnd, tiny, black-box-1, ...) or the file's own. What was interrupted, also by
    Ctrl-C or a crash, goes on where it stopped when the same command is run again. The md5 is verified where it is
    known; a file that is there already and right is not loaded again, a wrong one is never overwritten.
    """
    from lhcq.events.archive import find_file
    from lhcq.events.download import Patience, fetch_file

    if listing or name is None:
        return _list(as_json)
    entry = find_file(name)
    with Meter(entry.name) as meter:
        try:
            fetched = fetch_file(
                entry,
                directory.absolute(),
                mirror=mirror,
                patience=Patience(attempts=attempts, stall_seconds=stall),
                watch=meter.show,
                say=_say,
            )
        except KeyboardInterrupt:
            _say(f"interrupted at byte {meter.done:,}: run the same command again to go on")
            raise
    answer(as_json, {**_facts(entry), **fetched.model_dump(mode="json")}, _told(entry, fetched))
    return 0


class Meter(contextlib.ExitStack):
    """The progress of one download, shown once the server has said how long the file is."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.done = 0
        self._title = title
        self._update: Update | None = None
        self._began, self._first, self._shown = 0.0, 0, 0.0

    def show(self, done: int, total: int | None) -> None:
        """Take that `done` of `total` bytes are here."""
        if self._update is None or done < self.done:  # the first bytes, or the first ones again
            self._began, self._first = time.monotonic(), done
        if self._update is None:
            self._update = self.enter_context(progress(self._title, (total or 0) // 1000, "kB"))
        self.done = done
        now = time.monotonic()
        if now - self._shown < _REDRAW_SECONDS and done != total:
            return
        self._shown = now
        self._update(done // 1000, self._pace(total))

    def _pace(self, total: int | None) -> str:
        """Rate and time left, over what this command has loaded."""
        seconds = time.monotonic() - self._began
        rate = (self.done - self._first) / seconds if seconds > 0 else 0.0
        if seconds < 1 or rate == 0:
            return ""
        left = "" if total is None else f", {_duration((total - self.done) / rate)} left"
        return f"{rate / 1e6:.1f} MB/s{left}"


def _list(as_json: bool) -> int:
    """Print the catalogue."""
    from lhcq.events.archive import CATALOGUE, COMPANIONS

    width = max(len(entry.name) for entry in CATALOGUE)
    lines = []
    for entry in CATALOGUE:
        md5 = "md5 known" if entry.md5 else "md5 not known"
        lines += [f"{entry.name:<{width}}  {entry.what}", f"{'':<{width}}  {entry.file}{_size(entry)}, {md5}"]
    records = {entry.record.doi: entry.record for entry in CATALOGUE}
    cited = [record.cited() for record in records.values()]
    others = [
        line for one in COMPANIONS for line in (f"{one.file}", f"{'':<{width}}  {one.what}: {one.page}")
    ]
    text = "\n".join(
        [
            *(*lines, "", "Please cite:", *cited, "", "Load one: lhcq fetch NAME [--to DIRECTORY]"),
            *(
                "",
                "Others that lhcq reads, to be loaded by hand, since neither size nor hash is known:",
                *others,
            ),
        ]
    )
    named = [companion.model_dump() for companion in COMPANIONS]
    answer(as_json, {"files": [_facts(entry) for entry in CATALOGUE], "companions": named}, text)
    return 0


def _facts(entry: "ArchiveFile") -> dict[str, Any]:
    """A catalogue entry for `--json`."""
    record = entry.record
    return {
        "name": entry.name,
        "file": entry.file,
        "what": entry.what,
        "published_bytes": entry.size,
        "published_md5": entry.md5,
        "page": record.page,
        "doi": record.doi,
        "licence": record.licence,
    }


def _told(entry: "ArchiveFile", fetched: "Fetched") -> str:
    """The answer for people."""
    compared = {
        "catalogue": "agrees with the published one.",
        "server": "agrees with what the server states; the catalogue of lhcq does not know it.",
        None: "cannot be verified, because none is known for this file: compare it with that of your colleagues.",
    }[fetched.verified_by]
    state = "already there, " if fetched.already_there else ""
    lines = [
        str(fetched.path),
        f"{state}{fetched.bytes:,} bytes, md5 {fetched.md5}",
        f"The md5 {compared}",
        f"Please cite {entry.record.cited()}.",
    ]
    if entry.file.endswith(".h5"):
        lines.append(f"Next: lhcq inspect {shlex.quote(str(fetched.path))}")
    if entry.file.endswith(".masterkey"):
        box, key = (shlex.quote(str(path)) for path in (fetched.path.with_suffix(".h5"), fetched.path))
        lines.append(f"Next: lhcq cluster {box} --labels {key} --name NAME")
    return "\n".join(lines)


def _size(entry: "ArchiveFile") -> str:
    return f" ({entry.size / 1e6:,.1f} MB)" if entry.size else ""


def _duration(seconds: float) -> str:
    return f"{seconds / 60:,.0f} min" if seconds >= 120 else f"{seconds:,.0f} s"


def _say(line: str) -> None:
    click.echo(f"lhcq: {line}", err=True)
