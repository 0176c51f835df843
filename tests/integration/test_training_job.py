"""Training as a job: segments, validations by themselves, pause, kill, report."""

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lhcq.api import prepare
from tests.collector import Collector, collecting
from tests.integration.conftest import Inside

QUICK = ("--batch-size", "2", "--max-steps", "6", "--checkpoints", "3")


@pytest.fixture(scope="module")
def model(few_layers: Path) -> Path:
    """What loads and trains fast: that the whole model learns is tested without a queue."""
    return few_layers


@pytest.fixture(scope="module")
def lhcq(tmp_path_factory, running) -> Iterator[Any]:
    """One workspace for all runs of this module: they differ by name."""
    with running(tmp_path_factory.mktemp("training") / "workspace") as program:
        yield program


@pytest.fixture(scope="module")
def inside(lhcq) -> Inside:
    """What is done at once there."""
    return Inside(lhcq.workspace)


@pytest.fixture(scope="module")
def split(lhcq, event_file, model) -> str:
    """A split of 100 made-up events: 60 to train, 15 to validate."""
    lhcq.cluster_here(event_file, "made")
    prepare("made", "small", workspace=lhcq.workspace, limit=100, model=str(model))
    made = json.loads((lhcq.workspace / "splits/small/manifest.json").read_text())
    assert made["counts"]["train"] == {"signal": 30, "background": 30}
    assert made["tokens"]["max"] <= 25
    return "small"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Has the trace of the undisturbed run."""
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def first(lhcq, split, model, collector) -> Any:
    """What an undisturbed run says when it ends."""
    return lhcq.ask("train", split, "--name", "first", "--model", model, *QUICK, **collector.environment)


def adapter_of(lhcq, run: str, step: int) -> bytes:
    return (lhcq.workspace / f"runs/{run}/checkpoints/{step:08d}/adapter_model.safetensors").read_bytes()


def test_every_checkpoint_is_validated_and_the_best_is_tested(lhcq, inside, split, model, first) -> None:
    answer = first
    assert answer["state"] == "done"
    validated = [row for row in answer["checkpoints"] if row["state"] == "validated"]
    assert [row["step"] for row in validated] == [2, 4, 6]
    assert {row["part"] for row in answer["checkpoints"] if row["state"] == "tested"} == {"test"}
    trees = json.loads((lhcq.workspace / "baselines/small/manifest.json").read_text())
    assert [row["classifier"] for row in answer["checkpoints"] if row["state"] == "fitted"] == [
        "trees on the prompt's numbers",
        f"trees on all {len(trees['features'])} features",
    ] * 2

    run = lhcq.workspace / "runs/first"
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds.count("step") == 6
    assert kinds.count("checkpoint") == 3
    assert kinds.count("validation") == 3
    # The validation of a checkpoint comes before the next segment: one worker serves both in turn.
    assert kinds.index("validation") < kinds.index("checkpoint", kinds.index("checkpoint") + 1)

    tests = [row["mcnemar_p"] for row in validated]
    assert tests[0] is None
    assert all(0 <= p_value <= 1 for p_value in tests[1:])
    calibration = pq.read_table(lhcq.workspace / "splits/small/calibration.parquet")
    assert answer["calibrated"]["calibration"]["n"] == len(calibration)
    assert answer["calibrated"]["sculpting"] is None  # too little background for a threshold
    tagged = inside.ask("tag", "first", "best", "v0.1")
    assert tagged == {"run": "first", "step": answer["best_step"], "tag": "v0.1"}

    scores = pq.read_table(run / "validations/00000006/scores.parquet")
    truth = pq.read_table(lhcq.workspace / "splits/small/validation.parquet")
    assert scores["row"].to_pylist() == truth["row"].to_pylist()
    assert scores["label"].to_pylist() == truth["label"].to_pylist()
    assert all(0.0 <= p <= 1.0 for p in scores["p_signal"].to_pylist())
    assert "Number of unknown predictions" in (lhcq.workspace / "logs/gpu.log").read_text()

    page = (run / "report.html").read_text()
    assert "first" in page
    assert (
        "<dt>State</dt><dd>done</dd>" in page
    )  # written after the outcome, by a worker that the command stops
    assert "http://" not in page.replace("http://www.w3.org", "")
    text = inside.run("report", "first").stdout
    assert text.splitlines()[-1] == str(run / "report.html")
    assert "trees on the prompt's numbers" in text
    watched = inside.ask("watch", "first")
    assert watched["checkpoints"] == answer["checkpoints"]
    jobs = {job["name"]: job for job in lhcq.ask("status")["jobs"]}
    assert (jobs["first"]["state"], jobs["first"]["done"], jobs["first"]["total"]) == ("done", 6, 6)
    again = inside.ask("train", split, "--name", "first", "--model", model, *QUICK)
    assert again == answer | {"seconds": None}
    assert "--rank 3, was 16" in inside.refused(
        "train", split, "--name", "first", "--model", model, *QUICK, "--rank", "3"
    )


def test_all_that_a_spawned_child_does_for_a_run_is_in_the_commands_trace(first, collector) -> None:
    (root,) = [span for span in collector.spans if not span.parent]
    (publishing,) = collector.under(root)
    units = collector.under(publishing)
    assert len(collector.spans) == 2 + len(units)
    assert Counter(unit.name for unit in units) == {
        "lhcq.train_segment": 3,
        "lhcq.validate": 3,
        "lhcq.test": 1,
    }
    trained = [unit.told for unit in units if unit.name == "lhcq.train_segment"]
    assert [(told["lhcq.step"], told["lhcq.events"]) for told in trained] == [(2, 4), (4, 4), (6, 4)]
    assert sorted(unit.told["lhcq.step"] for unit in units if unit.name == "lhcq.validate") == [2, 4, 6]
    assert len({unit.told["process.pid"] for unit in units}) == 1  # the child stays, with its model
    assert {unit.told["lhcq.worker"].partition("-")[0] for unit in units} == {"gpu"}


def test_a_run_that_is_paused_and_killed_ends_with_the_same_bytes(
    lhcq, inside, split, model, first, until, kill_group
) -> None:
    process = lhcq.start("train", split, "--name", "stormy", "--model", model, *QUICK)
    log = lhcq.workspace / "runs/stormy/events.jsonl"
    until(lambda: log.exists() and '"step": 1,' in log.read_text(), "the first step")
    inside.run("pause", "stormy")
    done = lhcq.finish(process)
    assert done.returncode == 3
    assert "lhcq resume stormy" in done.stderr
    assert {job["name"]: job["state"] for job in lhcq.ask("status")["jobs"]}["stormy"] == "paused"

    process = lhcq.start("resume", "stormy")
    (worker,) = until(lhcq.workers, "a worker")  # looked for now, since what is left takes seconds
    until((lhcq.workspace / "runs/stormy/checkpoints/00000002/manifest.json").exists, "a checkpoint")
    kill_group(worker, signal.SIGKILL)
    done = lhcq.finish(process)
    assert done.returncode == 0, done.stderr
    for step in (2, 4, 6):
        assert adapter_of(lhcq, "stormy", step) == adapter_of(lhcq, "first", step)
        undisturbed, stormy = (
            pq.read_table(lhcq.workspace / f"runs/{run}/validations/{step:08d}/scores.parquet")
            for run in ("first", "stormy")
        )
        assert undisturbed.equals(stormy)


def test_a_cancelled_run_ends_and_keeps_its_checkpoints(lhcq, inside, split, model, until) -> None:
    process = lhcq.start("train", split, "--name", "gone", "--model", model, *QUICK)
    checkpoints = lhcq.workspace / "runs/gone/checkpoints"
    until(lambda: list(checkpoints.glob("*/manifest.json")), "a checkpoint")
    inside.run("cancel", "gone")
    done = lhcq.finish(process)
    assert done.returncode == 3
    assert "cancelled" in done.stderr
    assert list(checkpoints.glob("*/manifest.json"))
    assert "nothing to resume" in inside.refused("resume", "gone")
    assert "has ended" in inside.refused("pause", "gone")


@pytest.mark.torture  # a minute, and nothing that breaks often
def test_the_diary_preset_trains_on_the_diary_prompt(lhcq, event_file, model) -> None:
    lhcq.run("cluster", event_file, "--name", "diary", "--preset", "diary")
    arguments = ("prepare", "diary", "--split", "diary", "--template", "diary", "--limit", "60")
    answer = lhcq.ask(*arguments, "--model", model)
    assert answer["template"]["name"] == "diary"
    prompt = pq.read_table(lhcq.workspace / "splits/diary/train.parquet")["prompt"][0].as_py()
    assert prompt.startswith("[INST] Classify this event as 'signal' or 'background'.\njets:\n")
    command = ("train", "diary", "--name", "diary", "--model", model, "--preset", "diary")
    short = ("--accumulation", "2", "--max-steps", "1")
    assert "tokens" in lhcq.refused(*command, *short, "--max-tokens", "16")
    assert not (lhcq.workspace / "runs/diary").exists()
    assert lhcq.ask(*command, *short)["state"] == "done"
    job = json.loads((lhcq.workspace / "runs/diary/job.json").read_text())
    config = job["spec"]["config"]
    assert (config["rank"], config["alpha"], config["dropout"], config["learning_rate"]) == (
        12,
        48.0,
        0.15,
        3e-5,
    )
