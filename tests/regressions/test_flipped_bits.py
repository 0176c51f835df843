"""One bit that flips on a disk: a part with one is never merged, a result with one is never read."""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from lhcq.cli.main import cli
from lhcq.config import ClusterConfig, GenerateConfig, SplitConfig
from lhcq.errors import BadInput, ChunkAgain
from lhcq.evaluate.baseline import fit_baseline
from lhcq.evaluate.predictions import read_parts, write_prediction, write_scored
from lhcq.events.layout import write_event_file
from lhcq.events.pythia import assemble, plan_parts
from lhcq.events.pythia import write_part as write_generated
from lhcq.jets.clustering import cluster_events
from lhcq.jets.merge import merge_parts
from lhcq.jets.parts import Gap, fingerprint, write_part
from lhcq.manifests import verify_files
from lhcq.prompts.writing import write_split
from lhcq.records import chunks
from lhcq.records.chunks import Chunk, write_chunk
from lhcq.records.jobs import Job
from lhcq.requests.cluster import cluster_request, find_events
from lhcq.storage import MANIFEST, read_json
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.client import do_here
from tasks.jobs.kinds import chunk_path
from tasks.jobs.leases import NoLease
from tasks.jobs.planner import pending_units
from tasks.jobs.store import create_job
from tests.made_chunks import told_apart

N_FLIPS = 300
N_EVENTS = 200


def records(n_events: int = N_EVENTS) -> pa.Table:
    random = np.random.Generator(np.random.PCG64(1))
    particles = np.zeros((n_events, 700, 3))
    particles[:, :20, 0] = random.exponential(50.0, (n_events, 20)) + 1.0
    particles[:, :20, 1:] = random.normal(0.0, 1.0, (n_events, 20, 2))
    labels = (np.arange(n_events) % 2).astype(np.int8)
    return cluster_events(particles, ClusterConfig(features="full"), rows=np.arange(n_events), labels=labels)


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def refuses_every_flip(path: Path, read: Callable[[], Any]) -> bool:
    """Whether `read` refuses the file with any one of many bits flipped, the last and the first among them."""
    size = 8 * path.stat().st_size
    for bit in {0, size - 1, *Random(2).sample(range(size), N_FLIPS)}:
        flip(path, bit)
        with pytest.raises(BadInput):
            read()
        flip(path, bit)
    read()
    return True


def test_a_part_of_a_clustering(tmp_path: Path) -> None:
    part, final = tmp_path / "part", tmp_path / "made"
    write_part(part, [told_apart(records(30))], fingerprint(), [Gap(start=30, stop=31, reason="damaged.")])

    def merge() -> None:
        merge_parts([part], final, n_events=31, manifest_fields={}, features="full", tolerate=0.1)
        shutil.rmtree(final)

    assert refuses_every_flip(part, merge)


def test_a_part_of_a_prediction(tmp_path: Path) -> None:
    part, final = tmp_path / "part", tmp_path / "made"
    values: Any = np.linspace(0.01, 0.99, 30)
    write_scored(part, rows=range(30), labels=None, mjj=None, p_signal=values, answers=np.zeros(30, np.int8))

    def merge() -> None:
        options: Any = {"n_events": 30, "largest_p_value": 0.5, "of": "", "fields": {}, "page": lambda _: ""}
        write_prediction(final, read=lambda: (read_parts([part]), read_parts([part])), **options)
        shutil.rmtree(final)

    assert refuses_every_flip(part, merge)


def test_a_part_of_generated_events(tmp_path: Path) -> None:
    config = GenerateConfig(background=2, signal=0)
    (planned,) = plan_parts(config)
    part, out = tmp_path / "part.npy", tmp_path / "events.h5"
    particles = np.random.default_rng(1).uniform(0.5, 1.0, (2, 700, 3))
    write_generated(part, particles, np.full(planned.n_events, planned.label, np.int8))

    def merge() -> None:
        assemble(config, [part], out)
        out.unlink()

    assert refuses_every_flip(part, merge)


def test_a_flipped_bit_costs_its_chunk_alone_and_changes_no_byte(place: Workspace, tmp_path: Path) -> None:
    particles = np.random.default_rng(1).uniform(0.5, 1.0, (30, 700, 3))
    source = tmp_path / "events.h5"
    write_event_file(source, [(particles, np.arange(30) % 2)], 30, storage_rows=1)

    def request(name: str) -> Job:
        config = ClusterConfig(features="jets")
        events = find_events(place, source, config)
        return cluster_request(place, events, name, config, key=None, tolerate=0.0, chunk=10)

    do_here(place, request("whole"))
    job = create_job(place, request("made"))
    for unit in pending_units(place, job):
        app.tasks[unit.task].work(place, job, unit, NoLease())
    chunks = [chunk_path(place, job, index) for index in range(3)]
    written = [path.stat().st_mtime_ns for path in chunks]
    spoil(chunks[1])
    with pytest.raises(ChunkAgain, match="chunk 1 was damaged"):
        do_here(place, request("made"))
    assert [path.exists() for path in chunks] == [True, False, True]
    assert [path.stat().st_mtime_ns for path in (chunks[0], chunks[2])] == [written[0], written[2]]
    assert do_here(place, request("made")).state == "done"
    made, whole = (place.dataset(name) / "events.parquet" for name in ("made", "whole"))
    assert made.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("block", [64, 1 << 20], ids=["in blocks", "at once"])
def test_a_seal_is_of_the_whole_file_and_leaves_it_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(chunks, "_BLOCK", block)
    path = tmp_path / "table"
    batches = pa.table({"x": range(1000)}).to_batches(max_chunksize=300)
    write_chunk(path, batches[0].schema, batches, lambda: {"n": 4})
    assert Chunk(path).told == b'{"n": 4}'
    assert list(Chunk(path).batches()) == batches
    assert pa.ipc.open_stream(path.read_bytes()).read_all() == pa.Table.from_batches(batches)
    whole = path.read_bytes()
    for content in (b"", b"00000000", whole[:-9], whole[:-8] + b"00000000", whole[8:], whole + b"0"):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="damaged, or no chunk that this lhcq wrote"):
            Chunk(path)


@pytest.fixture
def finished(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with a dataset and a split of it."""
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    part = place.root / "part"
    write_part(part, [told_apart(records())], fingerprint())
    fields = {"name": "made", "source": "made", "source_sha256": "0" * 64, "config": None}
    merge_parts([part], place.dataset("made"), n_events=N_EVENTS, manifest_fields=fields, features="full")
    write_split(place.dataset("made"), place.split("made"), config=SplitConfig())
    return place


def spoil(path: Path) -> None:
    """Flip a bit of a value in the middle, which a reader of parquet may well not see."""
    flip(path, 4 * path.stat().st_size)


@pytest.mark.parametrize(
    "command",
    [
        ("plot", "made"),
        *(
            ("export", "made", "--format", name, "--out", "out")
            for name in ("csv", "parquet", "jsonl", "lhco-features")
        ),
    ],
    ids=" ".join,
)
def test_a_dataset_with_a_flipped_bit_is_read_by_no_command(
    finished: Workspace, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    spoil(finished.dataset("made") / "events.parquet")
    done = CliRunner().invoke(cli, list(command), standalone_mode=False)
    assert "differs from its manifest (sha256). Make made again." in str(done.exception)
    assert not list((tmp_path / "out").iterdir())


def test_a_dataset_with_a_flipped_bit_becomes_no_prompts(finished: Workspace) -> None:
    spoil(finished.dataset("made") / "events.parquet")
    with pytest.raises(BadInput, match="differs from its manifest"):
        write_split(finished.dataset("made"), finished.split("again"), config=SplitConfig())
    assert not finished.split("again").exists()


def test_a_split_with_a_flipped_bit_teaches_nothing(finished: Workspace) -> None:
    spoil(finished.split("made") / "train.parquet")
    with pytest.raises(BadInput, match=r"train\.parquet: differs from its manifest"):
        fit_baseline(finished.split("made"), finished.baseline("made"))
    assert not finished.baseline("made").exists()


def test_a_file_is_hashed_once_a_process_and_again_when_it_was_written_to(
    finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = finished.dataset("made")
    manifest = read_json(directory / MANIFEST)
    verify_files(directory, manifest)
    monkeypatch.setattr("lhcq.manifests.sha256_of", lambda path: pytest.fail(f"{path} was hashed again"))
    verify_files(directory, manifest)
    monkeypatch.undo()
    spoil(directory / "events.parquet")
    with pytest.raises(BadInput, match="differs from its manifest"):
        verify_files(directory, manifest)
    assert read_json(directory / MANIFEST) == manifest
