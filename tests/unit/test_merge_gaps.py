"""Merging a dataset whose source has rows that cannot be used, and one whose labels come from elsewhere."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhcq.config import ClusterConfig
from lhcq.errors import RowsMissing
from lhcq.jets import merge
from lhcq.jets.clustering import cluster_events
from lhcq.jets.merge import ChunkMissing, merge_parts
from lhcq.jets.parts import Gap, read_told, write_part
from lhcq.records.chunks import Chunk
from lhcq.records.events import SCHEMA
from lhcq.storage import MANIFEST
from tests.made_chunks import told_apart

N_EVENTS = 100
HOST = {"numpy": "2.0", "cpu": "x86_64 X86_V3"}


@pytest.fixture(scope="module")
def records() -> pa.Table:
    """A hundred events of one to three particles; every third has the label 1, every third none."""
    particles = np.zeros((N_EVENTS, 700, 3))
    for row in range(N_EVENTS):
        for particle in range(1 + row % 3):
            particles[row, particle] = [30.0 + row, 0.1 * particle, 2.0 * particle - 2.0]
    table = cluster_events(particles, ClusterConfig(), rows=np.arange(N_EVENTS), labels=None)
    labels = pa.array([(0, 1, None)[row % 3] for row in range(N_EVENTS)], pa.int8())
    place = table.schema.get_field_index("label")
    return told_apart(table.set_column(place, table.schema.field(place), labels))


def gap(start: int, stop: int, reason: str = "damaged.") -> Gap:
    return Gap(start=start, stop=stop, reason=reason)


def write_parts(directory, records, *gaps: Gap, size: int = 20):
    """Parts of `size` rows, each without the rows of `gaps` and with those of its own as its gaps."""
    paths = []
    for start in range(0, N_EVENTS, size):
        stop = min(start + size, N_EVENTS)
        own = [one for one in gaps if start <= one.start < stop]
        kept = sorted(set(range(start, stop)) - {row for one in own for row in range(one.start, one.stop)})
        paths.append(directory / f"{start:06d}.arrows")
        write_part(paths[-1], [records.take(pa.array(kept, pa.int64()))], HOST, own)
    return paths


def merged(tmp_path, paths, **options):
    return merge_parts(paths, tmp_path / "mini", n_events=N_EVENTS, manifest_fields={}, **options)


def test_a_part_carries_its_gaps_and_is_the_same_bytes_each_time(tmp_path, records):
    for name in "ab":
        write_part(tmp_path / name, [records.slice(0, 5)], HOST, [gap(5, 9), gap(9, 10, "row 9: wrong.")])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    told = Chunk(tmp_path / "a").told
    assert read_told(told, tmp_path / "a").gaps == (gap(5, 9), gap(9, 10, "row 9: wrong."))
    write_part(tmp_path / "c", [records.slice(0, 5)], HOST)
    assert read_told(Chunk(tmp_path / "c").told, tmp_path / "c").gaps == ()


def test_a_gap_is_refused_with_its_rows_its_reason_and_what_would_tolerate_it(tmp_path, records):
    paths = write_parts(tmp_path, records, gap(28, 35))
    with pytest.raises(RowsMissing) as caught:
        merged(tmp_path, paths)
    assert str(caught.value) == (
        "mini: 7 of 100 rows cannot be used (28-34): damaged. All others are clustered; "
        "--tolerate 0.070000 leaves these out."
    )
    with pytest.raises(RowsMissing, match="7 of 100"):
        merged(tmp_path, paths, tolerate=0.0699)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)


def test_a_gap_that_is_tolerated_is_listed_and_everything_else_is_there(tmp_path, records):
    manifest = merged(tmp_path, write_parts(tmp_path, records, gap(28, 35)), tolerate=0.07)
    assert manifest["gaps"] == [{"start": 28, "stop": 35, "reason": "damaged."}]
    assert manifest["rows"] == 93
    kept = records.take(pa.array([*range(28), *range(35, N_EVENTS)]))
    assert pq.read_table(tmp_path / "mini" / "events.parquet").equals(kept.select(SCHEMA.names))
    labels = kept["label"].to_pylist()
    assert manifest["labels"] == {
        "signal": labels.count(1),
        "background": labels.count(0),
        "unknown": labels.count(None),
    }
    assert sum(manifest["events_by_n_jets"].values()) == 93
    assert (tmp_path / "mini" / MANIFEST).exists()


def test_no_gap_is_an_empty_list(tmp_path, records):
    assert merged(tmp_path, write_parts(tmp_path, records))["gaps"] == []


def test_neighbouring_gaps_are_one_even_across_parts_and_others_stay_apart(tmp_path, records):
    gaps = [gap(14, 17, "first."), gap(17, 20, "second."), gap(20, 21, "third."), gap(70, 71, "fourth.")]
    paths = write_parts(tmp_path, records, *gaps)
    manifest = merged(tmp_path, paths[::-1], tolerate=0.1)
    assert manifest["gaps"] == [
        {"start": 14, "stop": 21, "reason": "first."},
        {"start": 70, "stop": 71, "reason": "fourth."},
    ]


def test_many_gaps_are_named_by_the_first_three(tmp_path, records):
    paths = write_parts(tmp_path, records, *(gap(row, row + 1, f"row {row}.") for row in range(0, 50, 10)))
    with pytest.raises(
        RowsMissing, match=r"5 of 100 rows cannot be used \(0-0, 10-10, 20-20, \.\.\.\): row 0\. "
    ):
        merged(tmp_path, paths)


def test_gaps_of_neighbouring_parts_are_one_with_the_reason_of_the_first(tmp_path, records):
    paths = write_parts(tmp_path, records, gap(38, 40), gap(40, 60, "row 40: wrong."))
    with pytest.raises(RowsMissing, match=r"22 of 100 rows cannot be used \(38-59\): damaged\. All others"):
        merged(tmp_path, paths, tolerate=0.1)
    manifest = merged(tmp_path, paths, tolerate=0.22)
    assert manifest["gaps"] == [{"start": 38, "stop": 60, "reason": "damaged."}]
    assert manifest["fingerprints"] == [{**HOST, "parts": 5}]


def test_a_reason_that_is_no_sentence_is_made_one(tmp_path, records):
    paths = write_parts(tmp_path, records, gap(0, 20, "the disk says no"))
    with pytest.raises(RowsMissing, match=r"\(0-19\): the disk says no\. All others"):
        merged(tmp_path, paths)


def test_a_part_without_any_event_left_is_merged(tmp_path, records):
    manifest = merged(tmp_path, write_parts(tmp_path, records, gap(20, 40)), tolerate=0.2)
    assert manifest["rows"] == 80
    assert pq.read_table(tmp_path / "mini" / "events.parquet")["row"].to_pylist() == [
        *range(20),
        *range(40, N_EVENTS),
    ]


def test_with_everything_tolerated_a_dataset_can_be_empty(tmp_path, records):
    paths = write_parts(tmp_path, records, *(gap(start, start + 20) for start in range(0, N_EVENTS, 20)))
    manifest = merged(tmp_path, paths, tolerate=1.0)
    assert (manifest["rows"], manifest["gaps"]) == (0, [{"start": 0, "stop": 100, "reason": "damaged."}])


@pytest.mark.parametrize(
    ("gaps", "message"),
    [
        ([gap(30, 40)], r"20 rows are in no chunk \(20-29, 40-49\)"),
        ([gap(20, 51)], r"1 rows are there more than once \(50\)"),
        ([gap(20, 50), gap(49, 50)], r"1 rows are there more than once \(49\)"),
        ([gap(20, 50), gap(100, 102)], r"2 rows are not in the source \(100-101\)"),
        ([gap(20, 50), gap(-2, 0)], r"2 rows are not in the source \(-2--1\)"),
        ([], r"30 rows are in no chunk \(20-49\)"),
    ],
)
def test_a_gap_excuses_its_own_rows_alone(tmp_path, records, gaps, message):
    paths = [tmp_path / "a.arrows", tmp_path / "b.arrows"]
    write_part(paths[0], [records.slice(0, 20)], HOST)
    write_part(paths[1], [records.slice(50)], HOST, gaps)
    with pytest.raises(ChunkMissing, match=message):
        merged(tmp_path, paths, tolerate=1.0)
    assert not (tmp_path / "mini").exists()


def test_parts_that_interleave_around_a_gap_are_refused(tmp_path, records):
    for name, first in (("even", 0), ("odd", 1)):
        gaps = [gap(90, 100)] if first else []
        write_part(tmp_path / name, [records.take(pa.array([*range(first, 90, 2)]))], HOST, gaps)
    with pytest.raises(merge.BadInput, match="the chunks overlap or are not in order of row"):
        merged(tmp_path, [tmp_path / "even", tmp_path / "odd"], tolerate=1.0)


def test_labels_go_to_their_rows_although_rows_are_missing(tmp_path, records, monkeypatch):
    monkeypatch.setattr(merge, "ROW_GROUP", 16)
    key = np.random.default_rng(3).integers(0, 2, N_EVENTS).astype(np.int8)
    gaps = [gap(3, 4), gap(28, 35), gap(60, 80)]
    manifest = merged(tmp_path, write_parts(tmp_path, records, *gaps), tolerate=0.3, labels=key)
    table = pq.read_table(tmp_path / "mini" / "events.parquet")
    assert table.schema.equals(SCHEMA)
    rows = table["row"].to_pylist()
    assert rows == [*range(3), *range(4, 28), *range(35, 60), *range(80, N_EVENTS)]
    assert table["label"].to_pylist() == [int(key[row]) for row in rows]
    n_signal = int(key[rows].sum())
    assert manifest["labels"] == {"signal": n_signal, "background": 72 - n_signal, "unknown": 0}


@given(n_events=st.integers(1, 2_000_000), data=st.data())
def test_the_tolerance_that_a_refusal_names_is_enough(n_events, data):
    n_missing = data.draw(st.integers(1, n_events))
    with pytest.raises(RowsMissing) as caught:
        merge._check_gaps([gap(0, n_missing)], n_events, 0.0, dataset="mini")
    named = re.search(r"--tolerate (\S+)", str(caught.value))
    assert named
    merge._check_gaps([gap(0, n_missing)], n_events, float(named[1]), dataset="mini")
    with pytest.raises(RowsMissing):
        merge._check_gaps([gap(0, n_missing)], n_events, n_missing / n_events - 1e-6, dataset="mini")


def test_a_fraction_of_just_the_missing_rows_is_enough(tmp_path, records):
    paths = write_parts(tmp_path, records, gap(0, 29), size=100)
    assert merged(tmp_path, paths, tolerate=0.29)["rows"] == 71  # 0.29 * 100 is less than 29
