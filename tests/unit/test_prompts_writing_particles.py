"""Splits whose prompts hold constituents."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lhcq.config import SplitConfig
from lhcq.errors import BadInput
from lhcq.evaluate.baseline import fit_baseline
from lhcq.manifests import write_manifest
from lhcq.prompts.templates import render_as
from lhcq.prompts.writing import write_split
from lhcq.records.events import LISTED_CONSTITUENTS
from lhcq.records.letters import split_prompt
from lhcq.records.specs import Template
from lhcq.storage import read_json
from tests.prompt_splits import encode, make_dataset, read_part


def make_dataset_of_particles(directory: Path) -> Path:
    """Such a dataset whose leading jets have up to six constituents, of which four are kept."""
    dataset = make_dataset(directory)
    rng = np.random.default_rng(2)
    events = pq.read_table(dataset / "events.parquet")

    def constituents(jet: dict[str, float]) -> list[dict[str, float]]:
        shares = np.sort(rng.uniform(0.01, 0.4, int(rng.integers(1, 7))))[::-1][:4]
        return [
            {"pt": jet["pt"] * share, "delta_eta": rng.normal(0, 0.3), "delta_phi": rng.normal(0, 0.3)}
            for share in shares.tolist()
        ]

    listed = [[constituents(jet) for jet in jets] for jets in events["jets"].to_pylist()]
    column = pa.array(listed, LISTED_CONSTITUENTS.type)
    pq.write_table(events.append_column(LISTED_CONSTITUENTS, column), dataset / "events.parquet")
    (dataset / "manifest.json").unlink()
    write_manifest(
        dataset, source_sha256="ab" * 32, labels={"unknown": 0}, rows=400, config={"constituents": 4}
    )
    return dataset


def test_a_split_of_particles_has_its_own_prompts_copies_that_differ_and_trees_on_the_letters(tmp_path):
    dataset = make_dataset_of_particles(tmp_path / "made")
    config = SplitConfig(template="particles", constituents=3, copies=2)
    manifest = write_split(dataset, tmp_path / "split", config=config, encode=encode, model_name="bytes")
    assert manifest["template"]["constituents"] == 3
    assert manifest["template"]["frame"] == "principal-axis"
    assert manifest["tokens"]["letter"] == 2
    template = Template.checked(**manifest["template"])
    prompts = render_as(template, pq.read_table(dataset / "events.parquet"))
    for name in ("validation", "calibration", "test"):
        for event in read_part(tmp_path / "split", name):
            assert event["prompt"] == prompts[event["row"]]
    train = read_part(tmp_path / "split", "train")
    first, second = train[: len(train) // 2], train[len(train) // 2 :]
    assert [one["row"] for one in first] == [one["row"] for one in second]
    different = [
        split_prompt(one["prompt"])[1] != split_prompt(other["prompt"])[1]
        for one, other in zip(first, second, strict=True)
    ]
    with_jets = [any(split_prompt(one["prompt"])[1]) for one in first]
    assert np.mean(np.array(different)[with_jets]) > 0.9
    fit_baseline(tmp_path / "split", tmp_path / "trees")
    assert (
        read_json(tmp_path / "trees/manifest.json")["prompt"]["numbers"] == len(template.columns) + 2 * 3 * 3
    )


def test_prompts_of_more_constituents_than_a_dataset_keeps_are_refused(tmp_path):
    dataset = make_dataset_of_particles(tmp_path / "made")
    config = SplitConfig(template="particles", constituents=5)
    with pytest.raises(
        BadInput, match=r"^made: keeps 4 constituents of each leading jet, and the prompts have 5"
    ):
        write_split(dataset, tmp_path / "split", config=config)
    assert not (tmp_path / "split").exists()
    with pytest.raises(BadInput, match=r"^plain: template particles needs constituents"):
        write_split(make_dataset(tmp_path / "plain"), tmp_path / "split", config=config)
