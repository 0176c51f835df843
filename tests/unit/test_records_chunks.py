"""Chunks on disk: the same rows are the same bytes, and what could not have been written is refused."""

import struct
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhcq.config import ClusterConfig
from lhcq.errors import DamagedChunk
from lhcq.jets import parts
from lhcq.jets.clustering import cluster_events
from lhcq.jets.parts import write_part
from lhcq.records.chunks import Chunk, write_chunk

N = 90


@pytest.fixture(scope="module")
def events() -> pa.Table:
    """Events of no to several jets, so with nulls, and every third of no class."""
    random = np.random.default_rng(4)
    particles = np.zeros((N, 30, 3))
    kept = random.integers(0, 30, N)
    for event, n in enumerate(kept):
        particles[event, :n, 0] = random.exponential(20.0, n)
        particles[event, :n, 1:] = random.normal(0.0, 1.5, (n, 2))
    labels = (np.arange(N) % 3 - 1).astype(np.int8)
    config = ClusterConfig(features="full", constituents=3)
    return cluster_events(particles, config, rows=np.arange(N), labels=labels)


@given(st.lists(st.integers(0, N), max_size=6).map(sorted), st.integers(1, N + 1))
def test_the_same_rows_are_the_same_bytes_however_they_come(events, tmp_path_factory, cuts, size) -> None:
    assert events["mjj"].null_count
    directory = tmp_path_factory.mktemp("chunks")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parts, "BATCH", size)
        slices = [
            events.slice(start, stop - start) for start, stop in zip([0, *cuts], [*cuts, N], strict=True)
        ]
        write_part(directory / "whole", [events], {"cpu": "any"})
        write_part(directory / "cut", slices, {"cpu": "any"})
    assert (directory / "whole").read_bytes() == (directory / "cut").read_bytes()
    assert pa.Table.from_batches(Chunk(directory / "cut").batches()).equals(events)


def test_a_chunk_without_rows_has_its_columns(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("x", pa.int64())])
    write_chunk(tmp_path / "none", schema, [])
    assert list(Chunk(tmp_path / "none").batches()) == []
    assert pa.ipc.open_stream((tmp_path / "none").read_bytes()).schema == schema


def test_a_list_that_ends_beyond_its_values_is_refused_though_it_is_sealed(tmp_path: Path) -> None:
    path = tmp_path / "chunk"
    batch = pa.record_batch({"x": pa.array([[1.0, 2.0], [3.0]])})
    write_chunk(path, batch.schema, [batch])
    content, offsets = path.read_bytes()[:-8], struct.pack("<3i", 0, 2, 3)
    assert content.count(offsets) == 1
    content = content.replace(offsets, struct.pack("<3i", 0, 2, 1_000_000))
    path.write_bytes(b"%b%08x" % (content, crc32(content)))
    with pytest.raises(DamagedChunk, match="not a readable chunk"):
        list(Chunk(path).batches())


def test_nothing_stands_under_the_name_of_a_chunk_whose_rows_end_in_an_error(tmp_path: Path) -> None:
    batch = pa.record_batch({"x": [1]})

    def broken():
        yield batch
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_chunk(tmp_path / "chunk", batch.schema, broken())
    assert list(tmp_path.iterdir()) == []
