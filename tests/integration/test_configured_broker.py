"""A broker of one's own at LHCQ_BROKER_URL, workers in processes of their own, jobs that outlive commands."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.integration.conftest import PROGRESS
from tests.integration.server import Server

CHUNKS = ("--events-per-chunk", "21")  # 100 chunks of the made-up file
SECONDS_TO_REFUSE = 30


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def configured(lhcq, server: Server) -> Any:
    """The program, every command of which has the server for its broker."""
    lhcq.environment["LHCQ_BROKER_URL"] = server.url
    return lhcq


@pytest.fixture
def start_worker(configured, server: Server, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Start a worker with one process; its log goes to a file."""
    workers = []

    def start() -> "subprocess.Popen[str]":
        environment = {"LHCQ_WORKSPACE": str(configured.workspace), "LHCQ_BROKER_URL": server.url}
        with (tmp_path / "worker.log").open("a") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "lhcq.cli.main", "worker", "cpu", "--processes", "1"],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def state_of(lhcq: Any, name: str) -> str:
    return {job["name"]: job["state"] for job in lhcq.ask("status")["jobs"]}[name]


def refuse_soon(lhcq: Any, *arguments: Any, **environment: str) -> str:
    """The one line of a command that must be refused without much waiting."""
    process = lhcq.start(*arguments, **environment)
    out, err = process.communicate(timeout=SECONDS_TO_REFUSE)
    assert (process.returncode, out) == (1, ""), err
    (line,) = err.strip().splitlines()
    return line


def test_a_detached_job_waits_for_a_worker_which_finishes_it(
    configured, start_worker, event_file: Path, until
) -> None:
    assert configured.ask("cluster", event_file, "--name", "made", "--detach") == {"job": "cluster made"}
    assert state_of(configured, "made") == "open"
    assert not configured.processes()  # no broker and no worker of its own

    worker = start_worker()
    until(lambda: state_of(configured, "made") == "done", "the job to be done")
    assert (configured.workspace / "datasets/made/events.parquet").exists()
    assert not (configured.workspace / "broker/valkey.conf").exists()

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0


def test_ctrl_c_while_waiting_leaves_the_job_running(
    configured, start_worker, event_file: Path, until
) -> None:
    start_worker()
    process = configured.start("cluster", event_file, "--name", "made", *CHUNKS)
    parts = configured.workspace / "jobs/cluster-made/parts"
    until(lambda: list(parts.rglob("*.arrows")), "the first part")
    process.send_signal(signal.SIGINT)
    done = configured.finish(process)
    assert done.returncode == 130
    lines = [line for line in done.stderr.splitlines() if line and not PROGRESS.fullmatch(line)]
    assert lines == ["cluster made goes on. `lhcq status` shows it."]
    assert state_of(configured, "made") == "open"
    assert configured.ask("cluster", event_file, "--name", "made", *CHUNKS)["rows"] == 2100  # joins it


def test_a_broker_that_forgets_everything_costs_no_event(
    configured, server: Server, start_worker, event_file: Path, until
) -> None:
    start_worker()
    process = configured.start("cluster", event_file, "--name", "made", *CHUNKS)
    parts = configured.workspace / "jobs/cluster-made/parts"
    until(lambda: len(list(parts.rglob("*.arrows"))) >= 3, "the first parts")
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    n_parts = len(list(parts.rglob("*.arrows")))
    assert n_parts < 80
    until(lambda: len(list(parts.rglob("*.arrows"))) >= n_parts + 10, "the job to go on")
    server.kill()
    server.forget()
    server.start()
    done = configured.finish(process)
    assert done.returncode == 0, done.stderr
    assert configured.ask("cluster", event_file, "--name", "calm")["rows"] == 2100
    made, calm = (configured.workspace / f"datasets/{name}/events.parquet" for name in ("made", "calm"))
    assert made.read_bytes() == calm.read_bytes()


def test_a_dead_broker_is_named_soon_and_nothing_is_created(
    configured, inside, server: Server, event_file: Path, tmp_path: Path
) -> None:
    server.kill()
    generate = ("generate", tmp_path / "out.h5", "--background", "5", "--signal", "5")
    cluster = ("cluster", event_file, "--name", "made")
    lines = [
        *(refuse_soon(configured, *words) for words in (cluster, ("worker", "cpu"), ("up", "--no-gpu"))),
        *(
            inside.refused(*words, LHCQ_BROKER_URL=server.url)
            for words in (cluster, (*cluster, "--detach"), generate)
        ),
    ]
    for line in lines:
        assert line.startswith(f"lhcq: the broker at {server.url} does not answer")
        assert "unset LHCQ_BROKER_URL" in line
    assert configured.ask("status")["jobs"] == []
    assert not list(configured.workspace.glob("jobs/*"))
    assert not list(configured.workspace.glob("datasets/*"))
    assert not (tmp_path / "out.h5").exists()


def test_a_broker_that_listens_and_never_answers_is_dead_too(configured, event_file: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        line = refuse_soon(configured, "cluster", event_file, "--name", "made", LHCQ_BROKER_URL=url)
    assert line.startswith(f"lhcq: the broker at {url} does not answer")
    assert configured.ask("status")["jobs"] == []


@pytest.mark.parametrize("url", ["amqp://guest@host//", "localhost:6379", "redis://localhost:port/0"])
def test_an_address_that_cannot_be_a_broker_is_refused(inside, event_file: Path, url: str) -> None:
    line = inside.refused("cluster", event_file, "--name", "made", LHCQ_BROKER_URL=url)
    assert line.startswith("lhcq: LHCQ_BROKER_URL is ")
    assert inside.ask("status")["jobs"] == []


def test_a_password_is_used_and_never_shown(inside, event_file: Path, tmp_path: Path) -> None:
    server = Server(tmp_path, "--requirepass", "s3cret")
    try:
        good, bad = (f"redis://:{word}@127.0.0.1:{server.port}/0" for word in ("s3cret", "wr0ng"))
        line = inside.refused("cluster", event_file, "--name", "made", LHCQ_BROKER_URL=bad)
        assert f"the broker at {server.url} refuses the login" in line
        assert "wr0ng" not in line
        inside.run("cluster", event_file, "--name", "made", "--detach", LHCQ_BROKER_URL=good)
        with redis.Redis.from_url(good) as client:
            assert client.llen("cpu") > 0
    finally:
        server.kill()


FORGETFUL = {
    "evicts": (("--maxmemory-policy", "allkeys-lru"), "maxmemory-policy noeviction"),
    "evicts what expires": (("--maxmemory-policy", "volatile-ttl"), "maxmemory-policy noeviction"),
    "writes nothing": (("--appendonly", "no"), "appendonly yes"),
}


@pytest.mark.parametrize("how", FORGETFUL)
def test_a_broker_that_would_lose_work_is_refused_with_the_remedy(
    lhcq, inside, event_file: Path, tmp_path: Path, how: str
) -> None:
    options, remedy = FORGETFUL[how]
    server = Server(tmp_path, *options)
    try:
        lines = [inside.refused("cluster", event_file, "--name", "made", LHCQ_BROKER_URL=server.url)]
        if how == "evicts":
            lines.append(refuse_soon(lhcq, "worker", "cpu", LHCQ_BROKER_URL=server.url))
        for line in lines:
            assert f"the broker at {server.url} would lose work" in line
            assert f"`CONFIG SET {remedy}`" in line
        assert lhcq.ask("status")["jobs"] == []
        with redis.Redis.from_url(server.url) as client:
            client.config_set(*remedy.split())  # as it says
        inside.run("cluster", event_file, "--name", "made", "--detach", LHCQ_BROKER_URL=server.url)
    finally:
        server.kill()


def test_save_points_are_persistence_too(inside, event_file: Path, tmp_path: Path) -> None:
    server = Server(tmp_path, "--appendonly", "no", "--save", "3600 1")
    try:
        inside.run("cluster", event_file, "--name", "made", "--detach", LHCQ_BROKER_URL=server.url)
    finally:
        server.kill()


def test_a_broker_that_forbids_the_question_is_warned_of_and_used(
    lhcq, event_file: Path, tmp_path: Path
) -> None:
    server = Server(tmp_path)
    try:
        with redis.Redis.from_url(server.url) as client:
            client.acl_setuser(
                "guest",
                enabled=True,
                passwords=["+word"],
                keys="*",
                channels="*",
                commands=["+@all", "-config"],
            )
        url = f"redis://guest:word@127.0.0.1:{server.port}/0"
        done = lhcq.run("cluster", event_file, "--name", "made", "--detach", LHCQ_BROKER_URL=url)
        assert done.stderr.count("does not tell its configuration") == 1
        assert "word" not in done.stderr
    finally:
        server.kill()


def test_a_worker_started_by_celery_itself_refuses_such_a_broker_too(tmp_path: Path) -> None:
    server = Server(tmp_path, "--maxmemory-policy", "allkeys-lru")
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "tasks.app",
                "worker",
                "--queues",
                "validate",
                "--pool",
                "solo",
            ],
            env={**os.environ, "LHCQ_BROKER_URL": server.url, "LHCQ_WORKSPACE": str(tmp_path / "workspace")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert "lhcq: the broker" in done.stderr
    finally:
        server.kill()
