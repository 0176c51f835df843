"""What another user may not look at is told as that, with what its owner can do; it is not taken for damage."""

import getpass
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lhcq.cli.main import run
from lhcq.errors import BadInput, Denied
from lhcq.model.tensors import read_tensors
from lhcq.records.chunks import Chunk, write_chunk
from lhcq.records.events import read_events
from lhcq.records.jobs import find_job, read_jobs
from lhcq.records.scores import Scores, read_scores, write_scores
from lhcq.storage import exclusive
from lhcq.workspace import Workspace
from tasks.doctor import record_findings
from tasks.jobs.store import create_job
from tests.rights import as_any_user
from tests.search_events import write_events
from tests.specs import job_of


@pytest.fixture
def closed() -> Iterator[Any]:
    """Takes all rights to a file or a directory away."""
    paths = []

    def close(path: Path) -> Path:
        paths.append(path)
        path.chmod(0)
        return path

    yield close
    for path in paths:
        path.chmod(0o700)


def written_chunk(path: Path) -> Path:
    write_chunk(path, pa.schema([("row", pa.int64())]), [])
    return path


def written_scores(path: Path) -> Path:
    write_scores(path, Scores.of(rows=np.arange(2), labels=np.array([0, 1]), p_signal=np.array([0.1, 0.9])))
    return path


def written_tensors(path: Path) -> Path:
    from safetensors.numpy import save_file

    save_file({"one": np.zeros(1)}, path)
    return path


@pytest.mark.parametrize(
    ("written", "read"),
    [(written_chunk, Chunk), (written_scores, read_scores), (written_tensors, read_tensors)],
)
def test_a_whole_file_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, closed: Any, written: Any, read: Any
) -> None:
    """A chunk that is damaged is discarded and made again; whoever reads of the rest is told to make it again."""
    path = closed(written(tmp_path / "file"))
    with (
        as_any_user(),
        pytest.raises(Denied, match=rf"^{path}: permission denied, it belongs to \w+\. Have "),
    ):
        read(path)


def test_a_dataset_that_may_not_be_read_is_told_with_the_remedy(place: Workspace, closed: Any) -> None:
    made = write_events(place.dataset("made"), 20)
    events = closed(made / "events.parquet")
    with as_any_user(), pytest.raises(Denied, match=rf"^{events}: .* `chmod -R a\+rX {made}`, or do this as"):
        read_events(made, ["row"])


def test_who_may_not_write_is_told_whose_it_is(place: Workspace, closed: Any) -> None:
    place.create()
    closed(place.root).chmod(0o500)
    told = (
        rf"Permission denied\)\. {place.root} belongs to (\w+): do this as \1, or in a place of your own\.$"
    )
    with as_any_user(), pytest.raises(BadInput, match=told), exclusive(place.jobs_lock):
        pytest.fail("was locked")


def test_jobs_of_a_user_who_lets_nobody_look_are_told_as_that(
    place: Workspace, closed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)
    create_job(place, job_of("train", "open"))
    create_job(place, job_of("train", "closed"))
    directory = closed(place.run("closed"))
    told = (
        f"{directory}/job.json: permission denied, it belongs to {getpass.getuser()}. Have {getpass.getuser()} run "
        f"`chmod -R a+rX {directory}`, or do this as {getpass.getuser()}."
    )
    with as_any_user():
        with pytest.raises(Denied):
            find_job(place, "train", "closed")
        assert [one.message for one in read_jobs(place)[1]] == [told]
        findings = {one.found: one.remedy for one in record_findings(place)}
        assert findings[told.partition(". ")[0]] == told.partition(". ")[2]
        assert not any("rm" in remedy.split() for remedy in findings.values())
        for words in (["why", "closed"], ["tag", "closed", "2", "v1"]):
            monkeypatch.setattr(sys, "argv", ["lhcq", *words])
            assert run() == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"lhcq: {directory}/")
            assert line.endswith(told.partition(". ")[2])
        monkeypatch.setattr(sys, "argv", ["lhcq", "status", "--json"])
        assert run() == 0
        rows = json.loads(capsys.readouterr().out)["jobs"]
        assert {row["name"]: row["state"] for row in rows} == {"open": "open", "closed": "damaged"}
