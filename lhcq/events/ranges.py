"""What to ask of a web server that may hold the rest of a file, and what its answer means. Opens nothing.

Ranges, `If-Range` and the statuses 206 and 416 are those of RFC 9110, sections 13 and 14.
"""

import email.utils
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus

from lhcq.errors import BadInput, NotThere
from lhcq.frozen import Frozen

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]{1,19}|\*)", re.ASCII)
_STATED_MD5 = re.compile(r'"md5:([0-9a-f]{32})"', re.ASCII)
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)


class Version(Frozen):
    """Which version of which file the bytes of a partial download are from."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None
    """Bytes of the whole file, as the server said."""

    @property
    def validator(self) -> str | None:
        """What `If-Range` may carry: a strong ETag, or else the date."""
        strong = self.etag is not None and self.etag.startswith('"')
        return self.etag if strong else self.last_modified

    @property
    def stated_md5(self) -> str | None:
        """The md5 that Zenodo puts into its ETags."""
        match = _STATED_MD5.fullmatch(self.etag or "")
        return match[1] if match else None


class Ask(Frozen):
    """One request: the bytes from `start` on, and of which version."""

    start: int = 0
    if_range: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers."""
        headers = {"Accept-Encoding": "identity"}  # ranges of a compressed stream are of no use
        if self.start:
            headers["Range"] = f"bytes={self.start}-"
        if self.if_range:
            headers["If-Range"] = self.if_range
        return headers


class Body(Frozen):
    """The answer brings the bytes from `start` on."""

    start: int
    version: Version


class Complete(Frozen):
    """There are no more bytes: the file ends where the partial download does."""

    version: Version


class StartOver(Frozen):
    """The bytes at hand do not belong to the file that the server has now."""

    reason: str


class Later(Frozen):
    """Not now: try again, after `wait` seconds where the server said so."""

    reason: str
    wait: float | None = None


Answer = Body | Complete | StartOver | Later


def plan_request(*, done: int, known: Version | None, url: str, guarded: bool) -> Ask:
    """What to ask for when `done` bytes, of version `known`, are here.

    They are built on only where a change of the file in between cannot go unnoticed: the server is asked for that
    very version, or the whole is `guarded` by an md5.
    """
    if done and known is not None and known.url == url and known.validator:
        return Ask(start=done, if_range=known.validator)
    return Ask(start=done if guarded else 0)


def plan_again(ask: Ask, answer: Answer, known: Version | None) -> Ask | None:
    """The same request without `If-Range`, where a server answered it with the whole of the very version at hand.

    Such a server knows no `If-Range`; whether it knows ranges remains to be seen.
    """
    if ask.if_range is not None and isinstance(answer, Body) and not answer.start and answer.version == known:
        return Ask(start=ask.start)
    return None


def read_answer(
    ask: Ask, *, url: str, status: int, headers: Mapping[str, str], known: Version | None
) -> Answer:
    """What a server's answer to `ask` means; `headers` has lower-case names, `known` is the version at hand.

    Raises `NotThere` and `BadInput` where asking again would change nothing.
    """
    if status in _TEMPORARY:
        return Later(reason=f"the server answers {_named(status)}", wait=_retry_after(headers))
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and ask.start:
        total = _content_range(headers)[2]
        if total == ask.start and (known is None or known.total in (None, total)):
            return Complete(version=(known or Version(url=url)).model_copy(update={"total": total}))
        return StartOver(reason=f"the server's file has no byte {ask.start:,}")
    _refuse(url, status, headers)
    length = _number(headers.get("content-length"))
    if status == HTTPStatus.PARTIAL_CONTENT:
        start, total = _content_range(headers)[::2]
        if start != ask.start:
            return StartOver(reason="the server sends another range than it was asked for")
    else:
        start, total = 0, length
    version = Version(
        url=url, etag=headers.get("etag"), last_modified=headers.get("last-modified"), total=total
    )
    if start and known is not None and not _may_be_same(known, version):
        return StartOver(reason="the server's file has changed")
    return Body(start=start, version=version)


def check_version(version: Version, *, size: int | None, md5: str | None) -> None:
    """Raise `BadInput` when the server's file cannot be the one of this `size` (bytes) and `md5`."""
    if version.total == 0:
        raise BadInput(f"{version.url}: the server has an empty file under this name.")
    if size is not None and version.total not in (None, size):
        raise BadInput(
            f"{version.url}: the server has a file of {version.total:,} bytes, the published one has {size:,}. "
            "Nothing was kept of it."
        )
    if md5 is not None and version.stated_md5 not in (None, md5):
        raise BadInput(
            f"{version.url}: the server states the md5 {version.stated_md5}, the published file has {md5}. "
            "Nothing was kept of it."
        )
    if size is None and md5 is None and version.total is None:
        raise BadInput(
            f"{version.url}: neither the server nor the catalogue says how long the file is, so that a part could "
            "not be told from the whole. Load it with a browser."
        )


def _refuse(url: str, status: int, headers: Mapping[str, str]) -> None:
    """Raise for everything but 200 and 206 with a plain body."""
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise NotThere(f"{url}: the server has no such file ({_named(status)}).")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise BadInput(
            f"{url}: the server refuses ({_named(status)}). Archives do so for a while to networks with much "
            "traffic: try later or from elsewhere, or load the file with a browser and run the same command to "
            "verify it."
        )
    if 300 <= status < 400:
        raise BadInput(
            f"{url}: the server redirects to {headers.get('location', 'nowhere')!r}, which lhcq does not follow: "
            "only https, ten times at most, and http only from http."
        )
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise BadInput(f"{url}: the server answers {_named(status)}.")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise BadInput(f"{url}: the server sends the file compressed, though it was asked not to.")
    if headers.get("content-type", "").lower().startswith("text/html"):
        raise BadInput(
            f"{url}: a web page came instead of the file: a login page of this network, perhaps. Open the address in "
            "a browser to see it."
        )


def _may_be_same(known: Version, now: Version) -> bool:
    """Whether nothing says that two answers are of different files; servers at two addresses tag differently."""
    pairs: list[tuple[object, object]] = [(known.total, now.total)]
    if known.url == now.url:
        pairs += [(known.etag, now.etag), (known.last_modified, now.last_modified)]
    return all(before == after or before is None or after is None for before, after in pairs)


def _content_range(headers: Mapping[str, str]) -> tuple[int | None, int | None, int | None]:
    """First byte, last byte and total of a Content-Range; None for what it does not say."""
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if not match:
        return None, None, None
    first, last, total = (_number(text) for text in match.groups())
    return first, last, total


def _number(text: str | None) -> int | None:
    return int(text) if text and len(text) < 20 and text.isascii() and text.isdecimal() else None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: Retry-After is a number of them, or a date."""
    text = headers.get("retry-after", "")
    if (seconds := _number(text)) is not None:
        return float(seconds)
    try:
        then = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _named(status: int) -> str:
    """A status with the standard's phrase: the server's own could hold anything."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
