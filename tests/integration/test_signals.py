"""A terminal that is closed, a batch system that says enough: a command ends as at Ctrl-C, and leaves nothing."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="module")
def _heard() -> Iterator[None]:
    """Under nohup the tests, and with them what they start, would ignore what is tried here."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGHUP, pytest.param(signal.SIGTERM, marks=pytest.mark.torture)])
def test_a_command_that_is_told_to_end_stops_its_workers_and_its_broker(
    lhcq, event_file: Path, until, number: int
) -> None:
    process = lhcq.start("cluster", event_file, "--name", "made", "--events-per-chunk", "21")
    parts = lhcq.workspace / "jobs/cluster-made/parts"
    until(lambda: list(parts.rglob("*.arrows")), "the first part")
    process.send_signal(number)
    while "what is finished is kept" not in (line := process.stderr.readline()):
        assert line
    process.send_signal(signal.SIGHUP)  # a shell and the kernel say it one after the other
    done = lhcq.finish(process)
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr == ""
    assert not lhcq.processes()
    assert lhcq.ask("cluster", event_file, "--name", "made", "--events-per-chunk", "21")["rows"] == 2100


def test_a_command_ends_so_while_its_workers_start(lhcq, event_file: Path, until) -> None:
    process = lhcq.start("cluster", event_file, "--name", "made")
    until(lambda: len(lhcq.processes()) >= 3, "the broker and a worker")
    process.send_signal(signal.SIGHUP)
    assert lhcq.finish(process).returncode == 128 + signal.SIGHUP
    assert not lhcq.processes()


def test_what_stays_up_goes_with_its_terminal(lhcq, until) -> None:
    process = lhcq.start("up", "--workers", "1", "--no-gpu")
    while "Ctrl-C" not in (line := process.stdout.readline()):
        assert line
    process.send_signal(signal.SIGHUP)
    assert lhcq.finish(process).returncode == 0  # it is how a service ends
    assert not lhcq.processes()


def test_nohup_is_meant(lhcq, event_file: Path, until) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which what is started inherits
    try:
        process = lhcq.start("cluster", event_file, "--name", "made", "--events-per-chunk", "70")
    finally:
        signal.signal(signal.SIGHUP, before)
    parts = lhcq.workspace / "jobs/cluster-made/parts"
    until(lambda: list(parts.rglob("*.arrows")), "the first part")
    process.send_signal(signal.SIGHUP)
    assert lhcq.finish(process).returncode == 0


def test_a_worker_s_terminal_that_is_closed_ends_it_and_does_not_start_it_anew(
    lhcq, broker, broker_url: str, until
) -> None:
    with (lhcq.workspace.parent / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "lhcq.cli.main", "worker", "cpu", "--processes", "1"],
            env={**_environment(), "LHCQ_WORKSPACE": str(lhcq.workspace), "LHCQ_BROKER_URL": broker_url},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    lhcq.started.append(worker)
    until(lambda: broker.scard("lhcq:ready") == 1, "the worker to be up")
    worker.send_signal(signal.SIGHUP)
    assert worker.wait(60) == 0
    assert not lhcq.processes()


def _environment() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if name != "LHCQ_BROKER_URL"}
