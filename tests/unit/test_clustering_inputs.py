"""What a clustering job works on has to be what its request named: the source, and the master key."""

import os
from pathlib import Path

import numpy as np
import pytest

from lhcq.errors import BadInput
from lhcq.events.layout import write_event_file
from lhcq.records.jobs import Job
from lhcq.storage import sha256_of
from tasks.stages.cluster import chunks_of, key_of, open_source


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A request for twenty events, four to a storage chunk, with a key."""
    source, key = tmp_path / "events.h5", tmp_path / "key"
    write_event_file(source, [(np.ones((20, 700, 3)), np.zeros(20))], 20, storage_rows=4)
    key.write_text("0\n1\n" * 10)
    status = source.stat()
    return Job(
        kind="cluster",
        name="made",
        created=1.0,
        spec={"n_events": 20, "storage_rows": 4, "events_per_chunk": 8, "labels_sha256": sha256_of(key)},
        terms={
            "source": str(source),
            "bytes": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "labels": str(key),
        },
        parts=3,
    )


def test_the_source_and_the_key_that_were_named_are_used(job: Job) -> None:
    assert open_source(job).n_events == 20
    labels = key_of(job, 20)
    assert labels is not None
    assert labels.tolist() == [0, 1] * 10
    assert [(chunk.start, chunk.stop) for chunk in chunks_of(job)] == [(0, 4), (4, 12), (12, 20)]


def test_a_source_that_was_written_meanwhile_is_refused(job: Job) -> None:
    os.utime(job.terms["source"], (1e9, 1e9))
    with pytest.raises(BadInput, match=r"events\.h5: changed since this job started\. Run the same command"):
        open_source(job)


def test_a_source_that_is_gone_is_refused(job: Job) -> None:
    Path(job.terms["source"]).unlink()
    with pytest.raises(BadInput, match=r"events\.h5: there is no such file"):
        open_source(job)


def test_a_key_that_was_written_meanwhile_is_refused(job: Job) -> None:
    Path(job.terms["labels"]).write_text("1\n" * 20)
    with pytest.raises(BadInput, match=r"key: changed since this job started\. Run the same command again\."):
        key_of(job, 20)


def test_a_key_that_is_gone_is_refused(job: Job) -> None:
    Path(job.terms["labels"]).unlink()
    with pytest.raises(BadInput, match=r"key: cannot be read \(No such file or directory\)\."):
        key_of(job, 20)


def test_a_job_without_a_key_has_none(job: Job) -> None:
    without = job.model_copy(update={"terms": {**job.terms, "labels": None}})
    assert key_of(without, 20) is None
