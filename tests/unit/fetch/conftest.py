"""A real web server that can do everything wrong that a real web server does."""

import contextlib
import hashlib
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lhcq.events.archive import CATALOGUE, ArchiveFile
from lhcq.events.download import Fetched, fetch_file
from tests.unit.fetch.fetching import PATIENCE, Fetch

LONGEST_HOLD_SECONDS = 30.0

# Started in the background, a test session and what it starts would ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True, kw_only=True)
class Step:
    """How one request is answered; the default is the right way."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Added; an empty value takes the header away."""
    cut_after: int | None = None
    """Bytes of the body until the connection is cut."""
    hold_after: int | None = None
    """Bytes of the body until nothing more comes."""
    claim: int | None = None
    """Content-Length, whatever the body."""
    body: bytes | None = None
    before: Callable[[], None] | None = None


@dataclass(frozen=True)
class Asked:
    """One request, as the server saw it."""

    path: str
    range: str | None
    if_range: str | None
    agent: str


class Site:
    """What the server holds, what it will do next, and what it was asked."""

    def __init__(self) -> None:
        self.content = random.Random(1).randbytes(200_000)
        self.etag: str | None = '"v1"'
        self.last_modified: str | None = None
        self.knows_ranges = True
        self.knows_if_range = True
        self.steps: deque[Step] = deque()
        self.always: dict[str, Any] = {}
        self.asked: list[Asked] = []
        self.release = threading.Event()
        self.url = ""

    @property
    def md5(self) -> str:
        return hashlib.md5(self.content).hexdigest()  # noqa: S324 - the archive's own

    def then(self, **how: Any) -> "Site":
        """Answer one further request in this way (see `Step`)."""
        self.steps.append(Step(**how))
        return self

    @property
    def ranges(self) -> list[str | None]:
        """What each request asked for."""
        return [asked.range for asked in self.asked]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        site = self.site
        header = self.headers.get
        site.asked.append(Asked(self.path, header("Range"), header("If-Range"), header("User-Agent", "")))
        step = site.steps.popleft() if site.steps else Step(**site.always)
        if step.before:
            step.before()
        status, headers, body = self._right(site) if step.body is None else (200, {}, step.body)
        if step.status and step.status not in (200, 206):
            headers, body = {}, b"an error"
        headers["Content-Length"] = str(len(body) if step.claim is None else step.claim)
        headers |= step.headers
        self.send_response(step.status or status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self._send(body, step)

    def _right(self, site: Site) -> tuple[int, dict[str, str], bytes]:
        """What a good server answers."""
        headers = {"ETag": site.etag or "", "Last-Modified": site.last_modified or ""}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        wanted = self.headers.get("If-Range")
        now = (None, site.etag, site.last_modified) if site.knows_if_range else (None,)
        if not (asked and site.knows_ranges and wanted in now):
            return 200, headers, site.content
        start, total = int(asked[1]), len(site.content)
        if start >= total:
            return 416, {**headers, "Content-Range": f"bytes */{total}"}, b""
        headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        return 206, headers, site.content[start:]

    def _send(self, body: bytes, step: Step) -> None:
        ends = [end for end in (step.cut_after, step.hold_after) if end is not None]
        try:
            self.wfile.write(body[: min(ends, default=len(body))])
            if step.hold_after is not None:
                self.site.release.wait(LONGEST_HOLD_SECONDS)
        except OSError:
            pass  # the client went away
        if ends or step.claim is not None:
            self.close_connection = True
            self._cut()

    def _cut(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that vanish are what this server is for."""


def serve(context: ssl.SSLContext | None = None) -> Iterator[Site]:
    site = Site()
    handler = type("Handler", (_Handler,), {"site": site})
    with _Server(("127.0.0.1", 0), handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        site.url = f"http{'s' if context else ''}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield site
        site.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site() -> Iterator[Site]:
    yield from serve()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl here to make a certificate")
    pem = tmp_path_factory.mktemp("tls") / "server.pem"
    asked = f"req -x509 -newkey rsa:2048 -nodes -keyout {pem} -out {pem}.crt -days 2 -subj /CN=127.0.0.1"
    made = subprocess.run(
        ["openssl", *asked.split(), "-addext", "subjectAltName=IP:127.0.0.1"],
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    pem.write_bytes(pem.read_bytes() + Path(f"{pem}.crt").read_bytes())
    return pem


@pytest.fixture
def secure_site(certificate: Path) -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    yield from serve(context)


@pytest.fixture
def entry(site: Site) -> ArchiveFile:
    """A published file whose size and md5 are those of what the server holds."""
    return CATALOGUE[0].model_copy(update={"size": len(site.content), "md5": site.md5})


@pytest.fixture
def unknown() -> ArchiveFile:
    """A published file of which neither size nor md5 is known."""
    return CATALOGUE[0].model_copy(update={"size": None, "md5": None})


@pytest.fixture
def fetch(site: Any, tmp_path: Path) -> Fetch:
    """Fetch a file from the server, into the test's own directory unless told otherwise."""

    def fetch(entry: ArchiveFile, directory: Path = tmp_path, **options: Any) -> Fetched:
        return fetch_file(entry, directory, **{"mirror": site.url, "patience": PATIENCE, **options})

    return fetch
