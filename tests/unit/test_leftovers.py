"""What nobody needs is found and removed; what somebody may go on with, or is writing, stays."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lhcq.cli.main import cli
from lhcq.records.jobs import Job, end_job
from lhcq.workspace import Workspace
from tasks.jobs.kinds import chunk_path
from tasks.jobs.leftovers import find_leftovers, prune
from tasks.jobs.store import create_job
from tests.specs import job_of

DAYS = 24 * 3600


def with_chunks(place: Workspace, name: str) -> tuple[Job, Path]:
    job = create_job(place, job_of("cluster", name))
    chunk = chunk_path(place, job, 0)
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(b"c" * 100)
    return job, chunk


def aged(path: Path, days: float, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    then = time.time() - days * DAYS
    os.utime(path, (then, then))
    return path


def removed(place: Workspace, log_days: float = 30.0) -> list[tuple[str, str]]:
    return [(one.path.name, one.why) for one in prune(place, log_days=log_days)]


@pytest.mark.parametrize("state", ["done", "cancelled"])
def test_chunks_of_a_job_that_is_over_go(place: Workspace, state: Any) -> None:
    job, chunk = with_chunks(place, "lhco")
    end_job(place, job, state, "over")
    assert removed(place) == [("parts", "chunks of a job that is over")]
    assert not chunk.exists()
    assert place.job("cluster", "lhco").exists()
    assert removed(place) == []


@pytest.mark.parametrize("state", [None, "failed", "incomplete"])
def test_chunks_that_somebody_may_go_on_with_stay(place: Workspace, state: Any) -> None:
    job, chunk = with_chunks(place, "lhco")
    earlier = chunk.parents[1] / "0123456789abcdef" / "000000.arrows"
    earlier.parent.mkdir()
    earlier.touch()
    if state:
        end_job(place, job, state, "ended")
    assert removed(place) == [("0123456789abcdef", "chunks of an earlier request")]
    assert chunk.exists()


def test_what_was_cut_off_goes_and_what_is_being_written_stays(place: Workspace) -> None:
    aged(place.root / "datasets" / ".lhco.7-ab.tmp" / "events.parquet", 2)
    os.utime(place.root / "datasets" / ".lhco.7-ab.tmp", (1, 1))
    aged(place.root / "splits" / ".old.7-ab.tmp", 2)
    young = aged(place.root / "splits" / ".made.7-ab.tmp" / "rows", 0)
    os.utime(young.parent, (1, 1))  # what is in it tells
    aged(place.root / "runs" / "r" / "checkpoints" / ".00000010.removed.tmp" / "weights", 0)
    kept = aged(place.broker / ".temp.tmp", 9)
    late = aged(place.root / "jobs" / "cluster-gone" / "0.arrows", 2)  # by a worker whose job was removed
    os.utime(late.parent, (1, 1))
    aged(place.root / "jobs" / "cluster-new" / ".job.json.tmp", 0)
    names = [".00000010.removed.tmp", ".lhco.7-ab.tmp", ".old.7-ab.tmp", "cluster-gone"]
    assert sorted(removed(place)) == [(name, "cut off") for name in names]
    assert young.exists()
    assert kept.exists()


def test_old_logs_go_and_one_that_a_silent_worker_has_open_is_emptied(place: Workspace) -> None:
    aged(place.logs / "cpu.log.1", 40)
    silent = aged(place.logs / "gpu-host.log", 40, b"started\n")
    recent = aged(place.logs / "cpu.log", 1, b"at work\n")
    with silent.open("ab") as worker:
        assert sorted(removed(place)) == [("cpu.log.1", "old log"), ("gpu-host.log", "old log")]
        worker.write(b"at work again\n")
    assert silent.read_bytes() == b"at work again\n"
    assert recent.read_bytes() == b"at work\n"
    assert removed(place) == []


def test_a_dry_run_tells_all_and_removes_nothing(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    job, chunk = with_chunks(place, "lhco")
    end_job(place, job, "done", "over")

    def told(*words: str) -> str:
        return CliRunner().invoke(cli, ["prune", *words], catch_exceptions=False).output

    before = json.loads(told("--dry-run", "--json"))
    assert before == {
        "dry_run": True,
        "bytes": 100,
        "leftovers": [{"path": str(chunk.parents[1]), "why": "chunks of a job that is over", "bytes": 100}],
    }
    assert told("--dry-run").endswith("100 B would be removed\n")
    assert chunk.exists()
    assert told().endswith("100 B removed\n")
    assert find_leftovers(place, log_days=1) == []
