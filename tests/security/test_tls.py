"""A stranger on the network who pretends to be the broker: nothing is said to him, the password least of all."""

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lhcq.environment import Settings
from lhcq.errors import BadInput, LhcqError
from tasks.app import app, connect, own_workspace
from tasks.broker.acceptance import ask_broker

PASSWORD = "s3cret-W0rd"  # noqa: S105


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A certificate for `name` that nobody but itself has signed, and its key."""
    paths = directory / f"{name}.crt", directory / f"{name}.key"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"),
            *("-out", paths[0], "-keyout", paths[1]),
        ],
        check=True,
        capture_output=True,
    )
    return paths


class Impostor:
    """Takes connections as a broker does, remembers what it is told first, and hangs up.

    With `clients`, a certificate, it takes those alone that show this one.
    """

    def __init__(self, chain: tuple[Path, Path], clients: Path | None = None) -> None:
        self.heard = b""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(*chain)
        if clients:
            self.context.load_verify_locations(clients)
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                line, _ = self.listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), self.context.wrap_socket(line, server_side=True) as tls:
                tls.settimeout(5)
                self.heard += tls.recv(4096)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[Callable[[str], Impostor]]:
    made = []

    def pretend(name: str, clients: Path | None = None) -> Impostor:
        made.append(Impostor(certificate(tmp_path, name), clients))
        return made[-1]

    before = app.conf.broker_url
    yield pretend
    for one in made:
        one.close()
    connect(before or "")


def reach_broker() -> None:
    """As a verb does, and as a worker does."""
    with pytest.raises(LhcqError, match=r"(?i)certificate") as caught:
        ask_broker(own_workspace())
    assert PASSWORD not in str(caught.value)
    with app.connection_for_read() as connection, pytest.raises(Exception, match=r"(?i)certificate"):
        connection.connect()
    with pytest.raises(Exception, match=r"(?i)certificate"):
        app._get_backend().client.ping()  # a new one: the application keeps that of its thread


@pytest.mark.parametrize("case", ["signed by itself", "signed by a trusted one for another host"])
def test_a_broker_whose_certificate_does_not_hold_is_refused_before_the_password_is_sent(
    impostor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    other = impostor("localhost" if case == "signed by itself" else "elsewhere.example.org")
    if case != "signed by itself":
        monkeypatch.setenv("LHCQ_BROKER_CA", str(tmp_path / "elsewhere.example.org.crt"))
    connect(f"rediss://:{PASSWORD}@localhost:{other.port}/0")
    reach_broker()
    assert other.heard == b""


def test_with_its_authority_configured_it_is_trusted(
    impostor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this, the refusals above would prove nothing."""
    broker = impostor("localhost")
    monkeypatch.setenv("LHCQ_BROKER_CA", str(tmp_path / "localhost.crt"))
    connect(f"rediss://:{PASSWORD}@localhost:{broker.port}/0")
    with contextlib.suppress(LhcqError):
        ask_broker(own_workspace())
    assert PASSWORD.encode() in broker.heard


@pytest.mark.parametrize(
    "option", ["ssl_cert_reqs=none", "%73sl_cert_reqs=none", "a=b&ssl%5fcheck_hostname=false"]
)
def test_an_address_cannot_switch_verification_off(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.setenv("LHCQ_BROKER_URL", f"rediss://:{PASSWORD}@localhost/0?{option}")
    with pytest.raises(BadInput, match="always verified") as caught:
        Settings.from_environment()
    assert PASSWORD not in str(caught.value)


@pytest.fixture
def mutual(impostor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Impostor:
    """A broker that wants to see the certificate of `me`, as Redis wants one where nobody says otherwise."""
    broker: Impostor = impostor("localhost", certificate(tmp_path, "me")[0])
    monkeypatch.setenv("LHCQ_BROKER_CA", str(tmp_path / "localhost.crt"))
    connect(f"rediss://:{PASSWORD}@localhost:{broker.port}/0")
    return broker


def test_a_broker_that_asks_for_a_certificate_is_told_of_in_one_line(mutual: Impostor) -> None:
    with pytest.raises(BadInput, match=r"asks for a certificate, and none is shown.*LHCQ_BROKER_CERT"):
        ask_broker(own_workspace())
    assert mutual.heard == b""


def test_the_certificate_is_shown_by_verbs_workers_and_their_results(
    mutual: Impostor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LHCQ_BROKER_CERT", str(tmp_path / "me.crt"))
    monkeypatch.setenv("LHCQ_BROKER_KEY", str(tmp_path / "me.key"))
    connect(f"rediss://:{PASSWORD}@localhost:{mutual.port}/0")
    for reach in (
        lambda: ask_broker(own_workspace()),
        lambda: app.connection_for_read().connect(),
        lambda: app._get_backend().client.execute_command("PING"),
    ):
        mutual.heard = b""
        with contextlib.suppress(Exception):  # it hangs up
            reach()
        assert PASSWORD.encode() in mutual.heard


def test_a_certificate_with_another_key_is_refused_in_one_line(
    mutual: Impostor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LHCQ_BROKER_CERT", str(tmp_path / "me.crt"))
    monkeypatch.setenv("LHCQ_BROKER_KEY", str(tmp_path / "localhost.key"))
    connect(f"rediss://:{PASSWORD}@localhost:{mutual.port}/0")
    with pytest.raises(BadInput, match="LHCQ_BROKER_CERT and the key of LHCQ_BROKER_KEY cannot be used"):
        ask_broker(own_workspace())
