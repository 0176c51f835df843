"""Every line of a worker's log tells its host, unit and attempt; `lhcq logs` finds those of a job."""

import json
import logging
import logging.handlers
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lhcq.cli import logs
from lhcq.environment import Settings
from lhcq.errors import BadInput
from lhcq.records.failures import LOG_VARIABLE
from lhcq.records.jobs import end_job
from lhcq.storage import rotate
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.jobs.kinds import KINDS, chunk_unit, kind_of_task, merge_unit
from tasks.jobs.train import segment_unit, validate_unit
from tasks.observe.log_reader import LogReader, is_about, read_line
from tasks.observe.logging import JsonFormatter, TextFormatter, format_lines, masked, note_attempt, working_on
from tasks.stages.fanout import perform_chunk

HOST = socket.gethostname()


@pytest.fixture
def log(place, monkeypatch) -> Iterator[Callable[..., Path]]:
    """Give the root logger a file in the workspace, in one format, as a worker has it."""
    root, handlers = logging.getLogger(), []
    level = root.level

    def start(formatter: logging.Formatter, name: str = "cpu.log") -> Path:
        path = place.logs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path)
        handler.setFormatter(formatter)
        root.addHandler(handler)
        handlers.append(handler)
        root.setLevel(logging.INFO)
        return path

    yield start
    root.setLevel(level)
    for handler in handlers:
        root.removeHandler(handler)
        handler.close()


def broken(*_: Any) -> None:
    raise OSError("the disk hiccuped\nbadly")


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_every_line_of_a_task_tells_its_unit_attempt_and_host(broker, here, new_job, log, formatter) -> None:
    path = log(formatter)
    unit = chunk_unit(new_job(), 1)
    for _ in range(2):
        assert perform_chunk("cluster", "made", 1, broken) == "again"
    lines = path.read_bytes().splitlines()
    found = [line for line in map(read_line, lines) if line]
    assert len(found) == len(lines)
    assert {(line.unit, line.host) for line in found} == {(unit.key, HOST)}
    assert {line.attempt for line in found} == {1, 2}
    told = "\n".join(line.message for line in found)
    assert told.count("begun") == 2
    assert told.count("Traceback (most recent call last)") == 2
    assert "badly" in told


def test_what_is_logged_outside_a_task_is_about_no_unit() -> None:
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "one\ntwo", None, None)
    first, second = TextFormatter().format(record).splitlines()
    assert first.endswith(f" WARNING {HOST}/MainProcess] one")
    assert second == first.removesuffix("one") + "two"
    assert json.loads(JsonFormatter().format(record))["unit"] is None
    assert read_line(first.encode()) is None


def test_celerys_own_line_about_a_task_is_about_its_unit(new_job) -> None:
    unit = chunk_unit(new_job(), 7)

    def line_of(name: str, args: str) -> Any:
        values = {"id": "x", "name": name, "args": args, "kwargs": "{}"}
        record = logging.LogRecord("x", logging.INFO, "f", 1, "Task %(name)s received", (values,), None)
        return read_line(TextFormatter().format(record).encode())

    assert line_of("lhcq.cluster_part", "('made', 7)").unit == unit.key
    for name, args in (
        ("celery.ping", "('made', 7)"),
        ("lhcq.cluster_part", "('a b', 7)"),
        ("lhcq.cluster_part", "('made', 7"),
        ("lhcq.cluster_part", "(" * 10_000),
        ("lhcq.cluster_part", "7"),
    ):
        line = line_of(name, args)
        assert line is None


def test_a_unit_is_named_only_while_it_is_worked_on(new_job) -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "said", None, None)
    note_attempt(3)  # nobody's
    with working_on(segment_unit("run")):
        note_attempt(2)
        assert "lhcq.train_segment:run attempt 2] said" in TextFormatter().format(record)
    assert "lhcq." not in TextFormatter().format(record)


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_passwords_never_reach_a_log(monkeypatch, formatter) -> None:
    monkeypatch.setenv("LHCQ_BROKER_URL", "redis://user:s3cr%2Fet@broker:6379/0")
    try:
        raise OSError("redis://user:s3cr%2Fet@broker:6379/0 and 's3cr/et' and redis://:0ther@b are away")
    except OSError:
        told = logging.LogRecord("x", logging.ERROR, "f", 1, "%s", ("s3cr/et",), sys.exc_info())
    text = formatter.format(told)
    assert "s3cr" not in text
    assert "0ther" not in text
    assert "redis://user:***@broker:6379/0" in text


def test_an_address_without_a_password_stays_as_it_is() -> None:
    for text in ("redis://broker:6379/0", "see https://host/a:b@c", "redis+socket:///tmp/x.sock", "a@b:c"):
        assert masked(text) == text


def test_a_format_that_is_none_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("LHCQ_LOG_FORMAT", "yaml")
    with pytest.raises(BadInput, match="log_format"):
        Settings.from_environment()


def test_a_worker_whose_output_goes_elsewhere_keeps_a_copy_in_the_workspace(tmp_path, monkeypatch) -> None:
    path = tmp_path / "logs/cpu-host.log"
    monkeypatch.setenv(LOG_VARIABLE, str(path))
    monkeypatch.setenv("LHCQ_LOG_FORMAT", "json")
    logger = logging.Logger("worker")
    logger.addHandler(logging.StreamHandler())
    for _ in range(2):
        format_lines(logger)
    try:
        assert [type(handler).__name__ for handler in logger.handlers] == [
            "StreamHandler",
            "WorkerLog",
        ]
        logger.warning("kept")
        assert json.loads(path.read_text())["message"] == "kept"
    finally:
        logger.handlers[1].close()


def test_a_log_that_cannot_be_kept_stops_no_worker(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(LOG_VARIABLE, str(tmp_path / "file/cpu.log"))
    logger = logging.Logger("worker")
    format_lines(logger)
    assert logger.handlers == []
    assert "the log is not kept there" in capsys.readouterr().err


def test_every_task_works_for_a_kind_of_job() -> None:
    app.loader.import_default_modules()
    tasks = {name for name in app.tasks if name.startswith("lhcq.")}
    assert tasks == {task for kind in KINDS.values() for task in kind.queues}
    assert len(tasks) == sum(len(kind.queues) for kind in KINDS.values())
    assert {kind_of_task(task).name for task in tasks} == set(KINDS)


def write(path: Path, *messages: str, unit: str = "lhcq.cluster_part:made:0", second: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        for message in messages:
            stream.write(f"[2026-01-01T00:00:{second:02d}.000Z INFO a/P-1 {unit} attempt 1] {message}\n")


def test_a_job_is_found_in_all_logs_in_the_order_of_time(place, new_job) -> None:
    job, run = new_job(), new_job("train", "made", parts=0)
    write(place.logs / "cpu-a.log", "late", second=5)
    write(place.logs / "cpu-b.log", "early", second=1)
    write(place.logs / "cpu-b.log", "other part", unit=chunk_unit(job, 1).key, second=2)
    write(place.logs / "cpu-b.log", "merge", unit=merge_unit(job).key, second=9)
    write(place.logs / "gpu-b.log", "its run", unit=validate_unit("made", 40).key, second=3)
    write(place.logs / "gpu-b.log", "another", unit=segment_unit("made2").key)

    def found(*of: Any) -> list[str]:
        return [line.message for line in LogReader(place).lines(lambda line: is_about(line, *of))]

    assert found(job) == ["early", "other part", "late", "merge"]
    assert found(job, 0) == ["early", "late"]
    assert found(run) == found(run, 40) == ["its run"]


def test_only_what_is_new_and_whole_is_read_again(place, new_job) -> None:
    path = place.logs / "cpu.log"
    reader = LogReader(place)

    def new() -> list[str]:
        return [line.message for line in reader.lines(lambda _: True)]

    assert new() == []
    write(path, "one", "two")
    assert new() == ["one", "two"]
    with path.open("a") as stream:
        stream.write("[2026-01-01T00:00:00.000Z INFO a/P-1 lhcq.validate:run:1] thr")
    assert new() == []
    with path.open("a") as stream:
        stream.write("ee\n")
    assert new() == ["three"]
    path.unlink()
    write(path, "rotated")
    assert new() == ["rotated"]
    assert new() == []


def test_lhcq_logs_shows_lines_and_records_and_ends_with_the_job(here, new_job) -> None:
    job = new_job()
    end_job(here, job, "done", "merged")
    write(here.logs / "cpu.log", "one")
    line = {
        "time": "2026-01-01T00:00:01.000Z",
        "level": "ERROR",
        "host": "b",
        "process": "P-2",
        "logger": "x",
    }
    line |= {"unit": chunk_unit(job, 2).key, "attempt": 4, "message": "two\nthree"}
    (here.logs / "gpu.log").write_text("no line\n" + json.dumps(line) + "\n{broken\n")

    def shown(*words: str) -> list[str]:
        result = CliRunner().invoke(logs.command, ["made", *words], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output.splitlines()

    assert shown() == [
        "2026-01-01T00:00:00.000Z INFO    a/P-1 lhcq.cluster_part:made:0 attempt 1  one",
        "2026-01-01T00:00:01.000Z ERROR   b/P-2 lhcq.cluster_part:made:2 attempt 4  two",
        "2026-01-01T00:00:01.000Z ERROR   b/P-2 lhcq.cluster_part:made:2 attempt 4  three",
    ]
    (record,) = map(json.loads, shown("2", "--json", "--follow"))
    assert (record["part"], record["attempt"], record["message"]) == (2, 4, "two\nthree")
    assert shown("1") == []


WRITER = """
import logging, os, sys
import lhcq.storage, tasks.observe.logging as own

own.LARGEST_LOG_BYTES = lhcq.storage.LARGEST_LOG_BYTES = 2000
lhcq.storage.KEPT_LOGS = 1000
logger = logging.Logger("worker")
logger.addHandler(logging.StreamHandler())
own.format_lines(logger)
print("begun", len(logger.handlers), flush=True)
for number in range(150):
    logger.warning("line %s of %s", number, sys.argv[1])
os.write(1, f"output of {sys.argv[1]}\\n".encode())
"""


def test_processes_that_share_a_log_rename_it_when_it_is_large_and_lose_no_line(place) -> None:
    path = place.logs / "cpu.log"
    path.parent.mkdir(parents=True)
    with path.open("ab") as output:  # as a local worker is started
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(number)],
                stdout=output,
                stderr=output,
                env={**os.environ, LOG_VARIABLE: str(path)},
            )
            for number in range(2)
        ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    _check_shared(place)


def test_a_process_whose_output_was_renamed_before_it_logs_goes_on_in_the_new_log_alone(place) -> None:
    path = place.logs / "cpu.log"
    path.parent.mkdir(parents=True)
    with path.open("ab") as output:
        path.rename(path.with_name("cpu.log.1"))
        for number in range(2):
            started = [sys.executable, "-c", WRITER, str(number)]
            subprocess.run(
                started, stdout=output, stderr=output, env={**os.environ, LOG_VARIABLE: str(path)}, check=True
            )
    _check_shared(place)


def _check_shared(place: Workspace) -> None:
    logs = list(place.logs.glob("cpu.log*"))
    assert len(logs) > 5
    assert max(log.stat().st_size for log in logs) < 3000
    lines = [line for log in logs for line in log.read_text().splitlines()]
    assert lines.count("begun 1") == 2  # once, not on the output as well
    told = [line.partition("] ")[2] for line in lines if line.startswith("[")]
    assert sorted(told) == sorted(f"line {number} of {one}" for number in range(150) for one in range(2))
    newest = sorted(logs, key=lambda log: log.stat().st_mtime)[-2:]  # where what a process prints goes too
    assert any("output of" in log.read_text() for log in newest)


def test_a_log_that_was_renamed_is_read_on_and_the_new_one_too(place, monkeypatch) -> None:
    path = place.logs / "cpu.log"
    reader = LogReader(place)

    def new() -> list[str]:
        return [line.message for line in reader.lines(lambda _: True)]

    write(path, "first")
    assert new() == ["first"]
    write(path, "second")
    monkeypatch.setattr("lhcq.storage.LARGEST_LOG_BYTES", 10)
    rotate(path)
    write(path, "third", second=1)
    assert new() == ["second", "third"]
    assert len(LogReader(place).lines(lambda _: True)) == 3
    for _ in range(5):
        write(path, "more")
        rotate(path)
    assert len(list(place.logs.glob("cpu.log.*"))) == 3
