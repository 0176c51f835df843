"""What a clustering job works on has to be what its request named: the source, and the master key."""

import os
from pathlib import Path

import numpy as np
import pytest

from lhcq.errors import BadInput
from lhcq.events.layout import write_event_file
from lhcq.records.specs import ClusterSpec, ClusterTerms
from lhcq.requests.cluster import chunks_of
from lhcq.storage import sha256_of
from lhcq.workspace import Workspace
from tasks.stages.cluster import open_source, read_key
from tests.specs import spec_of, terms_of


@pytest.fixture
def terms(tmp_path: Path) -> ClusterTerms:
    """Those of a request for twenty events, four to a storage chunk, with a key."""
    source, key = tmp_path / "events.h5", tmp_path / "key"
    write_event_file(source, [(np.ones((20, 700, 3)), np.zeros(20))], 20, storage_rows=4)
    key.write_text("0\n1\n" * 10)
    status = source.stat()
    named = terms_of(
        "cluster", source=str(source), bytes=status.st_size, mtime_ns=status.st_mtime_ns, labels=str(key)
    )
    assert isinstance(named, ClusterTerms)
    return named


@pytest.fixture
def spec(terms: ClusterTerms) -> ClusterSpec:
    """The request itself, with the key by its hash."""
    labels_sha256 = sha256_of(Path(str(terms.labels)))
    asked = spec_of("cluster", n_events=20, storage_rows=4, events_per_chunk=8, labels_sha256=labels_sha256)
    assert isinstance(asked, ClusterSpec)
    return asked


def test_the_source_and_the_key_that_were_named_are_used(
    place: Workspace, terms: ClusterTerms, spec: ClusterSpec
) -> None:
    assert open_source(place, spec, terms).n_events == 20
    labels = read_key(place, terms.labels, spec.labels_sha256, 20)
    assert labels is not None
    assert labels.tolist() == [0, 1] * 10
    assert [(chunk.start, chunk.stop) for chunk in chunks_of(spec)] == [(0, 4), (4, 12), (12, 20)]


def test_a_source_that_was_written_meanwhile_is_refused(
    place: Workspace, terms: ClusterTerms, spec: ClusterSpec
) -> None:
    os.utime(terms.source, (1e9, 1e9))
    with pytest.raises(BadInput, match=r"events\.h5: changed since this job started\. Run the same command"):
        open_source(place, spec, terms)


def test_a_source_that_is_gone_is_refused(place: Workspace, terms: ClusterTerms, spec: ClusterSpec) -> None:
    Path(terms.source).unlink()
    with pytest.raises(BadInput, match=r"events\.h5: there is no such file"):
        open_source(place, spec, terms)


def test_a_key_that_was_written_meanwhile_is_refused(
    place: Workspace, terms: ClusterTerms, spec: ClusterSpec
) -> None:
    Path(str(terms.labels)).write_text("1\n" * 20)
    with pytest.raises(BadInput, match=r"key: changed since this job started\. Run the same command again\."):
        read_key(place, terms.labels, spec.labels_sha256, 20)


def test_a_key_that_is_gone_is_refused(place: Workspace, terms: ClusterTerms, spec: ClusterSpec) -> None:
    Path(str(terms.labels)).unlink()
    with pytest.raises(BadInput, match=r"key: cannot be read \(No such file or directory\)\."):
        read_key(place, terms.labels, spec.labels_sha256, 20)


def test_a_job_without_a_key_has_none(place: Workspace) -> None:
    assert read_key(place, None, None, 20) is None
