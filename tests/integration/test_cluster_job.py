"""Clustering as a job: the real data's figures, the same bytes whatever happens on the way."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.collector import Collector, collecting

CHUNKS = ("--events-per-chunk", "21")  # 100 chunks of the made-up file
MANY = ("--events-per-chunk", "7")  # 300: workers look once a second whether their command is there


def dataset_bytes(lhcq, name: str) -> bytes:
    return (lhcq.workspace / "datasets" / name / "events.parquet").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(compiled_loops, event_file, tmp_path_factory) -> bytes:
    """The dataset of the made-up file, made in this process without any queue."""
    from lhcq.config import CLUSTER_PRESETS
    from lhcq.events.contents import hash_events
    from lhcq.events.layout import open_event_file, read_rows
    from lhcq.jets.clustering import cluster_events
    from lhcq.jets.merge import merge_parts
    from lhcq.jets.parts import fingerprint, with_contents, write_part

    config = CLUSTER_PRESETS["lhco"]
    place = tmp_path_factory.mktemp("serial")
    block = read_rows(open_event_file(event_file), 0, 2100)
    table = cluster_events(block.particles, config, rows=block.rows, labels=block.labels)
    contents = hash_events(block.particles, block.n_particles)
    write_part(place / "000000.arrows", [with_contents(table, contents)], fingerprint())
    merge_parts(
        [place / "000000.arrows"],
        place / "dataset",
        n_events=2100,
        manifest_fields={},
        features=config.features,
        axes=config.axes,
    )
    return (place / "dataset" / "events.parquet").read_bytes()


@pytest.fixture(scope="module")
def traced(event_file, running, tmp_path_factory) -> Iterator[tuple[Any, Collector]]:
    """A clustering into three parts by one worker, and the spans that it sent."""
    with running(tmp_path_factory.mktemp("traced") / "workspace") as program, collecting() as collector:
        arguments = ("--name", "one", "--workers", "1", "--events-per-chunk", "700")
        program.run("cluster", event_file, *arguments, **collector.environment)
        yield program, collector


def test_the_real_file_gives_its_known_counts(lhcq, test_data: Path) -> None:
    source = test_data / "events_anomalydetection_tiny.h5"
    answer = lhcq.ask("cluster", source, "--name", "tiny")
    assert answer["rows"] == 1000
    assert answer["labels"] == {"signal": 93, "background": 907, "unknown": 0}
    table = pq.read_table(lhcq.workspace / "datasets" / "tiny" / "events.parquet")
    assert table["row"].to_pylist() == list(range(1000))
    assert max(map(len, table["jets"].to_pylist())) == 2

    lhcq.cluster_here(source, "hard", pt_min=1200.0, max_jets=None)
    hard = lhcq.inside("cluster", source, "--name", "hard", "--pt-min", "1200", "--max-jets", "0", "--json")
    assert json.loads(hard.stdout)["events_by_n_jets"] == {"1": 362, "2": 637, "3": 1}  # done already
    jets = pq.read_table(lhcq.workspace / "datasets" / "hard" / "events.parquet")["jets"].to_pylist()
    assert [sum(len(event) == n for event in jets) for n in range(4)] == [0, 362, 637, 1]


def test_bytes_do_not_depend_on_workers_chunks_or_traces(lhcq, event_file, undisturbed, traced) -> None:
    with collecting() as collector:
        collector.answers.clear()  # one that takes spans and never says so
        never = {**collector.environment, "OTEL_EXPORTER_OTLP_TIMEOUT": "3600"}
        lhcq.run("cluster", event_file, "--name", "two", "--workers", "2", *CHUNKS, **never)
    assert dataset_bytes(traced[0], "one") == undisturbed
    assert dataset_bytes(lhcq, "two") == undisturbed
    manifest = json.loads((lhcq.workspace / "datasets" / "two" / "manifest.json").read_text())
    assert manifest["rows"] == 2100
    assert sum(fingerprint["parts"] for fingerprint in manifest["fingerprints"]) == 100


def test_one_trace_leads_from_the_command_to_every_part_and_the_merge(traced) -> None:
    _, collector = traced
    (root,) = [span for span in collector.spans if not span.parent]
    (publishing,) = collector.under(root)
    units = collector.under(publishing)
    assert len(collector.spans) == 2 + len(units)
    assert (root.name, root.told["lhcq.job"], root.told["lhcq.exit_code"]) == (
        "lhcq cluster",
        "cluster one",
        0,
    )
    assert (publishing.name, publishing.told["lhcq.units"]) == ("publish", 3)
    done = {(unit.name, unit.told.get("lhcq.part")): unit.told["lhcq.events"] for unit in units}
    assert done == {
        **{("lhcq.cluster_part", part): 700 for part in range(3)},
        ("lhcq.cluster_merge", None): 2100,
    }
    for unit in units:
        facts = [unit.told[f"lhcq.{name}"] for name in ("job", "attempt", "queue", "status")]
        assert facts == ["cluster one", 1, "cpu.again" if unit.name.endswith("_merge") else "cpu", "done"]
        assert unit.told["lhcq.worker"].startswith("cpu-")
        assert unit.told["host.name"] == socket.gethostname()
        assert unit.told["process.pid"] != root.told["process.pid"] == publishing.told["process.pid"]
    assert {span.error for span in collector.spans} == {None}


@pytest.mark.torture  # tests/faults kills workers at all places
def test_a_worker_killed_in_the_middle_changes_nothing(
    lhcq, event_file, undisturbed, until, kill_group
) -> None:
    process = lhcq.start("cluster", event_file, "--name", "killed", "--workers", "1", *CHUNKS)
    parts = lhcq.workspace / "jobs" / "cluster-killed" / "parts"
    until(lambda: len(list(parts.rglob("*.arrows"))) >= 3, "the first parts")
    worker = lhcq.workers()[0]
    kill_group(worker, signal.SIGKILL)
    assert len(list(parts.rglob("*.arrows"))) < 100
    done = lhcq.finish(process)
    assert done.returncode == 0, done.stderr
    assert dataset_bytes(lhcq, "killed") == undisturbed


def test_after_a_kill_of_the_command_the_same_command_goes_on(
    lhcq, event_file, undisturbed, until, kill_group
) -> None:
    process = lhcq.start("cluster", event_file, "--name", "again", "--workers", "1", *MANY)
    parts = lhcq.workspace / "jobs" / "cluster-again" / "parts"
    until(lambda: len(list(parts.rglob("*.arrows"))) >= 3, "the first parts")
    process.kill()
    process.communicate()
    until(lambda: not lhcq.workers(), "the workers to notice that their command is gone")
    kept = {path.name: path.stat().st_mtime_ns for path in parts.rglob("*.arrows")}
    assert 3 <= len(kept) < 300
    lhcq.run("cluster", event_file, "--name", "again", "--workers", "1", *MANY)
    assert dataset_bytes(lhcq, "again") == undisturbed
    until(lambda: not lhcq.processes(), "the broker and the workers to stop")


def test_ctrl_c_stops_everything_and_says_how_to_go_on(lhcq, event_file, undisturbed, until) -> None:
    process = lhcq.start("cluster", event_file, "--name", "stopped", "--workers", "1", *CHUNKS)
    parts = lhcq.workspace / "jobs" / "cluster-stopped" / "parts"
    until(lambda: len(list(parts.rglob("*.arrows"))) >= 1, "the first part")
    process.send_signal(signal.SIGINT)
    done = lhcq.finish(process)
    assert done.returncode == 130
    assert "Run the same command again to go on." in done.stderr
    assert "Traceback" not in done.stderr
    assert not lhcq.processes()
    assert lhcq.ask("status")["jobs"][0]["state"] == "open"
    lhcq.run("cluster", event_file, "--name", "stopped", *CHUNKS)
    assert dataset_bytes(lhcq, "stopped") == undisturbed


def test_a_lone_chunk_of_wrong_values_ends_the_job_in_one_line(lhcq, tmp_path: Path) -> None:
    import h5py

    from lhcq.events.layout import write_event_file

    bad = tmp_path / "bad.h5"
    particles, labels = _events(70)
    write_event_file(bad, [(particles, labels)], 70, storage_rows=7)
    with h5py.File(bad, "r+") as file:
        file["df/block0_values"][33, 0] = -5.0
    line = lhcq.refused("cluster", bad, "--name", "bad", *CHUNKS)
    assert "33" in line
    assert not (lhcq.workspace / "datasets" / "bad").exists()
    with h5py.File(bad, "r+") as file:
        file["df/block0_values"][33, 0] = 5.0
    lhcq.run("cluster", bad, "--name", "bad", *CHUNKS)  # the name is free again


def _events(n_events: int):
    import numpy as np

    particles = np.zeros((n_events, 700, 3))
    particles[:, :2] = [[600.0, 0.1, 0.2], [500.0, -0.3, -2.9]]
    return particles, (np.arange(n_events) % 2).astype(np.int8)


def test_labels_of_another_type_and_events_that_stand_there_twice_are_told(
    lhcq, event_file, tmp_path: Path
) -> None:
    path = tmp_path / "twice.h5"
    with h5py.File(event_file) as given, h5py.File(path, "w") as file:
        values = given["df/block0_values"][:60]
        values[50:, :2100] = values[:10, :2100]
        values[50:53, 2100] = 1 - values[:3, 2100]
        file["df/axis0"] = np.arange(2101)
        file["df/block0_items"], file["df/block0_values"] = np.array([2100]), values[:, 2100:].astype(int)
        file["df/block1_items"], file["df/block1_values"] = np.arange(2100), values[:, :2100]
    told = (
        "10 rows repeat 10 earlier events (row 50 is row 0, row 51 is row 1, row 52 is row 2, ...); "
        "3 of these events with contradictory labels"
    )
    assert f"problem: {told}." in lhcq.run("inspect", path, code=1).stdout
    assert f"  {told}: a split keeps them together" in lhcq.run("cluster", path, "--name", "twice").stdout
    n_signal = int(values[:, 2100].sum())
    manifest = json.loads((lhcq.workspace / "datasets/twice/manifest.json").read_text())
    assert manifest["labels"] == {"signal": n_signal, "background": 60 - n_signal, "unknown": 0}
    counts = {name: manifest["duplicates"][name] for name in ("rows", "events", "contradictory")}
    assert counts == {"rows": 10, "events": 10, "contradictory": 3}
    listed = pq.read_table(lhcq.workspace / "datasets/twice/duplicates.parquet").to_pylist()
    assert listed == [{"row": 50 + row, "first": row} for row in range(10)]


def test_export_writes_the_two_files_of_the_study(inside, event_file, tmp_path: Path) -> None:
    inside.cluster_here(event_file, "made")
    answer = inside.ask("export", "made", "--format", "jsonl", "--out", tmp_path / "out")
    counts = {}
    for path in map(Path, answer["files"]):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        counts[path.name] = len(records)
        assert {record["type"] for record in records} == {path.stem}
        assert set(records[0]["jets"][0]) == {"px", "py", "pz", "E"}
        assert records[0]["num_particles"] == 80
    assert counts == {"signal.jsonl": 1050, "background.jsonl": 1050}
