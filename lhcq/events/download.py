"""Download of published files: resumed after a cut, checked before it counts.

A file has its final name only when it is whole, of the right size and, where that is known, of the right md5. What
stands under that name already is never written to.
"""

import http.client
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from lhcq.errors import BadInput, DiskFull, NameTaken, TransientError
from lhcq.events.archive import ArchiveFile, file_address
from lhcq.events.partial import PartialFile, md5_of, open_partial, remove_second_name
from lhcq.events.ranges import (
    Ask,
    Body,
    Complete,
    Later,
    StartOver,
    check_version,
    plan_again,
    plan_request,
    read_answer,
)
from lhcq.events.web import Interrupted, open_url, read_some
from lhcq.frozen import Frozen
from lhcq.storage import explained_os_errors

_BLOCK = 1 << 18

Watch = Callable[[int, int | None], None]
"""Takes how many bytes are here, and of how many (None: not known)."""
Say = Callable[[str], None]


class ArchiveAway(TransientError):
    """The archive cannot be reached, or stops in the middle each time."""


class Patience(Frozen):
    """When to give up."""

    attempts: int = Field(default=5, ge=1)
    """In a row without a new byte."""
    stall_seconds: float = Field(default=30.0, gt=0)
    """Without a byte until a connection counts as dead."""
    first_delay_seconds: float = Field(default=1.0, ge=0)
    """Before the second attempt; doubled for each further one."""
    longest_delay_seconds: float = Field(default=120.0, ge=0)
    """A server that asks to be left alone for longer ends the command, which says so."""

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return float(min(self.first_delay_seconds * 2 ** min(failures - 1, 30), self.longest_delay_seconds))


class Fetched(Frozen):
    """A file that is here now."""

    path: Path
    url: str
    bytes: int
    md5: str
    verified_by: Literal["catalogue", "server"] | None
    """Whose md5 agrees; None where there is none to compare with."""
    already_there: bool = False
    resumed_from: int = 0
    """Bytes that an earlier command had left."""


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What is to be loaded, and how."""

    entry: ArchiveFile
    url: str
    patience: Patience
    watch: Watch
    say: Say

    def plan(self, partial: PartialFile) -> Ask:
        """What to ask for next."""
        guarded = self.entry.md5 is not None
        return plan_request(done=partial.done, known=partial.version, url=self.url, guarded=guarded)


def fetch_file(
    entry: ArchiveFile,
    directory: Path,
    *,
    mirror: str | None = None,
    patience: Patience | None = None,
    watch: Watch = lambda done, total: None,
    say: Say = lambda line: None,
) -> Fetched:
    """Load `entry` into `directory` under its own name, from its archive or from `mirror`.

    An interrupted download goes on where it stopped. Raises `NameTaken` when another file has the name or another
    process loads it, `NotThere` and `BadInput` when the server has not got the file or the wrong one, `ArchiveAway`
    and `DiskFull` when trying later may help.
    """
    url = file_address(entry, mirror)
    target = directory / entry.file
    with explained_os_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        return _recognise(target, entry, url, say)
    with open_partial(target) as partial:
        if os.path.lexists(target):  # another process finished it before this one got the lock
            return _recognise(target, entry, url, say)
        say(f"loading {url} into {directory}")
        if entry.size is not None:
            check_room(directory, entry.size - partial.done)
        _load(partial, _Order(entry=entry, url=url, patience=patience or Patience(), watch=watch, say=say))
        verified_by = _verify(partial, entry, url)
        found = Fetched(
            path=target,
            url=url,
            bytes=partial.done,
            md5=partial.md5,
            verified_by=verified_by,
            resumed_from=partial.kept,
        )
        partial.commit(target)
    return found


def check_room(directory: Path, needed: int) -> None:
    """Raise `DiskFull` when `directory` has fewer than `needed` bytes left."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise DiskFull(
            f"{directory}: no room for the rest of the file: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free. "
            "Free some space, or name a larger disk with --to."
        )


def _recognise(target: Path, entry: ArchiveFile, url: str, say: Say) -> Fetched:
    """What stands under the final name already: the file, or a reason to touch nothing."""
    remedy = "It was left as it is: move it away, or name another directory with --to."
    if not target.is_file():
        raise NameTaken(f"{target}: exists and is no file. {remedy}")
    size = target.stat().st_size
    if entry.size not in (None, size):
        raise NameTaken(f"{target}: has {size:,} bytes, the published file {entry.size:,}. {remedy}")
    say(f"{target} is there already: checking it")
    with explained_os_errors(target):
        md5 = md5_of(target)
        remove_second_name(target)
    if entry.md5 not in (None, md5):
        raise NameTaken(f"{target}: has the md5 {md5}, the published file {entry.md5}. {remedy}")
    return Fetched(
        path=target,
        url=url,
        bytes=size,
        md5=md5,
        verified_by="catalogue" if entry.md5 else None,
        already_there=True,
    )


def _load(partial: PartialFile, order: _Order) -> None:
    """Bring the file to its end, in as many attempts as it takes while each brings new bytes."""
    patience = order.patience
    failures, furthest = 0, partial.done
    while not _is_whole(partial, order.entry):
        try:
            return _load_once(partial, order)
        except Interrupted as interrupted:
            reason = interrupted
        failures = 1 if partial.done > furthest else failures + 1
        furthest = max(furthest, partial.done)
        wait = patience.delay(failures) if reason.wait is None else reason.wait
        if failures >= patience.attempts or wait > patience.longest_delay_seconds:
            raise ArchiveAway(_given_up(partial, order, reason, failures))
        order.say(f"{reason}: trying again in {wait:.0f} s (attempt {failures + 1} of {patience.attempts})")
        time.sleep(wait)
    return None


def _given_up(partial: PartialFile, order: _Order, reason: Interrupted, failures: int) -> str:
    """The line for people after the last attempt."""
    asked = f", and asks to wait {reason.wait:,.0f} s" if reason.wait is not None else ""
    times = f"{failures} attempts in a row" if failures > 1 else "1 attempt"
    remedy = "Check the connection and run the same command later, or name a mirror with --from."
    if goes_on := order.plan(partial).start:
        remedy = f"{goes_on:,} bytes are kept in {partial.path.name}: the same command goes on from there."
    return f"{order.url}: {reason}{asked} ({times}). {remedy}"


def _is_whole(partial: PartialFile, entry: ArchiveFile) -> bool:
    """Whether every byte is here; more than there should be means that they are of something else."""
    total = entry.size or (partial.version.total if partial.version else None)
    if total is not None and partial.done > total:
        partial.forget()
    return total is not None and partial.done == total


def _load_once(partial: PartialFile, order: _Order) -> None:
    """Load what one connection brings: to the end of the file, or raise `Interrupted`."""
    ask: Ask | None = order.plan(partial)
    while ask is not None:
        ask = _answer(ask, partial, order)


def _answer(ask: Ask, partial: PartialFile, order: _Order) -> Ask | None:
    """Take what the server gives for `ask`, or tell what else to ask it for."""
    entry, url, known = order.entry, order.url, partial.version
    with open_url(url, ask.headers, order.patience.stall_seconds) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        answer = read_answer(ask, url=url, status=response.status, headers=headers, known=known)
        if (otherwise := plan_again(ask, answer, known)) is not None:
            return otherwise
        match answer:
            case Later():
                raise Interrupted(answer.reason, answer.wait)
            case StartOver():
                partial.forget()
                raise Interrupted(answer.reason)
            case Complete():
                check_version(answer.version, size=entry.size, md5=entry.md5)
            case Body():
                check_version(answer.version, size=entry.size, md5=entry.md5)
                _take_body(response, answer, partial, order)
    return None


def _take_body(response: http.client.HTTPResponse, body: Body, partial: PartialFile, order: _Order) -> None:
    """Write what comes, as far as the file goes."""
    total = order.entry.size or body.version.total
    if total is not None:
        check_room(partial.path.parent, total - partial.done)
    if body.start:
        order.say(f"going on from byte {body.start:,}")
    elif partial.done:
        order.say("starting again: the file has changed since, or the server cannot send a part of it")
    partial.start(body.version, body.start)
    order.watch(partial.done, total)
    # Never beyond the end: what a server sends there is not the file's.
    while total is None or partial.done < total:
        most = _BLOCK if total is None else min(_BLOCK, total - partial.done)
        block = read_some(response, most, order.patience.stall_seconds)
        if not block:
            break
        partial.append(block)
        order.watch(partial.done, total)
    if total is not None and partial.done < total:
        raise Interrupted(f"the connection was cut after {partial.done:,} of {total:,} bytes")


def _verify(partial: PartialFile, entry: ArchiveFile, url: str) -> Literal["catalogue", "server"] | None:
    """Compare the whole with the md5 that it should have; a wrong file is removed, not built on."""
    stated = partial.version.stated_md5 if partial.version else None
    expected = entry.md5 or stated
    if expected not in (None, partial.md5):
        found = partial.md5
        partial.forget()
        raise BadInput(
            f"{url}: what came has the md5 {found}, it should have {expected}. It was removed: run the same command "
            "to load it afresh."
        )
    if entry.md5:
        return "catalogue"
    return "server" if stated else None
