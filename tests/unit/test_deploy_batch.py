"""What a batch system is given, and that the script drains, comes back and ends as it should."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lhcq.cli.batch import Worker, condor_description, condor_script, slurm_script
from lhcq.cli.workers import command, read_duration
from lhcq.errors import BadInput

WAIT_SECONDS = 30

# Stands for `lhcq worker` and `lhcq workers pending`: what the real ones do on a signal is held elsewhere.
PROGRAM = f"""\
#!{sys.executable} -S
import os, signal, sys, time

here = os.path.dirname(sys.argv[0])


def note(number, _):
    with open(here + "/signals", "a") as file:
        file.write(signal.Signals(number).name + "\\n")
    if number == signal.SIGQUIT or not os.path.exists(here + "/stubborn"):
        sys.exit(number == signal.SIGQUIT)


if sys.argv[1] == "workers":
    sys.exit(print(open(here + "/pending").read()))
for number in (signal.SIGTERM, signal.SIGQUIT):
    signal.signal(number, note)
with open(here + "/started.new", "w") as file:
    file.write(" ".join(sys.argv[1:]))
os.rename(here + "/started.new", here + "/started")
while not os.path.exists(here + "/idle"):
    time.sleep(0.02)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "a program's place" / "lhcq"
    path.parent.mkdir()
    path.write_text(PROGRAM)
    path.chmod(0o755)
    (path.parent / "pending").write_text("3\n")
    return path


def start(program: Path, *, seconds: int = 3600) -> "subprocess.Popen[bytes]":
    worker = Worker(
        kind="cpu",
        lhcq=program,
        environment={"LHCQ_WORKSPACE": "/a b/it's"},
        processes=2,
        megabytes=2048,
        seconds=seconds,
        drain=31,  # one second until what does not end is stopped
    )
    script = program.with_name("worker.sh")
    script.write_text(condor_script(worker))
    return subprocess.Popen(["bash", str(script)])


def when_started(process: "subprocess.Popen[bytes]", program: Path) -> str:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (program.parent / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return (program.parent / "started").read_text().strip()


def signals(program: Path) -> list[str]:
    return (program.parent / "signals").read_text().split()


def test_a_worker_whose_time_is_up_ends_what_it_has_and_comes_back_for_the_rest(program: Path) -> None:
    process = start(program)
    assert when_started(process, program) == "worker cpu --processes 2 --idle 300"
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 85
    assert signals(program) == ["SIGTERM"]


def test_it_does_not_come_back_when_nothing_is_left(program: Path) -> None:
    (program.parent / "pending").write_text("0\n")
    process = start(program)
    when_started(process, program)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 0


def test_it_does_not_come_back_when_it_found_nothing_to_do(program: Path) -> None:
    (program.parent / "idle").touch()
    assert start(program).wait(WAIT_SECONDS) == 0


def test_what_does_not_end_in_time_is_stopped(program: Path) -> None:
    (program.parent / "stubborn").touch()
    process = start(program)
    when_started(process, program)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 85
    assert signals(program) == ["SIGTERM", "SIGQUIT"]


def test_where_nobody_sends_a_signal_the_script_keeps_the_time(program: Path) -> None:
    process = start(program, seconds=32)  # one second before the drain
    assert process.wait(WAIT_SECONDS) == 85
    assert signals(program) == ["SIGTERM"]


@pytest.mark.parametrize(("number", "again"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)], ids=str)
def test_slurm_runs_again_whose_time_was_up_and_not_whom_scancel_ended(
    program: Path, number: int, again: bool
) -> None:
    worker = Worker(
        kind="cpu", lhcq=program, environment={}, processes=1, megabytes=1024, seconds=7200, drain=31
    )
    script, asked = program.with_name("worker.sh"), program.parent / "asked"
    script.write_text(slurm_script(worker, 1, script, []))
    scontrol = program.with_name("scontrol")
    scontrol.write_text(f'#!/bin/sh\necho "$@" > "{asked}"\n')
    scontrol.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    process = subprocess.Popen(["bash", str(script)], env=environment)
    when_started(process, program)
    process.send_signal(number)
    assert process.wait(WAIT_SECONDS) == 0
    assert signals(program) == ["SIGTERM"]
    assert (asked.read_text() == "requeue 7\n") if again else not asked.exists()


def test_scripts_hold_to_shellcheck(program: Path, tmp_path: Path) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    worker = Worker(
        kind="cpu", lhcq=program, environment={"A": "b c"}, processes=1, megabytes=1024, seconds=7200
    )
    scripts = [tmp_path / "slurm.sh", tmp_path / "condor.sh"]
    scripts[0].write_text(slurm_script(worker, 3, tmp_path / "cpu.sh", ["partition=long"]))
    scripts[1].write_text(condor_script(worker))
    done = subprocess.run(
        ["shellcheck", "--severity=warning", *scripts], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_slurm_is_asked_for_what_was_ordered(program: Path) -> None:
    worker = Worker(kind="cpu", lhcq=program, environment={}, processes=4, megabytes=4096, seconds=5401)
    script = slurm_script(worker, 20, Path("/ws/batch/cpu.sh"), ["partition=long", "--account=hep"])
    directives = {line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert directives >= {
        "--array=1-20",
        "--cpus-per-task=4",
        "--mem=4096M",
        "--time=91",
        "--signal=B:USR1@120",
        "--requeue",
        "--export=NONE",
        "--partition=long",
        "--account=hep",
    }
    assert script.splitlines()[-1] == 'scontrol requeue "$SLURM_JOB_ID"'


def test_a_place_whose_name_is_a_pattern_of_the_batch_system_is_taken_as_it_is(program: Path) -> None:
    worker = Worker(kind="cpu", lhcq=program, environment={}, processes=1, megabytes=1024, seconds=7200)
    script = slurm_script(worker, 2, Path("/data/100%j/batch/cpu.sh"), [])
    assert '#SBATCH --output="/data/100%%j/batch/cpu.%a.log"' in script.splitlines()
    text = condor_description(worker, 2, Path("/data/$(Cluster)/batch/cpu.sh"), [])
    assert "executable = /data/$(DOLLAR)(Cluster)/batch/cpu.sh" in text.splitlines()


def test_condor_runs_again_what_asks_for_it(program: Path) -> None:
    worker = Worker(kind="cpu", lhcq=program, environment={}, processes=4, megabytes=4096, seconds=7200)
    text = condor_description(worker, 20, Path("/ws/batch/cpu.sh"), ['+JobFlavour = "longlunch"'])
    lines = text.splitlines()
    assert "on_exit_remove = (ExitBySignal =?= False) && (ExitCode =!= 85)" in lines
    assert lines[-2:] == ['+JobFlavour = "longlunch"', "queue 20"]
    assert "request_memory = 4096" in lines


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("90", 5400), ("2:00", 7200), ("0:30:05", 1805), ("1-0:00", 86400), ("2-01:00:00", 176400)],
)
def test_a_time_limit_reads_as_slurm_s(words: str, seconds: int) -> None:
    assert read_duration(click.Context(command), command.commands["submit"].params[0], words) == seconds


@pytest.mark.parametrize("words", ["", "x", "1:60", "1-30", "-5", "2:0", "4", "0:04"])
def test_a_time_limit_that_cannot_be_read_or_leaves_no_time_is_refused(words: str) -> None:
    with pytest.raises(click.BadParameter):
        read_duration(click.Context(command), command.commands["submit"].params[0], words)


@pytest.fixture
def broker_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "broker-url"
    path.write_text("rediss://lhcq:s3cret@broker.example.org:6379/0\n")
    monkeypatch.setenv("LHCQ_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)
    monkeypatch.setenv("LHCQ_BROKER_URL_FILE", str(path))
    return path


def invoke(*words: str) -> str:
    result = CliRunner().invoke(command, words, catch_exceptions=False, standalone_mode=False)
    return result.output


def test_a_script_names_the_address_s_file_and_holds_no_password(broker_file: Path) -> None:
    for system in ("--slurm", "--condor"):
        files = json.loads(invoke("submit", system, "2", "--dry-run", "--json"))["files"]
        text = "".join(files.values())
        assert f"export LHCQ_BROKER_URL_FILE={broker_file}" in text
        assert "s3cret" not in text
    assert not (broker_file.parent / "workspace/batch").exists()  # a dry run writes nothing


def test_a_script_has_what_else_was_set(broker_file: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LHCQ_DATA_ROOTS", f"{tmp_path}/one:{tmp_path}/two")
    monkeypatch.setenv("LHCQ_LOG_FORMAT", "json")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example.org:4318")
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://lhcq:s3cret@collector.example.org:4318/v1/traces"
    )
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=s3cret")
    text = invoke("submit", "--slurm", "2", "--dry-run")
    assert f"export LHCQ_DATA_ROOTS={tmp_path}/one:{tmp_path}/two\n" in text
    assert "export LHCQ_LOG_FORMAT=json\n" in text
    assert "export OTEL_EXPORTER_OTLP_ENDPOINT=https://collector.example.org:4318\n" in text
    assert "s3cret" not in text


def test_a_password_in_the_environment_is_refused(broker_file: Path, monkeypatch) -> None:
    monkeypatch.setenv("LHCQ_BROKER_URL", broker_file.read_text().strip())
    with pytest.raises(BadInput, match="holds a password") as caught:
        invoke("submit", "--slurm", "2", "--dry-run")
    assert "s3cret" not in str(caught.value)


def test_without_a_broker_there_is_nothing_to_submit(broker_file: Path, monkeypatch) -> None:
    monkeypatch.delenv("LHCQ_BROKER_URL_FILE")
    with pytest.raises(BadInput, match="need a broker"):
        invoke("submit", "--slurm", "2")


def test_a_dry_run_without_a_broker_says_what_stands_for_it(
    broker_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LHCQ_BROKER_URL_FILE")
    words = ("submit", "--slurm", "2", "--dry-run")
    done = CliRunner().invoke(command, words, catch_exceptions=False, standalone_mode=False)
    assert "export LHCQ_BROKER_URL=redis://BROKER:6379/0\n" in done.stdout
    assert (
        "set LHCQ_BROKER_URL_FILE or LHCQ_BROKER_URL. redis://BROKER:6379/0 stands for it here."
        in done.stderr
    )
    assert done.stderr.count("\n") == 1


def test_where_no_batch_system_is_nothing_is_written(broker_file: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BadInput, match="there is no sbatch here"):
        invoke("submit", "--slurm", "2")
    assert not (broker_file.parent / "workspace/batch").exists()


@pytest.mark.parametrize("words", [(), ("--slurm", "1", "--condor", "1")])
def test_one_batch_system_is_named(words: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        invoke("submit", *words)


def test_pending_counts_what_the_queues_of_a_kind_have_to_do(here, new_job) -> None:
    new_job(name="one", parts=3)
    new_job("prepare", "two")
    assert invoke("pending", "cpu") == "4\n"
    assert invoke("pending", "gpu") == "0\n"
