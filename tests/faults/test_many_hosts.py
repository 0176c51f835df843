"""One broker and four worker hosts in network namespaces, over TLS with a password: one host comes, one goes."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from lhcq.records.jobs import load_job, outcome_of
from lhcq.workspace import Workspace
from tasks.jobs.kinds import finished_chunks
from tests.deployed import DEPLOY, here, make_secrets, tls_server, unit_command
from tests.faults.many import ONE_BY_ONE, lhcq, many_events, single_machine
from tests.faults.rig import wait_until
from tests.faults.test_network import Host

pytestmark = [pytest.mark.torture, pytest.mark.timeout(900)]
JOB_SECONDS = 600
N_PARTS = 1200
# Of the hosts' networks, which another run at the same time must not have.
NUMBERS = range(first := 20 + os.getpid() % 50 * 4, first + 4)


class WorkerHost:
    """A network namespace with a worker in it, which knows the broker by the address of its own cable."""

    def __init__(self, number: int, directory: Path, port: int) -> None:
        self.net = Host(number)
        self._process: subprocess.Popen[bytes] | None = None
        self._log = directory / f"host-{number}.log"
        self.secrets = directory / f"secrets-{number}"
        self.secrets.mkdir(mode=0o700)
        shutil.copy(directory / "secrets/ca.crt", self.secrets)
        address = (directory / "secrets/broker-url").read_text()
        known = address.replace("localhost:6379", f"{self.net.broker_address}:{port}")
        (self.secrets / "broker-url").write_text(known)

    def start(self, workspace: Path) -> None:
        """Run the worker's unit."""
        command = unit_command(
            "lhcq-worker@.service",
            places={"/opt/lhcq/bin/": here("")},
            specifiers={"%i": "cpu", "%d": str(self.secrets), "%C": str(workspace.parent)},
        )
        environment = {**os.environ, **command.environment, "LHCQ_WORKSPACE": str(workspace)}
        for unwanted in ("LHCQ_BROKER_URL", "NUMBA_CACHE_DIR"):
            environment.pop(unwanted, None)
        environment |= {"HOME": os.environ["HOME"], "LHCQ_LOG": str(self._log)}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.net.inside, *command.words, "--processes", "1"],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def parts(self) -> int:
        """How many parts it finished."""
        return self._log.read_text(errors="replace").count("lhcq.cluster_part") if self._log.exists() else 0

    def lose(self) -> None:
        """Lose the machine: no packet gets out any more, then it is gone."""
        self.net.lose("INPUT", "OUTPUT")
        self.stop()

    def stop(self) -> None:
        """Kill what runs."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many_events(tmp_path_factory.mktemp("events"), N_PARTS)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[WorkerHost]]:
    """Four hosts and the broker, which is the unit's own command."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("iptables"):
        pytest.skip("network namespaces need root, ip and iptables")
    program = tls_server()
    if program is None:
        pytest.skip("no valkey-server or redis-server with TLS is installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    make_secrets(tmp_path / "secrets", "localhost", *(f"10.213.{number}.1" for number in NUMBERS))
    (tmp_path / "state/lhcq-broker").mkdir(parents=True)
    broker = unit_command(
        "lhcq-broker.service",
        places={"/usr/bin/valkey-server": program, "/etc/lhcq/valkey.conf": str(DEPLOY / "valkey.conf")},
        specifiers={"%d": str(tmp_path / "secrets"), "%S": str(tmp_path / "state")},
    )
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((tmp_path / "broker.log").open("ab"))
        process = subprocess.Popen([*broker.words, "--tls-port", str(port)], stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.kill)
        made = []
        for number in NUMBERS:
            try:
                host = WorkerHost(number, tmp_path, port)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"a network namespace cannot be made here: {error.stderr.decode().strip()}")
            stack.callback(host.net.remove)
            stack.callback(host.stop)
            made.append(host)
        yield made


def test_a_host_comes_and_one_goes_and_the_bytes_are_those_of_one_machine(
    hosts: list[WorkerHost], events: Path, tmp_path: Path
) -> None:
    expected = single_machine(events, tmp_path)
    place = Workspace(tmp_path / "workspace")
    first, second, third, added = hosts
    user = {
        "LHCQ_BROKER_URL_FILE": str(first.secrets / "broker-url"),
        "LHCQ_BROKER_CA": str(first.secrets / "ca.crt"),
    }
    lhcq("cluster", events, "--name", "made", "--detach", *ONE_BY_ONE, workspace=place.root, **user)
    job = load_job(place, "cluster", "made")
    for host in (first, second, third):
        host.start(place.root)
    wait_until(
        lambda: all(host.parts() for host in (first, second, third)), "three hosts to work", JOB_SECONDS
    )
    added.start(place.root)
    wait_until(lambda: added.parts() or outcome_of(place, job), "the added host to work", JOB_SECONDS)
    assert outcome_of(place, job) is None
    first.lose()
    assert len(finished_chunks(place, job)) < N_PARTS  # in the middle
    refuse_strangers(second, tmp_path)
    outcome = wait_until(lambda: outcome_of(place, job), "the job to end", JOB_SECONDS)
    assert outcome.state == "done"
    assert (place.dataset("made") / "events.parquet").read_bytes() == expected
    assert json.loads(lhcq("status", "--json", workspace=place.root, **user))["jobs"][0]["done"] == N_PARTS


def refuse_strangers(host: WorkerHost, directory: Path) -> None:
    """Without the password nobody gets in, without TLS neither, and no command line shows the password."""
    address = (host.secrets / "broker-url").read_text().strip()
    password = address.split(":")[2].partition("@")[0]
    where = address.rpartition("@")[2]
    authority = str(host.secrets / "ca.crt")
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(f"rediss://{where}", ssl_ca_certs=authority).ping()
    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(f"redis://{where}").ping()
    with pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        redis.Redis.from_url(address).ping()
    user = redis.Redis.from_url(address, ssl_ca_certs=authority)
    for refused in (("FLUSHALL",), ("CONFIG", "SET", "appendonly", "no"), ("SHUTDOWN",), ("ACL", "LIST")):
        with pytest.raises(redis.exceptions.NoPermissionError):
            user.execute_command(*refused)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            assert password not in " ".join(process.cmdline())
