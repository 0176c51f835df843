import hashlib
import os
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lhcq.config import ClusterConfig
from lhcq.errors import BadInput, DamagedChunk, NameTaken
from lhcq.jets import merge
from lhcq.jets.clustering import cluster_events
from lhcq.jets.merge import ChunkMissing, merge_parts
from lhcq.jets.parts import fingerprint, read_told, write_part
from lhcq.jets.plan import plan_chunks
from lhcq.manifests import read_manifest, verify_files
from lhcq.records.chunks import Chunk
from lhcq.records.events import SCHEMA
from tests.made_chunks import told_apart

DATA = os.environ.get("LHCQ_TEST_DATA")
needs_data = pytest.mark.skipif(
    not DATA, reason="LHCQ_TEST_DATA does not name the directory of the real events"
)

HOST = {"numpy": "2.0", "cpu": "x86_64 X86_V3"}
FIELDS = {"source": "events.h5", "source_sha256": "ab" * 32, "config": {"radius": 1.0, "max_jets": None}}


def make_records(n_events: int, seed: int = 0) -> pa.Table:
    """Records as clustering writes them into its chunks, quickly: some without jets, some without a label."""
    rng = np.random.default_rng(seed)
    records = []
    for row in range(n_events):
        n_jets = int(rng.integers(0, 4))
        jets = [
            {**dict.fromkeys(("pt", "eta", "phi", "m", "px", "py", "pz", "e", "pt_lead"), rng.normal())}
            | {"n_constituents": int(rng.integers(1, 99))}
            for _ in range(n_jets)
        ]
        records.append(
            {
                "row": row,
                "label": (0, 1, None)[row % 3],
                "n_particles": 100,
                "n_jets": n_jets,
                "jets": jets,
                "mjj": rng.normal() if n_jets > 1 else None,
                "delta_r": rng.normal() if n_jets > 1 else None,
            }
        )
    return told_apart(pa.Table.from_pylist(records, schema=SCHEMA))


def write_parts(directory: Path, records: pa.Table, target: int, *, host=HOST) -> list[Path]:
    """The parts of `records`, written in random order and named by it."""
    chunks = list(plan_chunks(records.num_rows, storage_rows=7, target=target))
    random.Random(target).shuffle(chunks)
    paths = []
    for chunk in chunks:
        path = directory / f"{len(paths)}.arrows"
        write_part(path, [records.slice(chunk.start, chunk.stop - chunk.start)], host)
        paths.append(path)
    return paths


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_part_has_the_same_bytes_each_time_and_carries_its_fingerprint(tmp_path):
    records = make_records(50)
    write_part(tmp_path / "a.arrows", [records], HOST)
    write_part(tmp_path / "b.arrows", [pa.concat_tables([records.slice(0, 20), records.slice(20)])], HOST)
    assert sha256(tmp_path / "a.arrows") == sha256(tmp_path / "b.arrows")
    chunk = Chunk(tmp_path / "a.arrows")
    assert pa.Table.from_batches(chunk.batches()).equals(records)
    assert read_told(chunk.told, tmp_path).fingerprint == HOST


def test_the_first_commit_of_a_part_stays(tmp_path):
    write_part(tmp_path / "a.arrows", [make_records(5)], HOST)
    write_part(tmp_path / "a.arrows", [make_records(6)], HOST)
    assert [len(batch) for batch in Chunk(tmp_path / "a.arrows").batches()] == [5]
    assert [path.name for path in tmp_path.iterdir()] == ["a.arrows"]


def test_the_fingerprint_names_versions_libm_and_vector_extensions():
    found = fingerprint()
    assert set(found) == {"numba", "llvmlite", "numpy", "pyarrow", "libm", "cpu"}
    assert found["numpy"] == np.__version__
    assert all(found.values())


def test_merged_bytes_do_not_depend_on_the_chunks_nor_on_their_order(tmp_path, monkeypatch):
    # Row groups smaller than some chunks and larger than others.
    monkeypatch.setattr(merge, "ROW_GROUP", 64)
    records = make_records(500)
    digests = set()
    for target in (7, 50, 64, 130, 500):
        parts = write_parts(
            tmp_path / f"parts-{target}", records, target, host={**HOST, "numpy": str(target)}
        )
        final = tmp_path / f"dataset-{target}"
        merge_parts(parts, final, n_events=500, manifest_fields=FIELDS)
        digests.add(sha256(final / "events.parquet"))
    assert len(digests) == 1
    with pq.ParquetFile(final / "events.parquet") as file:
        assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [
            64
        ] * 7 + [52]
        assert file.read().equals(records.select(SCHEMA.names))
        assert not file.schema_arrow.metadata


def test_the_manifest_counts_labels_jets_and_hosts(tmp_path):
    records = make_records(100)
    parts = write_parts(tmp_path / "a", records.slice(0, 49), 25)
    write_part(tmp_path / "b.arrows", [records.slice(49)], {**HOST, "numpy": "2.1"})
    manifest = merge_parts(
        [tmp_path / "b.arrows", *parts], tmp_path / "mini", n_events=100, manifest_fields=FIELDS
    )
    assert manifest == read_manifest(tmp_path / "mini", what="dataset", remedy="")
    verify_files(tmp_path / "mini", manifest)
    assert manifest["rows"] == 100
    assert manifest["labels"] == {"signal": 33, "background": 34, "unknown": 33}
    n_jets = records["n_jets"].to_pylist()
    assert manifest["events_by_n_jets"] == {str(count): n_jets.count(count) for count in range(4)}
    assert manifest["fingerprints"] == [{**HOST, "parts": 2}, {**HOST, "numpy": "2.1", "parts": 1}]
    assert FIELDS.items() <= manifest.items()


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([0, 2, 3], r"mini: 25 rows are in no chunk \(25-49\)\. Run `lhcq retry mini`"),
        ([0, 1, 1, 2, 3], r"mini: 25 rows are there more than once \(25-49\)"),
        ([0, 1, 2, 3, 4], r"mini: 25 rows are not in the source \(100-124\)"),
        ([0, 2, 2], r"50 rows are in no chunk \(25-49, 75-99\); 25 rows are there more than once \(50-74\)"),
        ([], r"mini: 100 rows are in no chunk \(0-99\)"),
    ],
)
def test_a_merge_that_does_not_cover_every_row_once_is_refused_and_says_which(tmp_path, kept, message):
    records = make_records(125)
    paths = [tmp_path / f"{index}.arrows" for index in range(5)]
    for index, path in enumerate(paths):
        write_part(path, [records.slice(25 * index, 25)], HOST)
    with pytest.raises(ChunkMissing, match=message):
        merge_parts([paths[index] for index in kept], tmp_path / "mini", n_events=100, manifest_fields=FIELDS)
    assert not (tmp_path / "mini").exists()


def test_parts_that_interleave_are_refused(tmp_path):
    records = make_records(20)
    for name, kept in (("even", range(0, 20, 2)), ("odd", range(1, 20, 2))):
        write_part(tmp_path / name, [records.take(list(kept))], HOST)
    with pytest.raises(BadInput, match="mini: the chunks overlap or are not in order of row"):
        merge_parts([tmp_path / "even", tmp_path / "odd"], tmp_path / "mini", n_events=20, manifest_fields={})


def test_a_part_that_is_absent_or_damaged_is_named(tmp_path):
    write_part(tmp_path / "a.arrows", [make_records(10)], HOST)
    with pytest.raises(ChunkMissing, match=r"gone\.arrows: the chunk is not there"):
        merge_parts(
            [tmp_path / "a.arrows", tmp_path / "gone.arrows"],
            tmp_path / "mini",
            n_events=10,
            manifest_fields={},
        )
    (tmp_path / "torn.arrows").write_bytes((tmp_path / "a.arrows").read_bytes()[:-100])
    with pytest.raises(BadInput, match=r"torn\.arrows: damaged, or no chunk"):
        merge_parts([tmp_path / "torn.arrows"], tmp_path / "mini", n_events=10, manifest_fields={})
    for other in (pa.table({"row": [1]}), make_records(1).select(SCHEMA.names)):
        (tmp_path / "other.arrows").unlink(missing_ok=True)
        write_part(tmp_path / "other.arrows", [other], HOST)
        with pytest.raises(BadInput, match=r"other\.arrows: has other columns"):
            merge_parts([tmp_path / "other.arrows"], tmp_path / "mini", n_events=1, manifest_fields={})
    pq.write_table(make_records(10), tmp_path / "unsigned.arrows")
    with pytest.raises(BadInput, match=r"unsigned\.arrows: damaged, or no chunk"):
        merge_parts([tmp_path / "unsigned.arrows"], tmp_path / "mini", n_events=10, manifest_fields={})


def test_of_many_parts_the_one_with_an_impossible_label_is_named(tmp_path):
    records = make_records(30)
    place = records.schema.get_field_index("label")
    field = records.schema.field(place)
    paths = [tmp_path / f"{index}.arrows" for index in range(4)]
    for path, start, size, label in zip(paths, (0, 10, 10, 20), (10, 0, 10, 10), (0, 0, 7, 1), strict=True):
        labels = pa.array([label] * size, field.type)
        write_part(path, [records.slice(start, size).set_column(place, field, labels)], HOST)
    with pytest.raises(DamagedChunk, match="has the label 7") as raised:
        merge_parts(paths, tmp_path / "mini", n_events=30, manifest_fields={})
    assert raised.value.path == paths[2]


def test_a_second_merge_gives_the_standing_manifest_even_without_its_parts(tmp_path):
    parts = write_parts(tmp_path / "parts", make_records(20), 10)
    first = merge_parts(parts, tmp_path / "mini", n_events=20, manifest_fields=FIELDS)
    assert merge_parts([], tmp_path / "mini", n_events=20, manifest_fields=FIELDS) == first
    with pytest.raises(NameTaken, match=r"mini: the dataset exists already, with another config"):
        merge_parts(parts, tmp_path / "mini", n_events=20, manifest_fields={**FIELDS, "config": {}})


def test_a_dataset_may_have_no_events(tmp_path):
    write_part(tmp_path / "a.arrows", [make_records(0)], HOST)
    manifest = merge_parts([tmp_path / "a.arrows"], tmp_path / "mini", n_events=0, manifest_fields={})
    assert (manifest["rows"], manifest["events_by_n_jets"]) == (0, {})
    assert pq.read_table(tmp_path / "mini" / "events.parquet").num_rows == 0


@needs_data
def test_the_real_file_has_the_same_bytes_whatever_the_chunks(tmp_path):
    import h5py
    import hdf5plugin  # noqa: F401

    with h5py.File(Path(DATA) / "events_anomalydetection_tiny.h5") as file:
        values = file["df/block0_values"][:]
    particles, labels = values[:, :2100].reshape(-1, 700, 3), values[:, 2100].astype(np.int8)
    digests, manifests = set(), []
    for target in (1000, 130):
        paths = []
        for chunk in reversed(plan_chunks(1000, storage_rows=7, target=target)):
            rows = np.arange(chunk.start, chunk.stop)
            table = cluster_events(particles[rows], ClusterConfig(), rows=rows, labels=labels[rows])
            paths.append(tmp_path / str(target) / f"{chunk.index}.arrows")
            write_part(paths[-1], [told_apart(table)], fingerprint())
        final = tmp_path / f"tiny-{target}"
        manifests.append(merge_parts(paths, final, n_events=1000, manifest_fields=FIELDS))
        digests.add(sha256(final / "events.parquet"))
    assert len(digests) == 1
    assert manifests[0]["labels"] == {"signal": 93, "background": 907, "unknown": 0}
