"""Two worker hosts and a broker, each in a network namespace of its own, and what a network does to them."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.jobs.leases import LEASE_SECONDS
from tests.faults.conftest import PER_CHUNK
from tests.faults.rig import RECOVERY_LEASES, Rig, Worker, running_rig, wait_until

pytestmark = pytest.mark.torture
RECOVERY_SECONDS = RECOVERY_LEASES * LEASE_SECONDS


class Host:
    """A network namespace with one cable to this one, where the broker is."""

    def __init__(self, number: int) -> None:
        self.name = f"lhcq-{os.getpid()}-{number}"
        self.broker_address = f"10.213.{number}.1"
        cable, plug = f"lq{os.getpid()}a{number}", f"lq{os.getpid()}b{number}"
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", plug)
        run("ip", "link", "set", plug, "netns", self.name)
        run("ip", "address", "add", f"{self.broker_address}/24", "dev", cable)
        run("ip", "link", "set", cable, "up")
        self.run("ip", "address", "add", f"10.213.{number}.2/24", "dev", plug)
        self.run("ip", "link", "set", plug, "up")
        self.run("ip", "link", "set", "lo", "up")

    @property
    def inside(self) -> tuple[str, ...]:
        """What runs a command on this host."""
        return ("ip", "netns", "exec", self.name)

    def run(self, *command: str) -> None:
        run(*self.inside, *command)

    def lose(self, *directions: str) -> None:
        """Drop every packet of these directions, INPUT or OUTPUT."""
        for direction in directions:
            self.run("iptables", "-A", direction, "-j", "DROP")

    def reset(self) -> None:
        """Answer every packet to the broker by a reset of its connection."""
        self.run("iptables", "-A", "OUTPUT", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")

    def mend(self) -> None:
        """Let every packet through."""
        self.run("iptables", "-F")

    def remove(self) -> None:
        run("ip", "netns", "del", self.name)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    """Two worker hosts; skips where no namespace can be made."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("iptables"):
        pytest.skip("network namespaces need root, ip and iptables")
    with contextlib.ExitStack() as stack:
        made = []
        for number in (1, 2):
            try:
                host = Host(number)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"a network namespace cannot be made here: {error.stderr.decode().strip()}")
            stack.callback(host.remove)
            made.append(host)
        yield made


@pytest.fixture
def net(hosts: list[Host], tmp_path) -> Iterator[tuple[Rig, list[Worker]]]:
    """A worker on each host."""
    with running_rig(tmp_path / "rig") as rig:
        workers = []
        for host in hosts:
            host.mend()
            url = rig.broker.url.replace("127.0.0.1", host.broker_address)
            workers.append(rig.start_worker(before=host.inside, url=url))
        rig.await_ready()
        yield rig, workers


def host_of(rig: Rig, net_workers: list[Worker], hosts: list[Host], point: str) -> Host:
    """The host of the worker that reached the point."""
    return hosts[net_workers.index(rig.victim(point))]


def finish(rig: Rig, job, serial: bytes, recovered, since: float) -> None:
    outcome = rig.await_end(job, RECOVERY_SECONDS)
    recovered(max(0.0, outcome.finished - since))
    rig.check(job, serial)


def test_packets_lost_for_less_than_the_lease(net, hosts, events, serial, recovered) -> None:
    rig, workers = net
    rig.arm("working", "hold", after=5)
    job = rig.submit(events, "blink", per_chunk=PER_CHUNK)
    rig.reached("working")
    host = host_of(rig, workers, hosts, "working")
    host.lose("INPUT", "OUTPUT")
    time.sleep(LEASE_SECONDS / 3)  # the fault itself
    host.mend()
    mended = time.time()
    rig.release("working")
    finish(rig, job, serial, recovered, mended)
    works = [entry["what"] for entry in rig.entries("work")]
    assert len(works) == job.parts  # nothing was done twice


@pytest.mark.parametrize("directions", [("INPUT", "OUTPUT"), ("INPUT",), ("OUTPUT",)], ids="-".join)
def test_packets_lost_for_more_than_the_lease(net, hosts, events, serial, recovered, directions) -> None:
    rig, workers = net
    rig.arm("working", "hold", after=5)
    job = rig.submit(events, "cut-off", per_chunk=PER_CHUNK)
    lost = rig.reached("working")
    zombie = rig.victim("working")
    host = host_of(rig, workers, hosts, "working")
    host.lose(*directions)
    outcome = rig.await_end(job, RECOVERY_SECONDS)  # by the other host
    recovered(outcome.finished - lost)
    rig.release("working")  # the zombie goes on while it is cut off
    host.mend()
    for worker in rig.alive():
        if worker is not zombie:
            worker.kill()
    later = rig.submit(events, "together-again", per_chunk=PER_CHUNK)
    rig.await_end(later, 2 * RECOVERY_SECONDS)
    rig.check(job, serial)
    rig.check(later, serial)


def test_every_connection_reset(net, hosts, events, serial, recovered) -> None:
    rig, workers = net
    rig.arm("working", "hold", after=5)
    job = rig.submit(events, "reset", per_chunk=PER_CHUNK)
    rig.reached("working")
    host = host_of(rig, workers, hosts, "working")
    host.reset()
    rig.release("working")
    wait_until(lambda: rig.finished(job) == job.parts, "the other host to do the parts", RECOVERY_SECONDS)
    host.mend()
    finish(rig, job, serial, recovered, time.time())


def test_half_a_second_of_delay(tmp_path, events, serial, recovered) -> None:
    with running_rig(tmp_path / "rig") as rig, slow_line(rig.broker.port, seconds=0.5) as port:
        rig.start_worker(url=f"redis://127.0.0.1:{port}/0")
        rig.await_ready()
        job = rig.submit(events, "slow", per_chunk=PER_CHUNK * 6)
        started = time.time()
        outcome = rig.await_end(job, 180)  # a part asks the broker some twenty times
        recovered(outcome.finished - started)
        rig.check(job, serial)
        assert len(rig.entries("work")) == job.parts


@contextlib.contextmanager
def slow_line(port: int, *, seconds: float) -> Iterator[int]:
    """A port that passes on to `port`, each byte half of `seconds` late in each direction."""
    command = [sys.executable, str(Path(__file__).with_name("slow_line.py")), str(port), str(seconds / 2)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as line:
        assert line.stdout
        yield int(line.stdout.readline())
        line.kill()
