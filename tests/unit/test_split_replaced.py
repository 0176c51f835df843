"""A split that was removed and made again under its name is another split, for its baseline and for its runs."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lhcq.config import SplitConfig
from lhcq.manifests import write_manifest
from lhcq.records.jobs import outcome_of
from lhcq.storage import MANIFEST, read_json, sha256_of, staged_directory
from lhcq.workspace import Workspace
from tasks.stages.prepare import baseline
from tasks.stages.train import train_segment

PARTS = ("train", "validation", "calibration", "test")


def make_split(place: Workspace, *, seed: int) -> Path:
    """A split of made-up prompts with one feature."""
    random = np.random.Generator(np.random.PCG64(seed))
    split = place.split("small")
    with staged_directory(split) as directory:
        for number, part in enumerate(PARTS):
            labels = np.arange(60) % 2
            columns = {
                "row": np.arange(60) + 60 * number,
                "label": labels,
                "prompt": [f"event {value}" for value in random.integers(0, 1000, 60)],
                "mjj": labels + random.normal(0.0, 1.0, 60),
            }
            pq.write_table(pa.table(columns), directory / f"{part}.parquet")
        config = SplitConfig().model_dump()
        write_manifest(directory, dataset="made", dataset_sha256=str(seed), config=config, features=["mjj"])
    return split


def test_a_baseline_is_fitted_on_the_split_that_stands(broker, here, new_job) -> None:
    for seed in (1, 2):
        job = new_job("prepare", "small", parts=0, dataset="made", dataset_sha256=str(seed))
        split = make_split(here, seed=seed)
        assert baseline("small") == "done"
        assert outcome_of(here, job).state == "done"
        assert baseline("small") == "closed"
        fitted = read_json(here.baseline("small") / MANIFEST)["split_manifest_sha256"]
        assert fitted == sha256_of(split / MANIFEST)
        shutil.rmtree(split)


def test_a_run_does_not_go_on_with_another_split(broker, here, new_job) -> None:
    split = make_split(here, seed=1)
    spec: dict[str, Any] = {
        "split": "small",
        "split_sha256": {path.name: sha256_of(path) for path in split.glob("*.parquet")},
        "checkpoint_steps": [2],
        "model_dir": "nowhere",
    }
    job = new_job("train", "run", parts=0, **spec)
    shutil.rmtree(split)
    make_split(here, seed=2)
    assert train_segment("run") == "failed"
    outcome = outcome_of(here, job)
    assert outcome.state == "failed"
    assert "is not the split that run 'run' began with" in outcome.message
