"""Prediction as a job, with the real small model: killed in the middle, it goes on and says what the test said."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lhcq.manifests import write_manifest

pytestmark = pytest.mark.torture

N = 120


@pytest.fixture(scope="module")
def lhcq(tmp_path_factory, running) -> Iterator[Any]:
    """One workspace for all of this module."""
    with running(tmp_path_factory.mktemp("prediction") / "workspace") as program:
        yield program


@pytest.fixture(scope="module")
def run(lhcq, event_file, smollm2) -> str:
    """A run of two steps on a split of 100 made-up events."""
    lhcq.run("cluster", event_file, "--name", "made", "--features", "jets")
    lhcq.run("prepare", "made", "--split", "small", "--limit", "100", "--model", smollm2)
    quick = ("--batch-size", "2", "--max-steps", "2", "--checkpoints", "1")
    lhcq.run("train", "small", "--name", "run", "--model", smollm2, *quick)
    return "run"


@pytest.fixture(scope="module")
def few(lhcq, run) -> str:
    """A dataset of 120 events: those of the split, and 20 more of the same source."""
    made, final = (lhcq.workspace / f"datasets/{name}" for name in ("made", "few"))
    table = pq.read_table(made / "events.parquet")
    chosen = {row for path in (lhcq.workspace / "splits/small").glob("*.parquet") for row in rows_of(path)}
    chosen |= set([row for row in range(table.num_rows) if row not in chosen][: N - len(chosen)])
    write_dataset(final, table.take(sorted(chosen)), json.loads((made / "manifest.json").read_text()))
    return "few"


def rows_of(path: Path) -> list[int]:
    rows: list[int] = pq.read_table(path, columns=["row"])["row"].to_pylist()
    return rows


def write_dataset(final: Path, table: pa.Table, manifest: dict[str, Any]) -> None:
    final.mkdir()
    pq.write_table(table, final / "events.parquet", row_group_size=50)
    write_manifest(final, **{**manifest, "name": final.name, "rows": table.num_rows})


def test_a_prediction_that_is_killed_goes_on_and_agrees_with_the_test_part(
    lhcq, run, few, until, kill_group
) -> None:
    command = ("predict", run, few, "--events-per-chunk", "16", "--select", "0.5")
    process = lhcq.start(*command)
    parts = lhcq.workspace / "jobs/predict-run-few/parts"
    until(lambda: len(list(parts.rglob("[0-9]*.arrows"))) >= 2, "two parts")
    for worker in lhcq.workers():
        kill_group(worker, signal.SIGKILL)
    process.kill()
    lhcq.finish(process)
    kept = {path.name: path.stat().st_mtime_ns for path in parts.rglob("[0-9]*.arrows")}
    assert 2 <= len(kept) < 9

    answer = lhcq.ask(*command)
    assert (answer["n_events"], answer["reference"]["n_background"]) == (N, 5)
    assert answer["parts"]["train"] == 60
    assert sum(answer["parts"].values()) == N
    assert answer["judged"] == {"events": "test part", "n": answer["parts"]["test"]}
    table = pq.read_table(answer["scores"])
    assert table.num_rows == N
    assert sorted(table["rank"].to_pylist()) == list(range(1, N + 1))
    tested = pq.read_table(lhcq.workspace / "runs/run/test/scores.parquet")
    expected = dict(zip(tested["row"].to_pylist(), tested["p_signal"].to_pylist(), strict=True))
    found = {
        row: p
        for row, p, part in zip(
            *(table[name].to_pylist() for name in ("row", "p_signal", "part")), strict=True
        )
        if part == "test"
    }
    assert found == pytest.approx(expected, abs=1e-4)
    figures = json.loads((lhcq.workspace / "runs/run/test/figures.json").read_text())
    assert answer["figures"]["auc"] == pytest.approx(figures["auc"], abs=1e-3)
    assert not parts.exists()
    assert lhcq.ask(*command) == answer | {"seconds": None, "events_per_second": None}


def test_another_selection_is_made_of_the_same_scores_without_a_model(lhcq, run, few) -> None:
    """Nothing is scored, and no worker starts."""
    first = lhcq.workspace / "predictions/run-few"
    if not first.exists():
        lhcq.run("predict", run, few, "--events-per-chunk", "16", "--select", "0.5")
    before = {log: log.stat().st_size for log in (lhcq.workspace / "logs").iterdir()}
    answer = lhcq.ask("predict", run, few, "--events-per-chunk", "16", "--select", "0.25")
    assert (answer["name"], answer["scores_of"]) == ("run-few-select-0.25", "run-few")
    assert answer["events_per_second"] is None
    assert answer["selection"]["largest_p_value"] == 0.25
    assert {log: log.stat().st_size for log in (lhcq.workspace / "logs").iterdir()} == before
    made = lhcq.workspace / "predictions/run-few-select-0.25"
    assert (made / "scores.parquet").read_bytes() == (first / "scores.parquet").read_bytes()
    again = lhcq.ask("predict", run, few, "--events-per-chunk", "16", "--select", "0.25")
    assert again == answer | {"seconds": None}
    damage(first / "reference.parquet")
    damage(made / "scores.parquet")
    assert "differs from its manifest" in lhcq.refused(
        "predict", run, few, "--events-per-chunk", "16", "--select", "0.75"
    )


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
