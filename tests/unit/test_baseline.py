"""The boosted trees beside a split: what those on the prompts' numbers see, and what is said where there are none."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lhcq
from lhcq.config import SplitConfig
from lhcq.evaluate.baseline import fit_baseline, read_prompt_numbers
from lhcq.manifests import write_manifest
from lhcq.prompts.writing import write_split
from lhcq.records.prompt_numbers import read_all_numbers
from lhcq.records.validations import find_baseline
from lhcq.storage import MANIFEST, read_json
from lhcq.workspace import Workspace

DIARY = (
    "[INST] Classify this event as 'signal' or 'background'.\njets:\n  jet1: px=-1.5000000000 py=2.0000000000 "
    "pz=-0.0000000000 E=3.2500000000\n  jet12: px=4.0000000000 py=5.0000000000 pz=6.0000000000 E=7.0000000000\n"
    "num_particles: 109[/INST]"
)


def test_the_numbers_of_a_prompt_are_those_that_stand_there_the_last_one_first() -> None:
    found = read_all_numbers(["357 0 14:", DIARY, "no number of jet3", "8:", "-2 7:"])
    wide = 9
    expected = [
        [14.0, 357.0, 0.0],
        [109.0, -1.5, 2.0, 0.0, 3.25, 4.0, 5.0, 6.0, 7.0],
        [],
        [8.0],
        [7.0, -2.0],
    ]
    padded = [one + [np.nan] * (wide - len(one)) for one in expected]
    np.testing.assert_array_equal(found, padded)
    assert read_all_numbers([]).shape == (0, 0)


@pytest.fixture(scope="module")
def real(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The 1,000 released events as a dataset with all features, and a split of them for each of two templates."""
    place = Workspace(tmp_path_factory.mktemp("real"))
    made = lhcq.cluster(
        test_data / "events_anomalydetection_tiny.h5", "real", workspace=place, features="full"
    )
    for template in ("compact", "diary"):
        config = SplitConfig.checked(template=template, ratio="1:2")
        write_split(made.path, place.split(template), config=config)
        fit_baseline(place.split(template), place.baseline(template))
    return place


def test_trees_on_the_prompts_numbers_see_those_of_the_template_in_its_units(real: Workspace) -> None:
    split = real.split("compact")
    columns = read_json(split / MANIFEST)["template"]["columns"]
    units = {"mjj": 10, "m_sd_heavy": 1, "m_sd_light": 1, "n_particles": 10, "d2_heavy": 0.1, "d2_light": 0.1}
    assert list(units) == columns
    for subset in ("train", "validation", "test"):
        table = pq.read_table(split / f"{subset}.parquet")
        expected = np.column_stack([np.rint(table[name].to_numpy() / units[name]) for name in columns])
        found = read_prompt_numbers(split, subset)
        np.testing.assert_array_equal(found.values, np.nan_to_num(np.roll(expected, 1, axis=1)))
        np.testing.assert_array_equal(found.rows, table["row"].to_numpy())
        np.testing.assert_array_equal(found.labels, table["label"].to_numpy())


@pytest.mark.parametrize("template", ["compact", "diary"])
def test_both_trees_learn_from_real_events(real: Workspace, template: str) -> None:
    manifest = read_json(real.baseline(template) / MANIFEST)
    baseline = find_baseline(
        real.baseline(template), split_sha256=manifest["split_sha256"], split_stands=True
    )
    assert baseline.prompt.name == "trees on the prompt's numbers"
    assert baseline.all.name == f"trees on all {len(manifest['features'])} features"
    assert len(manifest["features"]) > 30
    # Four-momenta of all jets, and the number of particles.
    assert (
        manifest["prompt"]["numbers"] == 6
        if template == "compact"
        else manifest["prompt"]["numbers"] % 4 == 1
    )
    assert baseline.prompt.test
    assert baseline.all.test
    np.testing.assert_array_equal(baseline.prompt.test.scores.rows, baseline.all.test.scores.rows)
    assert (baseline.prompt.test.scores.p_signal != baseline.all.test.scores.p_signal).any()
    for trees in baseline:
        for subset in ("validation", "test"):
            found = trees.on(subset)
            assert found
            assert found.metrics.auc
            # Momenta as they are tell trees little; masses and substructure much.
            assert found.metrics.auc > (0.6 if trees is baseline.prompt and template == "diary" else 0.85)


def write_prompts(split: Path, prompts: dict[str, list[str]]) -> None:
    """A split with these prompts, and a feature that tells nothing; every other event is signal."""
    split.mkdir(parents=True)
    for subset, told in prompts.items():
        n = len(told)
        columns = {"row": np.arange(n), "label": (np.arange(n) % 2).astype(np.int8), "prompt": told}
        pq.write_table(pa.table(columns | {"mjj": np.ones(n)}), split / f"{subset}.parquet")
    write_manifest(split, features=["mjj"])


def test_trees_on_the_prompt_know_what_the_features_do_not_tell(tmp_path: Path) -> None:
    told = [f"{index % 2} 5:" for index in range(100)]
    write_prompts(tmp_path / "split", dict.fromkeys(("train", "validation", "test"), told))
    fit_baseline(tmp_path / "split", tmp_path / "trees")
    figures = json.loads((tmp_path / "trees" / "figures.json").read_text())
    assert (figures["prompt-test"]["auc"], figures["test"]["auc"]) == (1.0, 0.5)


def test_prompts_of_more_or_fewer_jets_than_any_in_training_are_scored(tmp_path: Path) -> None:
    told = {1: "{} 5:", 2: "{} 2 5:", 3: "{} 2 3 5:"}
    prompts = {
        subset: [told[jets].format(index % 2) for index in range(100)]
        for subset, jets in (("train", 2), ("validation", 1), ("test", 3))
    }
    write_prompts(tmp_path / "split", prompts)
    fit_baseline(tmp_path / "split", tmp_path / "trees")
    figures = json.loads((tmp_path / "trees" / "figures.json").read_text())
    assert [figures[f"prompt-{subset}"]["auc"] for subset in ("validation", "test")] == [1.0, 1.0]


def test_prompts_without_numbers_have_no_trees_and_the_record_says_so(tmp_path: Path) -> None:
    told = ["a heavy jet and a light one"] * 100
    write_prompts(tmp_path / "split", dict.fromkeys(("train", "validation", "test"), told))
    fit_baseline(tmp_path / "split", tmp_path / "trees")
    manifest = read_json(tmp_path / "trees" / MANIFEST)
    assert sorted(manifest["files"]) == ["figures.json", "test.parquet", "validation.parquet"]
    found = find_baseline(tmp_path / "trees", split_sha256=manifest["split_sha256"], split_stands=True)
    assert (found.prompt.missing, found.prompt.test, found.all.missing) == (
        "the prompts hold no numbers",
        None,
        "",
    )
    assert found.all.test


@pytest.mark.parametrize(
    ("recorded", "stands", "known"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_trees_stand_beside_the_split_that_they_were_fitted_on(
    tmp_path: Path, recorded: bool, stands: bool, known: bool
) -> None:
    told = [f"{index % 2}:" for index in range(100)]
    write_prompts(tmp_path / "split", dict.fromkeys(("train", "validation", "test"), told))
    fit_baseline(tmp_path / "split", tmp_path / "trees")
    manifest = read_json(tmp_path / "trees" / MANIFEST)
    mine = manifest["split_sha256"]
    if not recorded:
        kept = {name: value for name, value in manifest.items() if name not in ("files", "split_sha256")}
        write_manifest(tmp_path / "trees", **kept)
    found = find_baseline(tmp_path / "trees", split_sha256=mine, split_stands=stands)
    assert bool(found.beside("test")) is known
    another = find_baseline(tmp_path / "trees", split_sha256={"train.parquet": "ab"}, split_stands=False)
    assert another.beside("test") == []
    assert another.prompt.missing == another.all.missing == "fitted on another split of this name"
