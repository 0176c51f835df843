"""Recipes are read whole, with all of their faults at once; what they would do is told without doing it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lhcq.cli.run import command
from lhcq.config import CLUSTER_PRESETS
from lhcq.errors import BadInput, LhcqError, NotThere
from lhcq.manifests import write_manifest
from lhcq.requests.recipe import read_recipe, shipped
from lhcq.version import version
from tests.deployed import ROOT

WHOLE = """\
name = "mine"
[cluster]
file = "events.h5"
[prepare]
[train]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(WHOLE)
    return path


def test_the_study_the_demo_and_the_best_result_are_shipped() -> None:
    assert {"best", "demo", "diary"} <= set(shipped())
    for name, what in shipped().items():
        assert what.endswith(".")
        assert read_recipe(name)[0].name == name


def test_what_a_section_leaves_out_is_its_presets(recipe: Path) -> None:
    (plain,) = read_recipe(recipe)
    (diary,) = read_recipe(recipe, ["train.preset=diary", "cluster.preset=diary", "train.rank=13"])
    assert plain.train is not None
    assert diary.train is not None
    assert diary.cluster is not None
    assert (plain.train.rank, plain.train.dropout) == (16, 0.05)
    assert (diary.train.rank, diary.train.dropout) == (13, 0.15)
    assert (diary.cluster.radius, diary.cluster.max_jets) == (0.5, None)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        'name = "a/b"\n[generate]\nbackground = -1\nsignal = 3\n[cluster]\nradius = 9\nfile = "x"\n'
        '[train]\nrnak = 3\nalpha = "much"\n[predct]\n'
    )
    with pytest.raises(BadInput) as caught:
        read_recipe(path)
    told = str(caught.value)
    assert "\n" not in told
    for fault in (
        "name: 'a/b' cannot name",
        "generate.background should be greater",
        "cluster.radius should be less",
        "cluster.file: the events are those that are fetched or generated",
        "train.rnak: there is no such value, did you mean rank?",
        "train.alpha should be a valid number",
        "predct: there is no such section, did you mean predict?",
    ):
        assert fault in told


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name = ", "is no TOML"),
        ('name = "x"', "it has none of the sections"),
        ('name = "x"\n[cluster]', "cluster: whose events?"),
        ('name = "x"\n[fetch]\nfile = "rnd"\n[generate]\nbackground = 1\nsignal = 1\n', "give one of them"),
        ('name = "x"\n[fetch]\nfile = "rdn"', "fetch.file: "),
        ('name = "x"\n[generate]\nbackground = 0\nsignal = 0\n', "nothing to generate"),
    ],
)
def test_what_cannot_be_is_refused(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(BadInput, match=fault):
        read_recipe(path)


def test_a_recipe_that_another_lhcq_recorded_says_which_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "later.toml"
    text = (
        'name = "x"\n[generate]\nbackground = 1\nsignal = 1\n[cluster]\nwarmth = 3\n[made_by]\nlhcq = "{}"\n'
    )
    path.write_text(text.format("99.1"))
    with pytest.raises(BadInput, match=r"cluster\.warmth: .*\. It was recorded by lhcq 99\.1, and this is "):
        read_recipe(path)
    path.write_text(text.format(version()))
    with pytest.raises(BadInput, match=r"cluster\.warmth: ") as caught:
        read_recipe(path)
    assert "recorded by" not in str(caught.value)


def test_the_page_s_recipe_can_be_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/recipes.md").read_text(), re.S)
    path = tmp_path / "page.toml"
    path.write_text(text)
    assert read_recipe(path)[0].stages == ["fetch", "cluster", "prepare", "train", "predict"]


def test_a_recipe_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(NotThere, match=r"none of the recipes that lhcq brings \(best, demo, diary\)"):
        read_recipe("nothing-here")


@pytest.mark.parametrize("given", ["train.rank", "rank", "a.b.c=1", "name.x=1"])
def test_what_is_no_place_cannot_be_set(given: str, recipe: Path) -> None:
    with pytest.raises(LhcqError):
        read_recipe(recipe, [given])


def test_swept_values_make_a_run_each_named_after_them(recipe: Path) -> None:
    found = read_recipe(recipe, [], ["train.learning_rate=1e-4,3e-4", "prepare.template=compact,wide"])
    assert [one.train.learning_rate for one in found if one.train] == [1e-4, 1e-4, 3e-4, 3e-4]
    assert {one.name_of("cluster") for one in found} == {"mine"}
    assert {one.split for one in found} == {"mine-template-compact", "mine-template-wide"}
    assert found[1].run == "mine-template-wide-learning_rate-1e-4"
    assert len({one.run for one in found}) == 4


def test_equal_swept_values_are_refused(recipe: Path) -> None:
    with pytest.raises(BadInput, match="equal"):
        read_recipe(recipe, [], ["train.rank=8,8"])


def ask(*words: str) -> Any:
    done = CliRunner().invoke(command, [*words, "--json"], catch_exceptions=False, standalone_mode=False)
    return json.loads(done.output)


@pytest.mark.parametrize("name", ["best", "demo", "diary"])
def test_a_dry_run_tells_tasks_and_rows_and_makes_nothing(name: str, here: Any) -> None:
    stages = {one["stage"]: one for one in ask(name, "--dry-run")["stages"]}
    assert not here.root.exists()
    events = {"best": 400_000, "demo": 2400, "diary": 1_100_000}[name]
    assert stages["cluster"]["rows"] == events
    assert stages["cluster"]["seconds"] > 0
    assert stages["prepare"]["rows"] == {"best": 1_120_000, "demo": 1698, "diary": 200_000}[name]
    assert stages["train"]["tasks"] > 2


@pytest.mark.parametrize(
    ("radius", "note"),
    [(1.0, "stands already"), (0.5, "another stands under that name, and this will be refused")],
)
def test_a_dry_run_tells_whether_what_stands_there_is_what_is_asked_for(
    here: Any, radius: float, note: str
) -> None:
    dataset = here.dataset("demo")
    dataset.mkdir(parents=True)
    write_manifest(dataset, config={**CLUSTER_PRESETS["lhco"].model_dump(), "radius": radius})
    stages = {one["stage"]: one for one in ask("demo", "--dry-run")["stages"]}
    assert (stages["cluster"]["name"], stages["cluster"]["note"]) == ("demo", note)


def test_a_dry_run_of_a_model_that_is_here_tells_time_and_memory(here: Any, few_layers: Path) -> None:
    told = ask("demo", "--dry-run", "--set", f"train.model={few_layers}")
    train = next(one for one in told["stages"] if one["stage"] == "train")
    assert train["seconds"] > 0
    assert train["megabytes"] > 50
    assert "128 steps, 3 checkpoints" in train["note"]
    assert told["seconds"] > train["seconds"]
