"""Download of published files: resumed after a cut, checked before it counts.

A file has its final name only when it is whole, of the right size and, where that is known, of the right md5. What
stands under that name already is never written to.
"""

import contextlib
import http.client
import os
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import Field

from lhcq import __version__
from lhcq.config import Frozen
from lhcq.errors import BadInput, DiskFull, NameTaken, TransientError
from lhcq.events.archive import ArchiveFile, file_address
from lhcq.events.partial import PartialFile, md5_of, open_partial
from lhcq.events.ranges import (
    Body,
    Complete,
    Later,
    StartOver,
    check_version,
    plan_request,
    read_answer,
)
from lhcq.workspace import explained_os_errors

_BLOCK = 1 << 18
# Zenodo answers 403 to the agents that Python's libraries send by themselves.
_AGENT = f"lhcq/{__version__}"

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
        return float(min(self.first_delay_seconds * 2 ** (failures - 1), self.longest_delay_seconds))


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


class _Failed(Exception):
    """An attempt ended before the file did."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


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
        say(f"loading {url} into {directory}" + (f", from byte {partial.done:,} on" if partial.done else ""))
        if entry.size is not None:
            check_room(directory, entry.size - partial.done)
        _load(partial, entry, url, patience or Patience(), watch, say)
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


def _load(
    partial: PartialFile, entry: ArchiveFile, url: str, patience: Patience, watch: Watch, say: Say
) -> None:
    """Bring the file to its end, in as many attempts as it takes while each brings new bytes."""
    failures, furthest = 0, partial.done
    while not _is_whole(partial, entry):
        try:
            return _load_once(partial, entry, url, patience, watch, say)
        except _Failed as failed:
            reason = failed
        failures = 1 if partial.done > furthest else failures + 1
        furthest = max(furthest, partial.done)
        wait = patience.delay(failures) if reason.wait is None else reason.wait
        if failures >= patience.attempts or wait > patience.longest_delay_seconds:
            raise ArchiveAway(_given_up(partial, url, reason, failures))
        say(f"{reason}: trying again in {wait:.0f} s (attempt {failures + 1} of {patience.attempts})")
        time.sleep(wait)
    return None


def _given_up(partial: PartialFile, url: str, reason: _Failed, failures: int) -> str:
    """The line for people after the last attempt."""
    asked = f", and asks to wait {reason.wait:,.0f} s" if reason.wait is not None else ""
    times = f"{failures} attempts in a row" if failures > 1 else "1 attempt"
    if partial.done:
        return (
            f"{url}: {reason}{asked} ({times}). {partial.done:,} bytes are kept in {partial.path.name}: run the same "
            "command later, it goes on from there."
        )
    return (
        f"{url}: {reason}{asked} ({times}). Check the connection and run the same command later, or name a mirror "
        "with --from."
    )


def _is_whole(partial: PartialFile, entry: ArchiveFile) -> bool:
    """Whether every byte is here; more than there should be means that they are of something else."""
    total = entry.size or (partial.version.total if partial.version else None)
    if total is not None and partial.done > total:
        partial.forget()
    return total is not None and partial.done == total


def _load_once(
    partial: PartialFile, entry: ArchiveFile, url: str, patience: Patience, watch: Watch, say: Say
) -> None:
    """Load what one connection brings: to the end of the file, or raise `_Failed`."""
    ask = plan_request(done=partial.done, known=partial.version, url=url, guarded=entry.md5 is not None)
    with _request(url, ask.headers, patience) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        match read_answer(ask, url=url, status=response.status, headers=headers, known=partial.version):
            case Later() as later:
                raise _Failed(later.reason, later.wait)
            case StartOver() as start_over:
                partial.forget()
                raise _Failed(start_over.reason)
            case Complete() as complete:
                check_version(complete.version, size=entry.size, md5=entry.md5)
            case Body() as body:
                check_version(body.version, size=entry.size, md5=entry.md5)
                if partial.done and not body.start:
                    say(
                        "the server sends the file from its start: it has changed, or the server knows no ranges"
                    )
                _take_body(response, body, partial, entry.size, patience, watch)


def _take_body(
    response: IO[bytes], body: Body, partial: PartialFile, size: int | None, patience: Patience, watch: Watch
) -> None:
    """Write what comes, as far as the file goes."""
    total = size or body.version.total
    if total is not None:
        check_room(partial.path.parent, total - partial.done)
    partial.start(body.version, body.start)
    watch(partial.done, total)
    while block := _read(response, patience):
        if total is not None and partial.done + len(block) > total:
            partial.forget()
            raise _Failed(f"the server sends more than the {total:,} bytes of the file")
        partial.append(block)
        watch(partial.done, total)
    if total is not None and partial.done < total:
        raise _Failed(f"the connection was cut after {partial.done:,} of {total:,} bytes")


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


class _HttpsStaysHttps(urllib.request.HTTPRedirectHandler):
    """Follows redirects within the web, but none from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise urllib.error.HTTPError(req.full_url, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS, by the proxies of the environment, and nothing else: no file, ftp or data addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        _HttpsStaysHttps(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


@contextlib.contextmanager
def _request(url: str, headers: dict[str, str], patience: Patience) -> Iterator[Any]:
    """The server's answer, whatever its status."""
    asked = urllib.request.Request(url, headers={"User-Agent": _AGENT, **headers})  # noqa: S310 - checked
    try:
        response = _opener().open(asked, timeout=patience.stall_seconds)
    except urllib.error.HTTPError as error:
        response = error
    except (OSError, http.client.HTTPException) as error:
        raise _explained(error, url, patience) from error
    except ValueError as error:  # a redirect to something that is no address
        raise BadInput(f"{url}: the server redirects to an address that cannot be read ({error}).") from error
    with contextlib.closing(response):
        yield response


def _read(response: IO[bytes], patience: Patience) -> bytes:
    try:
        return response.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _Failed(_reason(error, patience)) from error


def _explained(error: Exception, url: str, patience: Patience) -> Exception:
    """An error before any answer: one to try again after, or one that stays."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return BadInput(
            f"{url}: the server's certificate is not trusted ({cause.verify_message}). Check this machine's clock; "
            "where the network brings its own certificates, name their file in SSL_CERT_FILE."
        )
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return BadInput(f"{url}: no secure connection can be made (TLS: {cause.reason or cause}).")
    return _Failed(_reason(cause, patience))


def _reason(cause: object, patience: Patience) -> str:
    match cause:
        case TimeoutError():
            return f"nothing came for {patience.stall_seconds:g} s"
        case socket.gaierror():
            return f"the server's name cannot be resolved ({cause.strerror})"
        case ConnectionResetError() | http.client.HTTPException() | ssl.SSLError():
            return "the connection was cut"
        case OSError() if cause.strerror:
            return cause.strerror.lower()
    return str(cause) or type(cause).__name__
