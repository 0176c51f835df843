"""The ten commands of docs/cluster.md, run on one machine that stands for three."""

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.deployed import ROOT, here, tls_server
from tests.faults.many import lhcq
from tests.faults.rig import wait_until

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]
PORT = 6379


def test_the_ten_commands_make_a_cluster_that_does_a_job(events: Path, tmp_path: Path) -> None:
    program = tls_server()
    if program is None:
        pytest.skip("no valkey-server or redis-server with TLS is installed")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"port {PORT} is in use")
    shared = tmp_path / "shared"
    shared.mkdir()
    script = on_this_machine((ROOT / "docs/cluster.md").read_text(), shared, events, tmp_path)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("ssh", 'shift; exec sh -c "$*"'), ("valkey-server", f'exec {program} "$@"')):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LHCQ_BROKER")}
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    process = subprocess.Popen(
        ["bash", "-e", "-c", script], cwd=ROOT, env=environment, start_new_session=True
    )
    try:
        assert process.wait(300) == 0
        secrets = {
            "LHCQ_BROKER_URL_FILE": str(shared / "secrets/broker-url"),
            "LHCQ_BROKER_CA": str(shared / "secrets/ca.crt"),
        }
        (job,) = json.loads(lhcq("status", "--json", workspace=shared / "workspace", **secrets))["jobs"]
        assert (job["name"], job["state"]) == ("lhco", "done")

        def kinds() -> list[str]:
            answer = json.loads(lhcq("workers", "ping", "--json", workspace=shared / "workspace", **secrets))
            return sorted(name.partition("-")[0] for name in answer["workers"])

        wait_until(lambda: kinds() == ["cpu", "cpu", "gpu"], "all three workers to answer")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == PORT and connection.status == psutil.CONN_LISTEN:
                psutil.Process(connection.pid).kill()
                break


def on_this_machine(page: str, shared: Path, events: Path, place: Path) -> str:
    """The page's commands but for the two that install, with the places of this machine."""
    (block,) = re.findall(r"```sh\n(.*?)```", page, re.S)
    make, install, rest = block.split("\n", 2)
    assert make.startswith("python3 -m venv")
    assert "pip install" in install
    (place / "var").mkdir()
    for there, replacement in (
        ("/shared/lhcq/bin", here("")),
        ("/shared/data/events_anomalydetection_v2.h5", str(events)),
        ("/shared/data", str(events.parent)),
        ("/shared/lhcq", str(shared)),
        ("/var/tmp", str(place / "var")),  # noqa: S108
        ("/secrets head", "/secrets localhost"),
    ):
        assert there in rest
        rest = rest.replace(there, replacement)
    return rest
