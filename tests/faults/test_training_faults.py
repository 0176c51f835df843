"""Trainers killed wherever something can be lost: the last adapter is the undisturbed one, bit for bit."""

import json
from collections.abc import Iterator

import pytest

from tasks.jobs.leases import LEASE_SECONDS
from tests.faults.rig import Rig, running_rig, wait_until

pytestmark = pytest.mark.torture
RECOVERY_SECONDS = 240
"""A new trainer starts first, which loads torch and the model, and trains and validates on the CPU."""
STEPS = (2, 4)
QUICK = ("--batch-size", "2", "--max-steps", "4", "--checkpoints", "2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, events, smollm2) -> Iterator[Rig]:
    """A rig with a split and an undisturbed run on it."""
    with running_rig(tmp_path_factory.mktemp("training") / "rig") as rig:
        worker = rig.start_worker()
        rig.await_ready()
        rig.run("cluster", events, "--name", "made")
        rig.run("prepare", "made", "--split", "small", "--limit", "40", "--model", smollm2)
        worker.kill()
        rig.start_worker("gpu")
        rig.run("train", "small", "--name", "calm", "--model", smollm2, *QUICK)
        yield rig


@pytest.fixture
def trainer(trained: Rig) -> Rig:
    """The same with one trainer at work and nothing armed."""
    for path in trained.arms.iterdir():
        path.unlink()
    for worker in trained.alive()[1:]:
        worker.kill()
    if not trained.alive():
        trained.start_worker("gpu")
    trained.await_ready()
    return trained


def submit(rig: Rig, name: str, smollm2):
    rig.run("train", "small", "--name", name, "--model", smollm2, *QUICK, "--detach")
    return rig.job("train", name)


def check(rig: Rig, name: str) -> None:
    """The adapters of the undisturbed run; each checkpoint, each validation and the end committed once."""
    run, calm = rig.place.run(name), rig.place.run("calm")
    for step in STEPS:
        adapter = f"checkpoints/{step:08d}/adapter_model.safetensors"
        assert (run / adapter).read_bytes() == (calm / adapter).read_bytes()
        scores = f"validations/{step:08d}/scores.parquet"
        assert (run / scores).read_bytes() == (calm / scores).read_bytes()
    expected = [f"{kind}/{step:08d}" for kind in ("checkpoints", "validations") for step in STEPS]
    commits = rig.commits(run)
    assert set(commits.values()) == {1}
    results = {name for name in commits if "/alarms/" not in name}  # so few events may raise one or not
    assert results == {str(run / path) for path in [*expected, "outcome.json"]}
    rig.await_no_leases()


@pytest.mark.parametrize(
    "point",
    [
        "step@3",
        "before-checkpoint-commit",
        "after-checkpoint-commit",
        "after-publish@lhcq.validate",
        "before-validation-commit",
        "after-validation-commit",
    ],
)
def test_a_trainer_killed_at(trainer: Rig, smollm2, recovered, point: str) -> None:
    name = point.replace("@", "-")
    trainer.arm(point)
    job = submit(trainer, name, smollm2)
    killed = trainer.reached(point, 120)
    trainer.victim(point).process.wait()
    trainer.start_worker("gpu")
    outcome = trainer.await_end(job, RECOVERY_SECONDS)
    recovered(outcome.finished - killed)
    check(trainer, name)


def test_two_workers_race_for_one_run_and_every_message_comes_twice(trainer: Rig, smollm2, recovered) -> None:
    trainer.start_worker("gpu")
    trainer.await_ready()
    trainer.arm("step@1", "hold")
    job = submit(trainer, "race", smollm2)
    held = trainer.reached("step@1", 120)
    again = (
        "from tasks.engine.publish import publish_unit\n"
        "from tasks.jobs.train import segment_unit, validate_unit\n"
    )
    trainer.python(f"{again}[publish_unit(segment_unit('race')) for _ in range(2)]")
    with trainer.broker.client() as client:
        wait_until(lambda: client.llen("gpu") == 0, "the other worker to take the segment")
    trainer.release("step@1")
    wait_until(
        (trainer.place.checkpoint("race", 2) / "manifest.json").exists, "a checkpoint", LEASE_SECONDS + 30
    )
    trainer.python(f"{again}[publish_unit(validate_unit('race', 2)) for _ in range(2)]")
    outcome = trainer.await_end(job, RECOVERY_SECONDS)
    recovered(outcome.finished - held)
    check(trainer, "race")
    lines = (trainer.place.run("race") / "events.jsonl").read_text().splitlines()
    steps = [line["step"] for line in map(json.loads, lines) if line["event"] == "step"]
    assert steps == [1, 2, 3, 4]
