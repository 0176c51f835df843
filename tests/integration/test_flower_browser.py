"""Flower as a person sees it: a real browser logs in, and finds workers, a running training and a finished chunk."""

import html
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torture

RUN = ("--batch-size", "2", "--max-steps", "2000", "--checkpoints", "1")


@pytest.fixture
def browse(tmp_path: Path) -> Callable[[str], str]:
    """The text of a page once its scripts have run, in a browser that has seen nothing before."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser here (Debian: apt-get install chromium)")

    def text_of(url: str) -> str:
        profile = tmp_path / "profile"
        shutil.rmtree(profile, ignore_errors=True)
        done = subprocess.run(
            [
                *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server"),
                *(f"--user-data-dir={profile}", "--virtual-time-budget=10000", "--dump-dom", url),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        page = re.sub(r"(?s)<(script|style).*?</\1>", "", done.stdout)
        return html.unescape(re.sub(r"<[^>]*>", "", page.replace("</td>", " ").replace("</tr>", "\n")))

    return text_of


def test_a_browser_sees_workers_a_running_training_and_a_finished_chunk_and_nothing_without_the_login(
    lhcq, browse, event_file: Path, smollm2: Path, until
) -> None:
    up = lhcq.start("up", "--workers", "1", "--gpu")
    told: Any = None
    while told is None:
        told = re.match(r"Flower +http://(\S+) +login (\S+) ", up.stdout.readline())
    address, login = told.groups()
    lhcq.run("cluster", event_file, "--name", "made")
    lhcq.run("prepare", "made", "--split", "small", "--limit", "100", "--model", smollm2)
    lhcq.run("train", "small", "--name", "first", "--model", smollm2, "--detach", *RUN)
    journal = lhcq.workspace / "runs/first/events.jsonl"
    until(lambda: journal.exists() and b'"step"' in journal.read_bytes(), "the training to run", 300)

    workers = browse(f"http://{login}@{address}/workers")
    assert re.search(r"cpu-\d+-\w+@\S+\s+Online", workers), workers
    assert re.search(r"gpu-\d+-\w+@\S+\s+Online", workers), workers

    lines = [line for line in browse(f"http://{login}@{address}/tasks").splitlines() if "lhcq." in line]
    assert any(
        "train_segment" in line and "'run': 'first'" in line and "STARTED" in line for line in lines
    ), lines
    chunks = [line for line in lines if "cluster_part" in line]
    assert any("'dataset': 'made'" in line and "'rows': '0-" in line for line in chunks), lines
    assert all("SUCCESS" in line for line in chunks)

    for url in (f"http://{address}/workers", f"http://{address}/tasks", f"http://lhcq:wrong@{address}/tasks"):
        seen = browse(url)
        assert "cpu-" not in seen
        assert "lhcq." not in seen

    lhcq.run("cancel", "first")
    up.send_signal(signal.SIGINT)
    assert lhcq.finish(up).returncode == 0
