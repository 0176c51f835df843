"""`lhcq run`: a pipeline by one file, and the recipe of a run, which makes the same again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lhcq.cli.runs import run_answer
from lhcq.pipeline import plan_stage
from lhcq.requests.recipe import read_recipe
from lhcq.workspace import RunPaths, Workspace
from tasks.client import do_here


@pytest.fixture(scope="module")
def lhcq(tmp_path_factory: pytest.TempPathFactory, running: Any) -> Iterator[Any]:
    with running(tmp_path_factory.mktemp("recipes") / "workspace") as program:
        yield program


@pytest.fixture(scope="module")
def recipe(event_file: Path, few_layers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on made-up events."""
    path = tmp_path_factory.mktemp("recipe") / "mine.toml"
    path.write_text(
        f"""
        name = "mine"
        [cluster]
        file = {json.dumps(str(event_file))}
        [prepare]
        name = "small"
        limit = 100
        [train]
        model = {json.dumps(str(few_layers))}
        batch_size = 2
        max_steps = 2
        checkpoints = 1
        answer_weight = 0
        """
    )
    return path


@pytest.fixture(scope="module")
def done(lhcq: Any, recipe: Path) -> Any:
    """The pipeline, done once."""
    return lhcq.run("run", recipe, "--json")


@pytest.fixture(scope="module")
def first(done: Any) -> Any:
    """What it says when it is done."""
    return json.loads(done.stdout)


def bytes_of(place: Workspace) -> dict[str, bytes]:
    """Datasets, splits and the adapter."""
    found = [place.dataset("mine") / "events.parquet", *sorted(place.split("small").glob("*.parquet"))]
    found.append(RunPaths(place.run("mine")).checkpoint(2) / "adapter_model.safetensors")
    return {str(path.relative_to(place.root)): path.read_bytes() for path in found}


@pytest.mark.usefixtures("undrawn")
def test_the_recipe_of_a_run_makes_the_same_bytes_and_metrics_in_an_empty_workspace(
    lhcq: Any, first: Any, here: Workspace
) -> None:
    """Stage by stage in this process, so that a queue and its workers make no difference either."""
    made = Workspace(lhcq.workspace)
    written = RunPaths(made.run("mine")).recipe
    assert first["run"]["recipe"] == str(written)
    (recipe,) = read_recipe(written)
    here.create()
    assert recipe.stages == ["cluster", "prepare", "train"]
    for stage in recipe.stages:
        assert do_here(here, plan_stage(stage, recipe, here, lambda name: name)).state == "done"
    again = json.loads(json.dumps(run_answer(here, "mine")[0]))
    assert bytes_of(here) == bytes_of(made)
    assert again["checkpoints"] == first["run"]["checkpoints"]
    assert again["calibrated"] == first["run"]["calibrated"]
    assert RunPaths(here.run("mine")).recipe.read_text() == written.read_text()


def test_a_training_says_its_model_its_steps_and_its_time_before_it_starts(
    done: Any, few_layers: Path
) -> None:
    lines = done.stderr.splitlines()
    at = lines.index(f"lhcq: train mine: {few_layers}, 2 steps of 2 of 60 prompts, 1 checkpoints")
    assert lines[at + 1].startswith("lhcq: training needs about ")
    assert lines[at + 2].startswith("lhcq: it will take about ")
    assert " s a step; the progress tells the rate" in lines[at + 2]


def test_what_is_done_is_not_done_again(lhcq: Any, first: Any, recipe: Path) -> None:
    assert [one["stage"] for one in first["stages"]] == ["cluster", "prepare", "train"]
    again = lhcq.ask("run", recipe)
    assert [one["seconds"] for one in again["stages"]] == [None] * 3
    assert again["run"] == first["run"]


def test_other_events_than_the_recipe_means_are_refused(lhcq: Any, first: Any, recipe: Path) -> None:
    line = lhcq.refused("run", recipe, "--set", f"cluster.sha256={'0' * 64}", "--set", "cluster.name=other")
    assert "is not the file that the recipe means" in line


@pytest.mark.torture  # two trainings more
def test_swept_runs_are_compared_at_the_end(lhcq: Any, first: Any, recipe: Path) -> None:
    told = lhcq.ask("run", recipe, "--sweep", "train.learning_rate=1e-4,3e-4")
    names = ["mine-learning_rate-1e-4", "mine-learning_rate-3e-4"]
    assert [row["run"] for row in told["compared"]["runs"]] == names
    assert told["compared"]["pairs"][0]["comparison"] is not None
    assert [one["name"] for one in told["stages"]] == ["mine", "small", *names]
