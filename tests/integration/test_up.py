"""`lhcq up`: a broker, workers and Flower that stay for other commands, and end together."""

import json
import re
import shutil
import signal
import stat
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.flower import ask


class Up(NamedTuple):
    process: Any
    url: str
    login: str


@pytest.fixture
def up(lhcq) -> Up:
    process = lhcq.start("up", "--workers", "1", "--no-gpu")
    lines = []
    while not lines or "Ctrl-C" not in lines[-1]:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        lines.append(line)
    found = re.search(r"Flower +(http://127\.0\.0\.1:\d+) +login (lhcq:\S+)", "".join(lines))
    assert found, lines
    return Up(process, *found.groups())


def state_of(lhcq, name: str) -> str:
    return {job["name"]: job["state"] for job in lhcq.ask("status")["jobs"]}[name]


def test_flower_wants_its_login_for_pages_and_api(lhcq, up: Up, until) -> None:
    for page in ("/", "/workers", "/api/workers", "/api/tasks"):
        assert ask(up.url + page)[0] == 401
        assert ask(up.url + page, "lhcq:wrong")[0] == 401
    assert "Flower" in ask(up.url, up.login)[1]
    workers = until(
        lambda: json.loads(ask(f"{up.url}/api/workers?refresh=1", up.login)[1]), "Flower to find the worker"
    )
    assert [name.partition("-")[0] for name in workers] == ["cpu"]

    login_file = lhcq.workspace / "flower-login"
    assert login_file.read_text().strip() == up.login
    assert stat.S_IMODE(login_file.stat().st_mode) == 0o600
    password = up.login.partition(":")[2]
    assert not any(password in word for process in lhcq.processes() for word in process.cmdline())


def test_other_commands_use_it_until_ctrl_c_ends_all_of_it(lhcq, up: Up, event_file: Path, until) -> None:
    assert "runs already" in lhcq.refused("up")

    workers = {process.pid for process in lhcq.workers()}
    assert len(workers) == 1
    queued = lhcq.ask("cluster", event_file, "--name", "later", "--detach")
    assert queued == {"job": "cluster later"}
    until(lambda: state_of(lhcq, "later") == "done", "the job to be done")
    assert lhcq.ask("cluster", event_file, "--name", "now")["rows"] == 2100
    assert {process.pid for process in lhcq.workers()} == workers
    one, other = (lhcq.workspace / f"datasets/{name}/events.parquet" for name in ("later", "now"))
    assert one.read_bytes() == other.read_bytes()

    up.process.send_signal(signal.SIGINT)
    done = lhcq.finish(up.process)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not lhcq.processes()
    assert "lhcq up" in lhcq.refused("cluster", event_file, "--name", "x", "--detach")


def test_a_job_goes_on_without_its_command_and_with_the_next_up(
    lhcq, up: Up, event_file: Path, until
) -> None:
    process = lhcq.start("cluster", event_file, "--name", "long", "--events-per-chunk", "14")
    parts = lhcq.workspace / "jobs/cluster-long/parts"
    until(lambda: list(parts.rglob("*.arrows")), "the first part")
    process.send_signal(signal.SIGINT)
    done = lhcq.finish(process)
    assert done.returncode == 130
    assert "goes on. `lhcq status` shows it." in done.stderr
    n_parts = len(list(parts.rglob("*.arrows")))
    until(lambda: len(list(parts.rglob("*.arrows"))) > n_parts, "another part")

    up.process.kill()
    up.process.communicate()
    until(
        lambda: not [process for process in lhcq.processes() if "valkey" not in process.name()],
        "workers and Flower to notice that `lhcq up` is gone",
    )
    assert state_of(lhcq, "long") == "open"
    again = lhcq.start("up", "--workers", "1", "--no-gpu")
    until(lambda: state_of(lhcq, "long") == "done", "the job to be done")
    again.send_signal(signal.SIGTERM)
    assert lhcq.finish(again).returncode == 0
    assert not lhcq.processes()


def test_parts_of_another_configuration_are_never_merged(lhcq, up: Up, event_file: Path, until) -> None:
    """Asked for with another radius while workers are still at the job, whose directory somebody removed by hand."""
    options = ("--name", "mixed", "--events-per-chunk", "7", "--features", "jets")
    lhcq.cluster_here(event_file, "alone", features="jets", radius=0.4)
    lhcq.ask("cluster", event_file, *options, "--radius", "1.0", "--detach")
    directory = lhcq.workspace / "jobs/cluster-mixed"
    until(lambda: len(list(directory.rglob("*.arrows"))) > 20, "the first parts")
    line = lhcq.refused("cluster", event_file, *options, "--radius", "0.4")
    assert line.endswith("or end it by `lhcq cancel mixed --kind cluster`.")
    shutil.rmtree(directory, ignore_errors=True)  # no advice of ours, and a worker may have a file in it
    answer = lhcq.ask("cluster", event_file, *options, "--radius", "0.4")
    assert answer["rows"] == 2100
    alone, mixed = (lhcq.workspace / f"datasets/{name}/events.parquet" for name in ("alone", "mixed"))
    assert mixed.read_bytes() == alone.read_bytes()
    assert not list(lhcq.workspace.rglob("failed/*"))
