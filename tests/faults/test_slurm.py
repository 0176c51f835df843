"""`lhcq workers submit --slurm` on a real Slurm of one node: workers drain, come back, and end by themselves."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lhcq.records.jobs import load_job, outcome_of
from lhcq.workspace import Workspace
from tasks.jobs.kinds import finished_chunks
from tests.faults.many import ONE_BY_ONE, lhcq, many_events, single_machine
from tests.faults.rig import Broker, wait_until

pytestmark = [pytest.mark.torture, pytest.mark.timeout(900)]
JOB_SECONDS = 600
N_PARTS = 800
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "squeue")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={place}
SlurmdSpoolDir={place}
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
SchedulerParameters=sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in sockets]
    for probe in sockets:
        probe.close()
    return ports


def slurm(*command: str) -> str:
    return subprocess.check_output(command, text=True)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A controller and one node of two processors."""
    if missing := [name for name in PROGRAMS if not shutil.which(name)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("slurmd wants root")
    place = tmp_path / "slurm"
    place.mkdir()
    configuration = place / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    configuration.write_text(CONFIGURATION.format(host=host, place=place, ports=free_ports(2)))
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    with (place / "out").open("ab") as log:
        daemons = [
            subprocess.Popen([name, "-D"], stdout=log, stderr=log, start_new_session=True)
            for name in ("slurmctld", "slurmd")
        ]
    try:
        wait_until(
            lambda: (
                subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, check=False).stdout
                == b"idle\n"
            ),
            "the node to be idle",
        )
        yield
    finally:
        subprocess.run(["scancel", "--user=root"], check=False)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(30)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path / "broker")
    yield broker
    broker.kill()


def states(number: str) -> list[tuple[str, ...]]:
    """State and number of restarts of each place of a job array that is not over."""
    command = ["squeue", "--noheader", "--array", "--jobs", number, "--Format=StateCompact,RestartCnt"]
    rows = subprocess.run(
        command, capture_output=True, text=True, check=False
    ).stdout  # an error once it is over
    return [tuple(row.split()) for row in rows.splitlines()]


def test_workers_drain_before_their_limit_come_back_and_end_when_nothing_is_left(
    cluster: None, broker: Broker, tmp_path: Path
) -> None:
    events = many_events(tmp_path, N_PARTS)
    expected = single_machine(events, tmp_path)
    place = Workspace(tmp_path / "workspace")
    user = {"LHCQ_BROKER_URL": broker.url, "SLURM_CONF": os.environ["SLURM_CONF"]}
    lhcq("cluster", events, "--name", "made", "--detach", *ONE_BY_ONE, workspace=place.root, **user)
    job = load_job(place, "cluster", "made")
    submit = ("workers", "submit", "--slurm", "2", "--time", "10", "--idle", "5", "--json")
    number = json.loads(lhcq(*submit, workspace=place.root, **user))["job"]
    wait_until(lambda: len(finished_chunks(place, job)) > 20, "the first parts")

    # What --signal=B:USR1@120 has Slurm do, without waiting for the time limit.
    slurm("scancel", "--signal=USR1", "--batch", number)
    wait_until(lambda: states(number) == [("PD", "1")] * 2, "both workers to ask to be run again")
    with broker.client() as client:
        assert not list(client.scan_iter("lhcq:lease:*"))  # what ran was ended
        assert client.llen("cpu") > 0
    stopped = len(finished_chunks(place, job))
    assert 20 < stopped < N_PARTS
    time.sleep(2)
    assert len(finished_chunks(place, job)) == stopped

    slurm("scontrol", "update", f"JobId={number}", "StartTime=now")  # Slurm waits two minutes otherwise
    outcome = wait_until(lambda: outcome_of(place, job), "the job to end", JOB_SECONDS)
    assert outcome.state == "done"
    assert (place.dataset("made") / "events.parquet").read_bytes() == expected
    wait_until(lambda: not states(number), "the workers to end by themselves")
    logs = (place.root / "batch").glob("*.log")
    assert sum(log.read_text().count("no work for 5 s: leaving") for log in logs) == 2


def test_workers_that_scancel_ends_do_not_come_back_and_their_work_is_left_to_others(
    cluster: None, broker: Broker, tmp_path: Path
) -> None:
    events = many_events(tmp_path, N_PARTS)
    place = Workspace(tmp_path / "workspace")
    user = {"LHCQ_BROKER_URL": broker.url, "SLURM_CONF": os.environ["SLURM_CONF"]}
    lhcq("cluster", events, "--name", "made", "--detach", *ONE_BY_ONE, workspace=place.root, **user)
    job = load_job(place, "cluster", "made")
    submit = ("workers", "submit", "--slurm", "2", "--time", "10", "--json")
    number = json.loads(lhcq(*submit, workspace=place.root, **user))["job"]
    wait_until(lambda: len(finished_chunks(place, job)) > 20, "the first parts")
    slurm("scancel", number)
    wait_until(lambda: not states(number), "the workers to end")
    stopped = len(finished_chunks(place, job))
    assert stopped < N_PARTS
    time.sleep(5)
    assert not states(number)
    assert outcome_of(place, job) is None
    assert not (tmp_path / "workspace/datasets").exists()


def test_logs_stand_beside_the_script_in_a_directory_whose_name_is_a_pattern_of_slurms(
    cluster: None, broker: Broker, tmp_path: Path
) -> None:
    place = Workspace(tmp_path / '100%j of "mine"' / "workspace")
    place.create()
    user = {"LHCQ_BROKER_URL": broker.url, "SLURM_CONF": os.environ["SLURM_CONF"]}
    submit = ("workers", "submit", "--slurm", "1", "--time", "10", "--idle", "1", "--json")
    number = json.loads(lhcq(*submit, workspace=place.root, **user))["job"]
    wait_until(lambda: not states(number), "the worker to end by itself")
    (log,) = (place.root / "batch").glob("*.log")
    assert "no work for 1 s: leaving" in log.read_text()
