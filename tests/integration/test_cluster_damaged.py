"""Clustering what cannot all be used, labels from elsewhere, and going on after a kill that spares nothing."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pyarrow as pa
import pytest

from lhcq.config import ClusterConfig
from lhcq.events.layout import open_event_file, read_rows
from lhcq.events.pytables import create_frame
from lhcq.jets.clustering import cluster_events
from lhcq.jets.merge import merge_parts
from lhcq.jets.parts import Gap, fingerprint, read_told, write_part
from lhcq.records.chunks import Chunk
from tests.made_chunks import told_apart

N_EVENTS = 2100
VALUES = "df/block0_values"
OPTIONS = ("--features", "jets", "--events-per-chunk", "70")  # 30 chunks of 10 storage chunks
MARK = {"marked": "a part that was there before"}


@pytest.fixture(scope="module")
def lhcq(running, tmp_path_factory) -> Iterator[Any]:
    """The program with workers that stay, in one workspace for the whole module."""
    with running(tmp_path_factory.mktemp("damaged") / "workspace") as program:
        up = program.start("up", "--workers", "2", "--no-gpu")
        while "Ctrl-C" not in (line := up.stdout.readline()):
            assert line, up.stderr.read()
        yield program


@pytest.fixture(scope="module")
def records(event_file) -> pa.Table:
    """The clustered events of the undamaged file, as a chunk has them, made in this process."""
    block = read_rows(open_event_file(event_file), 0, N_EVENTS)
    return told_apart(cluster_events(block.particles, ClusterConfig(), rows=block.rows, labels=block.labels))


@pytest.fixture(scope="module")
def merged_without(records, tmp_path_factory) -> Callable[..., bytes]:
    """The bytes of the undamaged file's dataset without some of its rows."""

    def merge(start: int, stop: int, labels: Any = None) -> bytes:
        place = tmp_path_factory.mktemp("expected")
        kept = [*range(start), *range(stop, N_EVENTS)]
        gaps = [Gap(start=start, stop=stop, reason="left out.")] if stop > start else []
        write_part(place / "part", [records.take(pa.array(kept))], fingerprint(), gaps)
        merge_parts(
            [place / "part"],
            place / "dataset",
            n_events=N_EVENTS,
            manifest_fields={},
            tolerate=1.0,
            labels=labels,
        )
        return (place / "dataset" / "events.parquet").read_bytes()

    return merge


def damage(path: Path, index: int) -> None:
    """Flip bytes in the middle of a file, at the head of one storage chunk."""
    with h5py.File(path) as file:
        stored = file[VALUES].id.get_chunk_info(index)
    with path.open("r+b") as stream:
        stream.seek(stored.byte_offset)
        head = stream.read(64)
        stream.seek(stored.byte_offset)
        stream.write(bytes(byte ^ 0xFF for byte in head))


def parts_of(lhcq, name: str) -> list[Path]:
    return sorted((lhcq.workspace / f"jobs/cluster-{name}/parts").rglob("[0-9]*.arrows"))


def mark_parts(lhcq, name: str) -> int:
    """Have the parts that stand say so in the manifest, should they be what is merged; gives their number."""
    paths = parts_of(lhcq, name)
    for path in paths:
        chunk = Chunk(path)
        table, gaps = pa.Table.from_batches(chunk.batches()), read_told(chunk.told, path).gaps
        path.unlink()
        write_part(path, [table], MARK, gaps)
    return len(paths)


def dataset_of(lhcq, name: str) -> tuple[bytes, dict[str, Any]]:
    directory = lhcq.workspace / "datasets" / name
    return (directory / "events.parquet").read_bytes(), json.loads((directory / "manifest.json").read_text())


def leftovers(lhcq) -> list[Path]:
    return [path for path in lhcq.workspace.rglob("*") if path.name.endswith(".tmp")]


def test_a_damaged_storage_chunk_costs_its_rows_and_a_tolerance_goes_on_from_there(
    lhcq, event_file, merged_without, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.h5"
    shutil.copy(event_file, path)
    damage(path, 150)
    command = ("cluster", path, "--name", "hurt", *OPTIONS)

    line = lhcq.refused(*command, code=3)
    assert "hurt: 7 of 2,100 rows cannot be used (1050-1056): " in line
    assert f"{path}: rows 1050 to 1056 cannot be read, the file is damaged there" in line
    assert "--tolerate 0.003334 leaves these out." in line
    (job,) = lhcq.ask("status")["jobs"]
    assert (job["state"], job["done"], job["total"]) == ("incomplete", 30, 30)
    assert "(1050-1056)" in job["message"]
    assert not (lhcq.workspace / "datasets/hurt").exists()

    assert mark_parts(lhcq, "hurt") == 30
    before = [(part.stat().st_ino, part.stat().st_mtime_ns) for part in parts_of(lhcq, "hurt")]
    result = lhcq.run(*command, "--tolerate", "0.0033", "--json", code=3)
    told = json.loads(result.stdout)
    assert (told["job"], told["state"]) == ("cluster hurt", "incomplete")
    assert "7 of 2,100 rows" in told["message"]
    assert told["message"].endswith("leaves these out.")  # the same command again would not help
    assert "leaves these out." in lhcq.refused("retry", "hurt")
    recipe = tmp_path / "hurt.toml"
    recipe.write_text(
        f'name = "hurt"\n[cluster]\nfile = "{path}"\nfeatures = "jets"\nevents_per_chunk = 70\ntolerate = 0.0033\n'
    )
    pipeline = lhcq.run("run", recipe, "--json", code=3)
    assert json.loads(pipeline.stdout) == {"stages": [], "ended": [told]}  # one object
    assert [(part.stat().st_ino, part.stat().st_mtime_ns) for part in parts_of(lhcq, "hurt")] == before

    answer = lhcq.ask(*command, "--tolerate", "0.1")
    (gap,) = answer["gaps"]
    assert (gap["start"], gap["stop"]) == (1050, 1057)
    assert str(path) in gap["reason"]
    assert answer["rows"] == 2093
    assert answer["labels"] == {"signal": 1047, "background": 1046, "unknown": 0}
    events, manifest = dataset_of(lhcq, "hurt")
    assert manifest["gaps"] == answer["gaps"]
    assert manifest["fingerprints"] == [{**MARK, "parts": 30}]  # nothing was done again
    assert events == merged_without(1050, 1057)
    assert leftovers(lhcq) == []


def test_an_event_of_absurd_values_is_refused_and_left_out_alone_when_tolerated(
    lhcq, event_file, merged_without, tmp_path: Path
) -> None:
    path = tmp_path / "absurd.h5"
    shutil.copy(event_file, path)
    with h5py.File(path, "r+") as file:
        file[VALUES][500, 3] = np.nan
        file[VALUES][500, 6] = 1e30
    command = ("cluster", path, "--name", "absurd", *OPTIONS)
    lhcq.run(*command, "--tolerate", "nan", code=2)

    line = lhcq.refused(*command)
    assert f"{path}: row 500, pt of particle 1: not a number (nan)." in line
    assert "--tolerate" in line
    assert not (lhcq.workspace / "datasets/absurd").exists()
    assert mark_parts(lhcq, "absurd") == 29

    done = lhcq.run(*command, "--tolerate", "0.001")
    assert "rows left out, since they cannot be used: 1 (the manifest lists them)" in done.stdout
    events, manifest = dataset_of(lhcq, "absurd")
    assert events == merged_without(500, 501)
    assert [(gap["start"], gap["stop"]) for gap in manifest["gaps"]] == [(500, 501)]
    assert "row 500, pt of particle 1: not a number" in manifest["gaps"][0]["reason"]
    assert manifest["rows"] == 2099
    assert {**MARK, "parts": 29} in manifest["fingerprints"]
    assert sum(host["parts"] for host in manifest["fingerprints"]) == 30


def test_a_master_key_labels_the_events_of_a_black_box_that_can_be_read(
    lhcq, event_file, merged_without, tmp_path: Path
) -> None:
    box, key = tmp_path / "box.h5", tmp_path / "box.masterkey"
    with h5py.File(event_file) as labelled, h5py.File(box, "w", libver="earliest") as file:
        values = create_frame(file, rows=N_EVENTS, width=2100, storage_rows=7)
        values[:] = labelled[VALUES][:, :2100]
    damage(box, 3)
    labels = (np.arange(N_EVENTS) % 5 == 2).astype(np.int8)
    key.write_text("".join(f"{label}\n" for label in labels))
    short = tmp_path / "short.masterkey"
    short.write_text("0\n1\n" * 1049 + "0\n")

    for file, labels_file, expected in (
        (box, short, f"{short}: 2099 lines for 2100 events"),
        (event_file, key, f"{event_file}: has labels of its own. Leave --labels out."),
    ):
        assert expected in lhcq.refused("cluster", file, "--name", "box", "--labels", labels_file, *OPTIONS)
    assert not (lhcq.workspace / "jobs/cluster-box").exists()

    command = ("cluster", box, "--name", "box", *OPTIONS)
    assert "(21-27)" in lhcq.refused(*command, "--labels", key, code=3)
    short.write_text("0\n" * N_EVENTS)
    assert "labels_sha256" in lhcq.refused(*command, "--labels", short, "--tolerate", "0.01")
    moved = key.rename(tmp_path / "moved.masterkey")
    answer = lhcq.ask(*command, "--labels", moved, "--tolerate", "0.01")
    assert answer["labels"] == {"signal": 418, "background": 1675, "unknown": 0}
    assert dataset_of(lhcq, "box")[0] == merged_without(21, 28, labels)


def test_after_a_kill_of_everything_only_what_is_missing_is_done_wherever_the_file_is_now(
    running, event_file, merged_without, until, kill_group, tmp_path: Path
) -> None:
    source = tmp_path / "events.h5"
    shutil.copy(event_file, source)
    options = ("--name", "cut", "--features", "jets", "--workers", "1", "--events-per-chunk", "21")
    with running(tmp_path / "workspace") as lhcq:
        process = lhcq.start("cluster", source, *options)
        until(lambda: len(parts_of(lhcq, "cut")) >= 5, "the first parts")
        for one in [*lhcq.workers(), *lhcq.processes()]:
            kill_group(one, signal.SIGKILL)
        process.communicate()
        until(lambda: not lhcq.processes(), "everything to be gone")
        n_kept = mark_parts(lhcq, "cut")
        assert 5 <= n_kept < 100

        directory = lhcq.workspace / "jobs/cluster-cut"
        line = lhcq.refused("cluster", source, *options, "--radius", "0.5")
        assert "(--radius 0.5, was 1.0)" in line
        other = tmp_path / "other.h5"
        shutil.copy(source, other)
        with h5py.File(other, "r+") as file:
            file[VALUES][0, 0] += 1.0
        line = lhcq.refused("cluster", other, *options)
        assert "another configuration or input (source_sha256 " in line
        assert "Choose another name, or end it by `lhcq cancel cut --kind cluster`." in line
        assert len(parts_of(lhcq, "cut")) == n_kept

        (tmp_path / "elsewhere").mkdir()
        moved = source.rename(tmp_path / "elsewhere" / "moved.h5")
        os.utime(moved, (1e9, 1e9))
        assert lhcq.ask("cluster", moved, *options)["gaps"] == []
        events, manifest = dataset_of(lhcq, "cut")
        assert events == merged_without(0, 0)
        assert manifest["source"] == str(moved)
        assert {**MARK, "parts": n_kept} in manifest["fingerprints"]
        assert sum(host["parts"] for host in manifest["fingerprints"]) == 100
        assert leftovers(lhcq) == []
        assert not list(directory.glob("failed/*"))
