"""A model from the hub, which is a small server here: what is told while it comes, and what of a cut."""

import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lhcq.manifests import read_manifest, verify_files
from lhcq.workspace import Workspace

NAME = "some-owner/some-model"
REVISION = "0123456789abcdef0123456789abcdef01234567"
BIG = 4_000_000
WAIT_SECONDS = 120
ASK = (
    "import sys; from pathlib import Path; from lhcq.errors import LhcqError\n"
    "from lhcq.model import arriving; from lhcq.model.sources import obtain; from lhcq.workspace import Workspace\n"
    "arriving._TELL_SECONDS = 0.2\n"
    "from huggingface_hub import constants; constants.DOWNLOAD_CHUNK_SIZE = 1 << 16\n"
    "say = lambda line: print(line, flush=True)\n"
    "try: print(obtain(sys.argv[1], Workspace(Path(sys.argv[2])), say=say))\n"
    "except LhcqError as error: print(type(error).__name__, error)\n"
)


class Hub:
    """Serves one model as the hub does; of its weights the second half only once `rest` is set, or never."""

    def __init__(self):
        header = json.dumps({"w": {"dtype": "U8", "shape": [BIG], "data_offsets": [0, BIG]}}).encode()
        weights = len(header).to_bytes(8, "little") + header + bytes(BIG)
        self.files = {
            "config.json": b"{}",
            "tokenizer.json": b"{}",
            "model.safetensors": weights,
            "consolidated.safetensors": weights,
        }
        self.rest, self.cut, self.asked, self.stated = threading.Event(), False, [], {}
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def size_of(self, name):
        return self.stated.get(name, len(self.files[name]))

    def handler(hub):  # noqa: N805
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, content, kind, code=200, **headers):
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()

            def do_HEAD(self):
                content = hub.files[self.path.rpartition("/")[2]]
                self.answer(content, "application/octet-stream", X_Repo_Commit=REVISION, ETag='"e1"')

            def do_GET(self):
                if self.path.startswith("/api/"):
                    self.tell()
                    return
                name = self.path.rpartition("/")[2]
                content = hub.files[name]
                start = int(re.findall(r"\d+", self.headers.get("Range", "bytes=0-"))[0])
                hub.asked.append((name, start))
                here = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
                self.answer(content[start:], "application/octet-stream", 206 if start else 200, **here)
                half = max(len(content) // 2, start)
                if len(content) < BIG:
                    half = len(content)
                self.wfile.write(content[start:half])
                if half < len(content):
                    if hub.cut:
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                    hub.rest.wait(WAIT_SECONDS)
                self.wfile.write(content[half:])

            def tell(self):
                sizes = [(name, hub.size_of(name)) for name in hub.files]
                if "/tree/" in self.path:
                    told = [{"type": "file", "path": n, "size": size, "oid": n} for n, size in sizes]
                else:
                    siblings = [{"rfilename": n, "size": size} for n, size in sizes]
                    told = {"id": NAME, "sha": REVISION, "siblings": siblings}
                content = json.dumps(told).encode()
                self.answer(content, "application/json")
                self.wfile.write(content)

            def log_message(self, *_):
                """Nothing."""

        return Handler


@pytest.fixture
def hub():
    served = Hub()
    yield served
    served.server.shutdown()
    served.server.server_close()


def ask(hub, root: Path) -> subprocess.Popen:
    """A process that asks for the model."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(root / "hf"), "HF_HUB_OFFLINE": "0"}
    return subprocess.Popen(
        [sys.executable, "-c", ASK, NAME, str(root)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def megabytes(line):
    return [float(found) for found in re.findall(r"[\d.]+(?= of| MB)", line)]


def test_how_much_of_a_model_is_here_is_told_while_it_comes_and_another_command_waits(hub, tmp_path):
    first = ask(hub, tmp_path)
    try:
        assert first.stdout.readline() == f"downloading {NAME} from the model hub, 4.0 MB\n"
        for line in first.stdout:
            here, total = megabytes(line)
            assert total == 4.0
            if here == 2.0:
                break
        second = ask(hub, tmp_path)
        assert second.stdout.readline() == f"another command is fetching {NAME}: waiting for it\n"
        hub.rest.set()
        (final,) = second.communicate(timeout=WAIT_SECONDS)[0].splitlines()
        said, drawn = first.communicate(timeout=WAIT_SECONDS)
        assert (said.splitlines()[-1], drawn) == (final, "")
    finally:
        hub.rest.set()
        first.kill()
    manifest = read_manifest(Path(final), what="the model", remedy="")
    verify_files(Path(final), manifest)
    assert Path(final) == Workspace(tmp_path).model(NAME)
    assert {path.name for path in Path(final).iterdir()} == {*hub.files, "manifest.json"} - {
        "consolidated.safetensors"
    }


def test_after_a_cut_what_came_whole_is_not_loaded_again_and_what_did_not_is_no_burden(hub, tmp_path):
    hub.cut = True
    lines = ask(hub, tmp_path).communicate(timeout=WAIT_SECONDS)[0].splitlines()
    assert lines[-1].startswith(f"BadInput {NAME}: ")
    assert lines[-1].endswith("What came whole, 0.0 MB, is kept for that.")
    (partial,) = Workspace(tmp_path).model(NAME).parent.glob(".*.partial")
    of_a_killed_one = next(partial.rglob("download")) / "x.incomplete"
    of_a_killed_one.write_bytes(bytes(3_000_000))
    hub.cut = False
    hub.asked.clear()
    again = ask(hub, tmp_path)
    for line in again.stdout:
        if "are here\n" in line:
            assert megabytes(line) in ([0.0, 4.0], [2.0, 4.0]), line
            assert not of_a_killed_one.exists()
            hub.rest.set()
    again.communicate(timeout=WAIT_SECONDS)
    assert {name for name, _ in hub.asked} == {"model.safetensors"}
    manifest = read_manifest(Workspace(tmp_path).model(NAME), what="the model", remedy="")
    assert set(manifest["files"]) == {*hub.files} - {"consolidated.safetensors"}


def test_a_model_larger_than_the_disk_is_refused_before_its_first_byte(hub, tmp_path):
    hub.stated["model.safetensors"] = 10**18
    said = ask(hub, tmp_path).communicate(timeout=WAIT_SECONDS)[0].splitlines()[-1]
    assert said.startswith("DiskFull ")
    assert "no space left on the device" in said
    assert hub.asked == []
