"""The recipe of a run is made of the records of its jobs, and says what it cannot make."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from lhcq.records.jobs import MADE, directory_of
from lhcq.requests.recipe import read_recipe
from lhcq.requests.recorded_recipe import recorded_recipe
from lhcq.storage import write_json
from lhcq.workspace import Workspace
from tasks.jobs.store import create_job
from tests.specs import job_of, terms_of

SHA = "ab" * 32


@pytest.fixture
def run(place: Workspace) -> Workspace:
    """A workspace with the records of a run and its split."""
    create_job(
        place, job_of("prepare", "balanced", dataset="lhco", model="smollm2", model_dir="models/smollm2")
    )
    create_job(place, job_of("train", "first", split="balanced", rank=7))
    return place


def clustered(place: Workspace, source: Path, size: int = 1, **changes: Any) -> None:
    job = job_of("cluster", "lhco", source_sha256=SHA, **changes)
    terms = terms_of("cluster", source=str(source), bytes=size, tolerate=0.25)
    create_job(place, job.model_copy(update={"terms": terms}))


def recipe_of(place: Workspace, tmp_path: Path) -> dict[str, Any]:
    """The run's recipe, which can be read back."""
    text = recorded_recipe(place, "first")
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    (recipe,) = read_recipe(path)
    assert (recipe.run, recipe.split, recipe.dataset) == ("first", "balanced", "lhco")
    return tomllib.loads(text)


def test_events_of_ones_own_are_named_with_their_sha256(run: Workspace, tmp_path: Path) -> None:
    clustered(run, Path("/data/mine.h5"), max_jets=None, label_map={"2": 1})
    found = recipe_of(run, tmp_path)
    assert found["cluster"]["file"] == "/data/mine.h5"
    assert (found["cluster"]["sha256"], found["cluster"]["tolerate"]) == (SHA, 0.25)
    assert (found["cluster"]["max_jets"], found["cluster"]["label_map"]) == (0, {"2": 1})
    assert (found["train"]["rank"], found["train"]["seed"], found["prepare"]["seed"]) == (7, 1, 1)
    assert found["made_by"]["lhcq"]


def test_events_that_were_generated_here_are_generated_again(run: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "events.h5"
    made = create_job(run, job_of("generate", "events-1", out=str(out), background=30, signal=40, seed=5))
    write_json(directory_of(run, made) / MADE, {"sha256": SHA})
    clustered(run, out)
    found = recipe_of(run, tmp_path)
    assert found["generate"] == {"name": "lhco", "background": 30, "signal": 40, "seed": 5, "detector": True}
    assert "file" not in found["cluster"]


def test_a_published_file_is_loaded_again(run: Workspace, tmp_path: Path) -> None:
    clustered(run, Path("/data/events_anomalydetection_v2.h5"), 2_908_260_409)
    found = recipe_of(run, tmp_path)
    assert found["fetch"] == {"file": "rnd"}
    assert "file" not in found["cluster"]


def test_what_has_no_record_is_told_in_its_head(run: Workspace, tmp_path: Path) -> None:
    found = recipe_of(run, tmp_path)  # the dataset was imported
    assert "cluster" not in found
    text = recorded_recipe(run, "first")
    assert "the dataset 'lhco' has to stand in the workspace" in text.splitlines()[1]


def test_what_has_no_word_in_toml_stays_as_it_was(run: Workspace, tmp_path: Path) -> None:
    create_job(run, job_of("train", "study", split="balanced", preset="diary", checkpoint_every=None))
    path = tmp_path / "study.toml"
    path.write_text(recorded_recipe(run, "study"))
    (recipe,) = read_recipe(path)
    assert recipe.train is not None
    assert recipe.train.checkpoint_every is None
