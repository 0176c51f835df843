"""Events that stand several times in a source are found by what they hold, listed, and never separated by a split."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhcq.config import ClusterConfig, SplitConfig
from lhcq.errors import BadInput
from lhcq.evaluate.baseline import fit_baseline
from lhcq.events.blocks import read_blocks
from lhcq.events.contents import hash_events
from lhcq.events.layout import open_event_file, read_rows, write_event_file
from lhcq.jets.clustering import cluster_events
from lhcq.jets.merge import merge_parts
from lhcq.jets.parts import with_contents, write_part
from lhcq.manifests import read_manifest, verify_files
from lhcq.prompts.split import SHARES, assign_subsets, select
from lhcq.prompts.writing import write_split
from lhcq.records.duplicates import (
    Duplicates,
    describe_duplicates,
    find_duplicates,
    hash_columns,
    read_firsts,
    write_duplicates,
)
from lhcq.records.subsets import hash_rows
from lhcq.storage import read_json

HOST = {"numpy": "2.0", "cpu": "x86_64 X86_V3"}


def make_events(n: int, seed: int = 0) -> np.ndarray:
    """(n, 700, 3): two back-to-back bundles of ten particles each."""
    rng = np.random.default_rng(seed)
    particles = np.zeros((n, 700, 3))
    for side, phi in ((0, 0.0), (10, 3.0)):
        jet = particles[:, side : side + 10]
        jet[:, :, 0] = rng.exponential(150, (n, 10)) + 1
        jet[:, :, 1] = rng.normal(0, 0.2, (n, 10))
        jet[:, :, 2] = rng.normal(phi, 0.1, (n, 10))
    return particles


def contents_of(particles: np.ndarray) -> np.ndarray:
    return hash_events(particles, np.count_nonzero(particles[:, :, 0], axis=1))


# What is the same event


def test_the_order_and_the_places_of_particles_do_not_matter():
    events = make_events(50)
    rng = np.random.default_rng(1)
    moved = np.stack([event[rng.permutation(700)] for event in events])
    np.testing.assert_array_equal(contents_of(moved), contents_of(events))
    assert len(set(contents_of(events).tolist())) == 50


@given(event=st.integers(0, 19), slot=st.integers(0, 19), quantity=st.integers(0, 2))
def test_the_last_bit_of_any_number_matters(event: int, slot: int, quantity: int):
    events = make_events(20)
    changed = events.copy()
    changed[event, slot, quantity] = np.nextafter(changed[event, slot, quantity], 1e9)
    differ = contents_of(changed) != contents_of(events)
    assert np.flatnonzero(differ).tolist() == [event]


def test_numbers_that_change_places_are_another_event():
    events = make_events(1)
    swapped, crossed, fewer = events.copy(), events.copy(), events.copy()
    swapped[0, :2, 1] = events[0, 1::-1, 1]  # the etas of two particles
    crossed[0, 0, 1:] = events[0, 0, :0:-1]  # eta and phi of one
    fewer[0, 19] = 0
    twice = events.copy()
    twice[0, 20] = events[0, 0]
    found = contents_of(np.concatenate([events, swapped, crossed, fewer, twice]))
    assert len(set(found.tolist())) == 5


def test_a_row_with_its_label_has_the_content_of_its_particles():
    events = make_events(5)
    rows = np.column_stack([events.reshape(5, 2100), np.ones(5)])
    np.testing.assert_array_equal(hash_events(rows, np.full(5, 20)), contents_of(events))


def test_what_is_empty_has_no_content():
    assert contents_of(np.zeros((3, 700, 3))).tolist() == [0, 0, 0]
    assert hash_columns([np.array([0.0, 1.0]), np.array([-0.0, 0.0])])[0] == 0


def test_a_million_events_that_hardly_differ_have_different_contents():
    events = np.zeros((1000, 700, 3))
    events[:, :30, 0], events[:, :30, 1] = 25.0, 0.5
    seen = set()
    for block in range(100):
        events[:, 0, 2] = (1000 * block + np.arange(1000)).astype(np.float32)
        seen |= set(contents_of(events).tolist())
    assert len(seen) == 100_000
    columns = [np.ones(1_000_000)] * 13 + [np.arange(1_000_000).astype(np.float32).astype(float)]
    assert len(np.unique(hash_columns(columns))) == 1_000_000


@pytest.mark.parametrize(
    ("contents", "labels", "rows", "firsts", "contradictory"),
    [
        ([5, 7, 5, 9], [0, 0, 0, 1], [12], [10], 0),
        ([5, 5, 5, 7, 7], [1, 0, 1, 0, 0], [11, 12, 14], [10, 10, 13], 1),
        ([0, 0, 3], [0, 1, 0], [], [], 0),
        ([1, 2, 3], None, [], [], 0),
        ([4, 4], None, [11], [10], 0),
        ([], [], [], [], 0),
    ],
)
def test_every_row_but_the_first_of_one_content_is_a_duplicate(
    contents: list[int], labels: list[int] | None, rows: list[int], firsts: list[int], contradictory: int
):
    found = find_duplicates(
        np.arange(10, 10 + len(contents)),
        np.array(contents, np.uint64),
        None if labels is None else np.array(labels, np.int8),
    )
    assert (found.rows.tolist(), found.firsts.tolist()) == (rows, firsts)
    assert found.n_contradictory == contradictory


@pytest.mark.parametrize("n_contents", [3, 40, 2**40])
def test_duplicates_are_those_that_a_look_at_every_row_before_finds(n_contents: int):
    rng = np.random.default_rng(n_contents)
    contents, labels = rng.integers(0, n_contents, 200).astype(np.uint64), rng.integers(-1, 2, 200)
    found = find_duplicates(np.arange(200), contents, labels)
    firsts = {
        row: contents.tolist().index(content) for row, content in enumerate(contents.tolist()) if content
    }
    expected = {row: first for row, first in firsts.items() if first != row}
    assert dict(zip(found.rows.tolist(), found.firsts.tolist(), strict=True)) == expected
    assert found.rows.tolist() == sorted(expected)
    contrary = {first for row, first in expected.items() if labels[row] != labels[first]}
    assert found.n_contradictory == len(contrary)


def test_more_duplicates_than_a_group_of_the_file_are_read_again(tmp_path: Path):
    rows = np.arange(1, 40_001)
    write_duplicates(tmp_path, Duplicates(rows=rows, firsts=rows // 2, n_contradictory=0))
    firsts = read_firsts(tmp_path, {"files": {"duplicates.parquet": {}}}, rows)
    assert np.array_equal(firsts, rows // 2)


def test_what_is_written_is_read_for_the_rows_that_a_dataset_has(tmp_path: Path):
    rows = np.array([3, 1, 8, 5])
    assert read_firsts(tmp_path, {"files": {}}, rows) is rows
    write_duplicates(tmp_path, Duplicates(rows=np.array([5, 8]), firsts=np.array([1, 3]), n_contradictory=0))
    manifest = {"files": {"duplicates.parquet": {}}}
    assert read_firsts(tmp_path, manifest, rows).tolist() == [3, 1, 3, 1]
    # A search reads the rows in the range of its fit, a mixture those of one class.
    for some, firsts in (([6, 1], [6, 1]), ([1, 3, 5], [1, 3, 1]), ([9, 8, 4], [9, 3, 4]), ([], [])):
        assert read_firsts(tmp_path, manifest, np.array(some, np.int64)).tolist() == firsts
    (tmp_path / "duplicates.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadInput, match=r"duplicates\.parquet: cannot be read"):
        read_firsts(tmp_path, manifest, rows)


def test_the_sentence_about_them_counts_and_names_the_first():
    summary = {"rows": 5, "events": 2, "contradictory": 1, "examples": [[3, 1], [4, 1], [6, 2]]}
    assert describe_duplicates(summary) == (
        "5 rows repeat 2 earlier events (row 3 is row 1, row 4 is row 1, row 6 is row 2, ...); "
        "1 of these events with contradictory labels"
    )


# Splits


def assign_before(rows: np.ndarray, labels: np.ndarray, key: str) -> np.ndarray:
    """The parts as they were assigned before duplicates were known."""
    hashes = hash_rows(rows, key)
    parts = np.full(len(rows), -1, np.int8)
    for label in (0, 1):
        members = np.flatnonzero(labels == label)
        ranked = members[np.argsort(hashes[members], kind="stable")]
        stops = (np.cumsum(list(SHARES.values())) * len(ranked) + 50) // 100
        parts[ranked] = np.searchsorted(stops, np.arange(len(ranked)), side="right")
    return parts


@given(n=st.integers(20, 2000), seed=st.integers(0, 2**31), key=st.text("0123456789abcdef", min_size=1))
def test_without_duplicates_every_event_is_where_it_was(n: int, seed: int, key: str):
    rng = np.random.default_rng(seed)
    rows, labels = rng.permutation(2 * n)[:n], rng.integers(-1, 2, n).astype(np.int8)
    labels[:2] = 0, 1
    expected = assign_before(rows, labels, key)
    np.testing.assert_array_equal(assign_subsets(rows, labels, dataset_key=key), expected)
    np.testing.assert_array_equal(assign_subsets(rows, labels, dataset_key=key, firsts=rows), expected)


@st.composite
def grouped(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels (some contradictory, some unknown) and first rows of events of which some stand up to 9 times."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    times = rng.integers(1, draw(st.integers(2, 10)), draw(st.integers(20, 400)))
    events = rng.permutation(np.repeat(np.arange(len(times)), times))
    rows = np.sort(rng.choice(3 * len(events), len(events), replace=False))
    firsts = np.array([rows[np.argmax(events == event)] for event in range(len(times))])[events]
    labels = rng.integers(0, 2, len(times))[events].astype(np.int8)
    noisy = rng.random(len(labels)) < draw(st.sampled_from([0.0, 0.05]))
    labels[noisy] = rng.integers(-1, 2, noisy.sum())
    labels[:2] = 0, 1
    return rows, labels, firsts


@given(drawn=grouped(), key=st.text("0123456789abcdef", min_size=1))
def test_all_rows_of_an_event_are_in_one_part(drawn: tuple[np.ndarray, ...], key: str):
    rows, labels, firsts = drawn
    parts = assign_subsets(rows, labels, dataset_key=key, firsts=firsts)
    np.testing.assert_array_equal(parts == -1, labels == -1)
    for first in np.unique(firsts):
        assert len(set(parts[(firsts == first) & (labels >= 0)].tolist())) <= 1
    largest = np.bincount(np.searchsorted(np.unique(firsts), firsts)).max()
    counts = np.bincount(parts[parts >= 0], minlength=len(SHARES))
    for count, percent in zip(counts, SHARES.values(), strict=True):
        assert abs(count - percent / 100 * counts.sum()) <= 2 * (largest + 1)


@given(drawn=grouped(), seed=st.integers(0, 2**31))
def test_the_part_of_an_event_does_not_depend_on_where_its_rows_stand(
    drawn: tuple[np.ndarray, ...], seed: int
):
    rows, labels, firsts = drawn
    order = np.random.default_rng(seed).permutation(len(rows))
    np.testing.assert_array_equal(
        assign_subsets(rows[order], labels[order], dataset_key="ab", firsts=firsts[order]),
        assign_subsets(rows, labels, dataset_key="ab", firsts=firsts)[order],
    )


@given(
    drawn=grouped(),
    ratio=st.sampled_from(["natural", "1:1", "1:3"]),
    limit=st.one_of(st.none(), st.integers(60, 400)),
)
def test_two_splits_of_one_source_never_share_an_event_across_parts(
    drawn: tuple[np.ndarray, ...], ratio: str, limit: int | None
):
    rows, labels, firsts = drawn
    parts = assign_subsets(rows, labels, dataset_key="ab", firsts=firsts)
    try:
        one = select(parts, labels, SplitConfig(ratio="natural"))
        other = select(parts, labels, SplitConfig(ratio=ratio, limit=limit, seed=7))
    except BadInput:  # too few of a class
        return
    for name in SHARES:
        for stranger in set(SHARES) - {name}:
            assert not set(firsts[one[name]].tolist()) & set(firsts[other[stranger]].tolist())


# Datasets


def cluster(source: Path, final: Path, size: int, config: ClusterConfig) -> dict:
    """What the tasks do, with parts of `size` rows."""
    file = open_event_file(source)
    paths = []
    for start in range(0, file.n_events, size):
        tables = []
        for block in read_blocks(file, start, min(start + size, file.n_events), skip_wrong=False):
            records = cluster_events(block.particles, config, rows=block.rows, labels=block.labels)
            found = hash_events(block.particles, block.n_particles)
            tables.append(with_contents(records, found))
        paths.append(final.parent / f"{final.name}-parts" / f"{start:06d}.arrows")
        write_part(paths[-1], tables, HOST)
    fields = {"source_sha256": "ab" * 32, "config": config.model_dump()}
    return merge_parts(paths, final, n_events=file.n_events, manifest_fields=fields, features=config.features)


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """350 background events, and 50 signal events of the same kind eight times each, in other orders, mixed."""
    rng = np.random.default_rng(5)
    background, signal = make_events(350, 1), make_events(50, 2)
    copies = np.concatenate([signal] * 8)
    for copy in copies:
        copy[:20] = copy[rng.permutation(20)]
    particles = np.concatenate([background, copies])
    labels = np.repeat([0, 1], [350, 400]).astype(np.int8)
    order = rng.permutation(750)
    path = tmp_path_factory.mktemp("repeated") / "events.h5"
    write_event_file(path, [(particles[order], labels[order])], 750, storage_rows=10)
    return path


def test_a_dataset_counts_and_lists_its_duplicates_and_its_events_have_the_same_bytes(
    repeated: Path, tmp_path: Path
):
    manifest = cluster(repeated, tmp_path / "made", 100, ClusterConfig())
    summary = manifest["duplicates"]
    assert (summary["rows"], summary["events"], summary["contradictory"]) == (350, 50, 0)
    verify_files(tmp_path / "made", manifest)
    listed = pq.read_table(tmp_path / "made" / "duplicates.parquet")
    pairs = list(zip(listed["row"].to_pylist(), listed["first"].to_pylist(), strict=True))
    assert [list(pair) for pair in pairs[:3]] == summary["examples"]
    records = pq.read_table(tmp_path / "made" / "events.parquet").to_pylist()
    for row, first in pairs:
        assert first < row
        assert records[row]["label"] == records[first]["label"] == 1
        assert records[row]["mjj"] == pytest.approx(records[first]["mjj"], rel=1e-9)
    other = cluster(repeated, tmp_path / "other", 70, ClusterConfig())
    assert other["files"] == manifest["files"]  # whatever the parts


def test_labels_of_a_key_that_contradict_each_other_are_counted(repeated: Path, tmp_path: Path):
    block = read_rows(open_event_file(repeated), 0, 200)
    contents, key = hash_events(block.particles, block.n_particles), np.zeros(200, np.int8)
    key[find_duplicates(block.rows, contents, None).rows[0]] = 1
    records = cluster_events(block.particles, ClusterConfig(), rows=block.rows, labels=None)
    write_part(tmp_path / "0.arrows", [with_contents(records, contents)], HOST)
    manifest = merge_parts(
        [tmp_path / "0.arrows"], tmp_path / "made", n_events=200, manifest_fields={}, labels=key
    )
    assert manifest["duplicates"]["contradictory"] == 1


def test_no_prompt_of_one_part_is_of_an_event_of_another_and_trees_are_not_flattered(
    repeated: Path, tmp_path: Path
):
    cluster(repeated, tmp_path / "made", 100, ClusterConfig())
    cluster(repeated, tmp_path / "wide", 100, ClusterConfig(radius=1.2))
    listed = pq.read_table(tmp_path / "made" / "duplicates.parquet")
    first_of = dict(zip(listed["row"].to_pylist(), listed["first"].to_pylist(), strict=True))
    seen: dict[int, str] = {}
    for dataset, ratio in (("made", "natural"), ("made", "1:1"), ("wide", "1:2")):
        split = tmp_path / f"{dataset}-{ratio}"
        write_split(tmp_path / dataset, split, config=SplitConfig(ratio=ratio))
        for name in SHARES:
            for row in pq.read_table(split / f"{name}.parquet")["row"].to_pylist():
                assert seen.setdefault(first_of.get(row, row), name) == name
    assert {seen[first] for first in first_of.values()} == set(SHARES)
    split = tmp_path / "made-1:1"
    manifest = read_manifest(split, what="split", remedy="")
    assert manifest["duplicates_sha256"] is not None
    fit_baseline(split, tmp_path / "trees")
    # There is nothing to learn but the events themselves; with copies on both sides trees reach 1.0.
    assert read_json(tmp_path / "trees" / "figures.json")["test"]["auc"] < 0.9


def test_a_split_that_fails_for_its_duplicates_says_so(tmp_path: Path):
    particles = np.concatenate([make_events(200, 1), np.repeat(make_events(1, 2), 200, axis=0)])
    labels = np.repeat([0, 1], 200).astype(np.int8)
    write_event_file(tmp_path / "events.h5", [(particles, labels)], 400, storage_rows=10)
    cluster(tmp_path / "events.h5", tmp_path / "made", 100, ClusterConfig())
    with pytest.raises(BadInput, match="199 of its rows repeat others, and all rows of one event are in one"):
        write_split(tmp_path / "made", tmp_path / "split", config=SplitConfig())


def test_the_content_of_an_event_does_not_depend_on_how_its_numbers_lie_in_memory():
    random = np.random.default_rng(1)
    rows = np.zeros((9, 2101))
    rows[:, :300] = random.random((9, 300))
    counts = np.full(9, 100)
    stepping = rows[:, :2100].reshape(-1, 700, 3)  # over the labels
    assert not stepping.flags.c_contiguous
    expected = hash_events(np.ascontiguousarray(stepping), counts)
    for same in (stepping, rows, np.asfortranarray(rows)):
        assert hash_events(same, counts).tolist() == expected.tolist()
    assert hash_events(rows[::-1], counts).tolist() == expected[::-1].tolist()
    assert hash_events(stepping[:1], counts[:1]).tolist() == expected[:1].tolist()
    assert hash_events(stepping[:0], counts[:0]).tolist() == []
