"""A real browser, driven by its own protocol: what a person sees, presses and prints."""

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.websocket import WebSocketClientConnection, websocket_connect

_SECONDS = 60.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Browser:
    """One page of a browser that has seen nothing before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, line: WebSocketClientConnection) -> None:
        self._loop, self._line = loop, line
        self._numbers = itertools.count(1)
        self.tell("Page.enable")

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have it do something; gives its answer."""
        return self._loop.run_until_complete(asyncio.wait_for(self._tell(method, parameters), _SECONDS))

    async def _tell(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        await self._line.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(await self._line.read_message() or "{}")
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                found: dict[str, Any] = answer["result"]
                return found

    def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        self.tell("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.tell("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = _SECONDS) -> Any:
        """Wait for an expression in the page to become true; gives its value."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := self.ask(expression):
                return value
            time.sleep(0.1)
        raise AssertionError(f"waited {seconds:.0f} s in vain for {expression} in:\n{self.text}")

    def press(self, key: str, times: int = 1) -> None:
        """Press a key of the keyboard."""
        code = {"Tab": 9, "ArrowRight": 39, "Enter": 13}[key]
        for kind in ("rawKeyDown", "keyUp") * times:
            self.tell("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Have a window of that size, of a phone below 600 pixels."""
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """Keep what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.tell("Page.captureScreenshot")["data"]))

    def printed(self, path: Path) -> None:
        """Print the page as it asks to be printed."""
        path.write_bytes(base64.b64decode(self.tell("Page.printToPDF", preferCSSPageSize=True)["data"]))

    @property
    def text(self) -> str:
        """What can be read on the page."""
        return str(self.ask("document.body ? document.body.innerText : ''"))


@contextlib.contextmanager
def running_browser(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own; the test is skipped where none is installed."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no browser here (Debian: apt-get install chromium)")
    process = subprocess.Popen(
        [
            *(
                program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-proxy-server",
                "--hide-scrollbars",
            ),
            *("--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={profile}"),
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    loop = asyncio.new_event_loop()
    try:
        line = loop.run_until_complete(_connect(_first_page(profile / "DevToolsActivePort")))
        try:
            yield Browser(loop, line)
        finally:
            line.close()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()


async def _connect(address: str) -> WebSocketClientConnection:
    return await websocket_connect(address, max_message_size=256 * 1024 * 1024)


def _first_page(port_file: Path) -> str:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, IndexError):
            port = int(port_file.read_text().splitlines()[0])
            with _DIRECT.open(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
                pages = [one for one in json.load(answer) if one["type"] == "page"]
            return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise AssertionError("the browser did not come up")
