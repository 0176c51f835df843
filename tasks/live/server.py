"""Serves the live page on loopback: it is read-only, wants a login, and answers to no other name than this host's."""

import asyncio
import base64
import binascii
import contextlib
import functools
import hmac
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import split_host_and_port
from tornado.web import Application, HTTPError, RequestHandler

from lhcq.errors import BadInput, LhcqError, NotThere, TransientError
from lhcq.report.live_page import script, style_sheet
from lhcq.workspace import Workspace
from tasks.live.views import LiveViews
from tasks.workers.login import login_to_look

DEFAULT_PORT = 5550
_HOST = "127.0.0.1"
_NAMES = {_HOST, "localhost", "[::1]", "::1"}
"""How a browser may call this host, whatever the port: that of a tunnel's other end is another."""
_LONGEST_REQUEST = 64 * 1024

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_POLICY_OF_REPORTS = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""A report is a file that whoever may write to the workspace could have put there: no script of it runs."""


@dataclass(frozen=True, kw_only=True)
class LivePage:
    """Where the page is, and how to enter."""

    url: str
    login: str
    login_file: Path | None
    """None where the login is not kept."""
    thread: threading.Thread

    def check(self) -> None:
        """Raise when it has ended."""
        if not self.thread.is_alive():
            raise TransientError("The live page ended. Start the command again.")

    @property
    def said(self) -> str:
        """Address and login in one line."""
        kept = f"kept in {self.login_file}" if self.login_file else "for this time alone"
        return f"{self.url}  login {self.login} ({kept})"


@contextlib.contextmanager
def live_page(workspace: Workspace, port: int | None) -> Iterator[LivePage]:
    """Serve the page from a thread of this process for the body."""
    listening = _bind(port)
    login, kept = login_to_look(workspace)
    # An event, not the loop's own end: whoever leaves before the loop runs would be forgotten by that.
    loop, ended = asyncio.new_event_loop(), asyncio.Event()
    with ThreadPoolExecutor(1, "lhcq-live") as reader:
        application = application_of(workspace, login, reader)
        thread = threading.Thread(
            target=_serve, args=(loop, application, listening, ended), name="lhcq-live", daemon=True
        )
        thread.start()
        url = f"http://{_HOST}:{listening.getsockname()[1]}"
        try:
            yield LivePage(url=url, login=login, login_file=kept, thread=thread)
        finally:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(ended.set)
            thread.join()
            reader.shutdown(cancel_futures=True)


def _bind(wanted: int | None) -> socket.socket:
    """A socket at the wanted port, or the default one, or a free one; on loopback alone."""
    for port in [wanted] if wanted else [DEFAULT_PORT, 0]:
        with contextlib.suppress(OSError):
            return socket.create_server((_HOST, port))
    raise BadInput(f"port {wanted} is taken. Choose another with --port.")


def _serve(
    loop: asyncio.AbstractEventLoop, application: Application, listening: socket.socket, ended: asyncio.Event
) -> None:
    listening.setblocking(False)

    async def serve() -> None:
        server = HTTPServer(application, max_body_size=_LONGEST_REQUEST, idle_connection_timeout=600)
        server.add_socket(listening)
        await ended.wait()
        server.stop()
        await server.close_all_connections()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(serve())


def application_of(workspace: Workspace, login: str, reader: ThreadPoolExecutor) -> Application:
    """The pages of a workspace behind `login`; `reader`, of one thread, collects what they show."""
    views = LiveViews(workspace)
    shared: dict[str, Any] = {"login": login, "reader": reader}
    of_a_job = r"/jobs/([^/]+)/([^/]+)"
    return Application(
        [
            (r"/", _Page, {**shared, "show": views.jobs, "asks": ("kind", "page")}),
            (of_a_job, _Page, {**shared, "show": views.job}),
            (f"{of_a_job}/report", _Page, {**shared, "show": views.report, "policy": _POLICY_OF_REPORTS}),
            (f"{of_a_job}/log", _Page, {**shared, "show": views.log, "kind": "text/plain"}),
            (r"/live\.css", _Page, {**shared, "text": style_sheet(), "kind": "text/css"}),
            (r"/live\.js", _Page, {**shared, "text": script(), "kind": "text/javascript"}),
        ],
        default_handler_class=_Page,
        default_handler_args=shared,
        compress_response=True,
        log_function=lambda _: None,
    )


class _Page(RequestHandler):
    """A page behind the login: a text, what `show` gives of the names in the address, or nothing."""

    def initialize(
        self,
        *,
        login: str,
        reader: ThreadPoolExecutor,
        text: str | None = None,
        show: Callable[..., str | bytes] | None = None,
        asks: Sequence[str] = (),
        kind: str = "text/html",
        policy: str = _POLICY,
    ) -> None:
        """`asks`: the parameters behind the address that `show` is given after its names."""
        self._login, self._reader, self._text, self._show, self._asks = login, reader, text, show, asks
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        self.set_header("Content-Security-Policy", policy)

    def set_default_headers(self) -> None:
        """Nothing is kept by others, embedded, guessed or told on."""
        self.clear_header("Server")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("Cache-Control", "private, no-cache")
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("X-Content-Type-Options", "nosniff")

    def prepare(self) -> None:
        """Refuse whoever asks by another host's name, as a page from elsewhere would, or does not log in."""
        name, _ = split_host_and_port(self.request.host)
        if name not in _NAMES:
            raise HTTPError(403, reason="Not This Host", log_message=f"asked as {name}")
        if not self._is_login(self.request.headers.get("Authorization", "")):
            raise HTTPError(401)

    def _is_login(self, header: str) -> bool:
        scheme, _, told = header.partition(" ")
        try:
            given = base64.b64decode(told, validate=True)
        except (binascii.Error, ValueError):
            return False
        return scheme.lower() == "basic" and hmac.compare_digest(given, self._login.encode())

    async def get(self, *names: str) -> None:
        """What is shown, collected in the reader's thread; what is wrong with a record in one line."""
        if self._show is None:
            if self._text is None:
                raise HTTPError(404)
            self.write(self._text)
            return
        asked = [self.get_query_argument(name, "") for name in self._asks]
        collect = functools.partial(self._show, *names, *asked)
        try:
            self.write(await asyncio.get_running_loop().run_in_executor(self._reader, collect))
        except (NotThere, FileNotFoundError) as error:
            self._say(404, str(error))
        except LhcqError as error:
            self._say(500, str(error))

    def _say(self, status: int, text: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.write(f"{text}\n")

    def write_error(self, status_code: int, **_: Any) -> None:
        """One line; a traceback goes to the log of the command."""
        if status_code == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="lhcq", charset="UTF-8"')
        said = {
            401: "Log in as `lhcq serve` says.",
            403: "Ask for it as localhost or 127.0.0.1.",
            404: "No such page.",
        }
        self.finish(f"{said.get(status_code, self._reason)}\n")
