"""The live page as a person sees it: a real browser logs in and follows a training, without loading a page again."""

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.browser import running_browser

pytestmark = pytest.mark.torture

RUN = ("--batch-size", "2", "--epochs", "100", "--checkpoint-every", "40")
AMOUNT = "document.querySelector('#facts .amount').textContent"


@pytest.mark.timeout(900)
def test_a_browser_follows_a_run_that_trains_its_checkpoints_and_its_end(
    lhcq, event_file: Path, few_layers: Path, tmp_path: Path
) -> None:
    up = lhcq.start("up", "--workers", "1", "--gpu")
    told: Any = None
    while told is None:
        told = re.match(r"page +http://(\S+) +login (\S+) ", up.stdout.readline())
    address, login = told.groups()
    lhcq.run("cluster", event_file, "--name", "made")
    lhcq.run("prepare", "made", "--split", "small", "--limit", "100", "--model", few_layers)
    lhcq.run("train", "small", "--name", "first", "--model", few_layers, "--detach", *RUN)

    with running_browser(tmp_path / "profile") as browser:
        browser.open(f"http://{address}/jobs/train/first")
        assert "first" not in browser.text
        assert browser.ask("document.querySelector('section')") is None
        browser.open(f"http://{login}@{address}/")
        for seen in ("made", "small", "first", "Flower"):
            browser.until(f"document.body.innerText.includes({seen!r})")
        browser.ask("document.querySelector('a.name[href=\"/jobs/train/first\"]').click()")
        browser.until("location.pathname === '/jobs/train/first'")
        browser.ask("window.loadedOnce = true")
        browser.ask(
            "document.querySelector('#asked summary').click(); document.querySelector('#asked summary').focus()"
        )

        first = browser.until(f"{AMOUNT}.match(/^[1-9].*steps; loss/) && {AMOUNT}", 300)
        second = browser.until(f"{AMOUNT} !== {first!r} && {AMOUNT}", 120)
        assert browser.until(f"{AMOUNT} !== {second!r} && {AMOUNT}", 120)
        browser.until(
            "document.querySelector('#loss img') && document.querySelector('#loss img').naturalWidth > 0", 120
        )
        browser.until(f"{AMOUNT}.includes('1 validated')", 300)
        browser.until("document.querySelector('#checkpoints tr.best') !== null", 120)
        assert browser.ask("document.querySelector('#asked details').open")
        assert browser.ask("document.activeElement.tagName") == "SUMMARY"
        assert "begun" in browser.ask("document.querySelector('#log pre').textContent")

        lhcq.run("cancel", "first")
        browser.until("document.querySelector('dd.state').textContent === 'cancelled'", 120)
        assert browser.ask("window.loadedOnce"), "the page was loaded again"

        up.send_signal(signal.SIGINT)
        assert lhcq.finish(up).returncode == 0
        browser.until("document.querySelector('#connection').classList.contains('lost')", 60)
        assert "cancelled" in browser.text
