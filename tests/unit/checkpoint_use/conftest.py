"""A run of one step on made-up events."""

import shutil
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lhcq.config import SplitConfig
from lhcq.evaluate.validation import write_validation
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.loop import train_segment
from lhcq.model.score import score_prompts
from lhcq.prompts.writing import write_split
from lhcq.records.events import SCHEMA
from lhcq.workspace import Workspace
from tasks.jobs.store import create_job
from tests.checkpoint_used import CONFIG, N, made_up_records, write_dataset
from tests.specs import job_of


@pytest.fixture(scope="session")
def made(base, tmp_path_factory):
    """A workspace with a dataset, a black box of other events, and a run of one step on the dataset."""
    place = Workspace(tmp_path_factory.mktemp("made"))
    records = made_up_records(N)
    write_dataset(place, "events", records, "known")
    blind = records.set_column(1, SCHEMA.field("label"), pa.nulls(N, pa.int8())).slice(0, 10)
    write_dataset(place, "box", blind, "other")
    split = write_split(place.dataset("events"), place.split("split"), config=SplitConfig())
    spec = {
        "split": "split",
        "split_sha256": {name: facts["sha256"] for name, facts in split["files"].items()},
        "model": "smollm2",
        "model_dir": str(base.directory),
        "base": base.identity.model_dump(),
        "config": CONFIG.model_dump(),
        "checkpoint_steps": [1],
        "total_steps": 1,
    }
    of = create_job(place, job_of("train", "run", parts=0, created=time.time(), **spec)).identity
    part = pq.read_table(place.split("split") / "train.parquet")
    state = train_segment(
        base,
        prompts=part["prompt"].to_pylist(),
        labels=part["label"].to_numpy(),
        config=CONFIG,
        checkpoint=None,
        until_step=1,
        on_step=lambda _: True,
    )
    write_checkpoint(place.checkpoint("run", 1), state, config_hash="c", extra={"of": of})
    part = pq.read_table(place.split("split") / "validation.parquet")
    scores = score_prompts(
        base,
        checkpoint=place.checkpoint("run", 1),
        config=CONFIG,
        prompts=part["prompt"].to_pylist(),
        batch_size=8,
    )
    write_validation(
        place.validation("run", 1),
        step=1,
        of=of,
        rows=part["row"].to_numpy(),
        labels=part["label"].to_numpy(),
        p_signal=scores.p_signal,
        answers=scores.answers,
    )
    return place


@pytest.fixture
def trained(here, broker, made):
    """A copy of it, which the tasks of this process work in."""
    shutil.copytree(made.root, here.root)
    return here
