"""A run keeps the number of threads that it was begun with: another machine goes on with the same bytes."""

import logging
import os
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from lhcq.cli.main import cli
from lhcq.config import TrainConfig
from lhcq.model.identity import identify
from lhcq.model.plan import plan_run
from lhcq.model.threads import threads_here
from lhcq.records.jobs import Job
from lhcq.records.run_state import committed_steps
from lhcq.records.threads import beyond_cores, keep_threads, threads_of
from lhcq.records.validations import require_scores
from lhcq.requests.recorded_recipe import recorded_recipe
from lhcq.storage import sha256_of
from lhcq.workspace import RunPaths, Workspace
from tasks.jobs.leases import NoLease
from tasks.jobs.store import create_job, discard_job
from tasks.jobs.train import segment_unit, validate_unit
from tasks.stages import train
from tests.prompt_splits import write_two_digits
from tests.specs import job_of

PARTS = {"train": 32, "validation": 8, "calibration": 8, "test": 8}
CONFIG = TrainConfig(learning_rate=1e-3, batch_size=16, rank=4, checkpoints=2)

pytestmark = pytest.mark.usefixtures("all_undrawn")


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Sets how many torch takes in this process, as OMP_NUM_THREADS does in one that begins."""
    before = threads_here()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def ask(here: Workspace, few_layers: Any) -> Callable[..., Job]:
    """Asks for a run of two segments of one step."""
    split = here.split("small")
    write_two_digits(split, PARTS, lambda digit, _: int(digit >= 5))

    def begin(name: str, **terms: Any) -> Job:
        return create_job(
            here,
            job_of(
                "train",
                name,
                parts=0,
                split="small",
                split_sha256={path.name: sha256_of(path) for path in split.glob("*.parquet")},
                model="few",
                model_dir=str(few_layers),
                base=identify(few_layers).model_dump(),
                config=CONFIG.model_dump(),
                checkpoint_steps=list(plan_run(PARTS["train"], CONFIG).checkpoint_steps),
                terms=terms,
            ),
        )

    return begin


def bytes_of(here: Workspace, run: str) -> list[bytes]:
    """The adapters of a run."""
    paths = RunPaths(here.run(run))
    steps = committed_steps(here.run(run))
    assert steps == [1, 2]
    return [(paths.checkpoint(step) / "adapter_model.safetensors").read_bytes() for step in steps]


def train_and_score(
    here: Workspace, job: Job, threads: tuple[int, int, int], set_threads: Callable[[int], None]
) -> bytes:
    """Two segments and a validation, each by a process of so many threads; the scores."""
    units = (segment_unit(job.name), segment_unit(job.name), validate_unit(job.name, 2))
    for unit, count in zip(units, threads, strict=True):
        task = train.validate if unit.task == train.validate.name else train.train_segment
        set_threads(count)
        task.work(here, job, unit, NoLease())
        assert threads_here() == count  # whatever else the worker does next is as before
    return require_scores(here.validation(job.name, 2)).p_signal.tobytes()


def test_a_run_that_is_gone_on_with_elsewhere_has_the_bytes_of_one_that_was_not(
    here: Workspace, ask: Callable[..., Job], set_threads: Callable[[int], None]
) -> None:
    whole = train_and_score(here, ask("whole"), (1, 1, 1), set_threads)
    moved = train_and_score(here, ask("moved"), (1, 2, 2), set_threads)
    other = train_and_score(here, ask("other"), (2, 2, 2), set_threads)
    assert bytes_of(here, "moved") == bytes_of(here, "whole")
    assert moved == whole
    if bytes_of(here, "other") == bytes_of(here, "whole") and other == whole:
        pytest.skip("on this processor two threads add up to the bits of one, so nothing was shown")


def test_a_run_is_begun_with_what_its_terms_say_and_keeps_that_when_they_change(
    here: Workspace, ask: Callable[..., Job], set_threads: Callable[[int], None]
) -> None:
    set_threads(1)
    job = ask("run", threads=2)
    assert threads_of(here, job) is None
    train.train_segment.work(here, job, segment_unit("run"), NoLease())
    assert threads_of(here, job) == 2
    again = ask("run", threads=1)  # no other request: what it decides is decided
    assert again.identity == job.identity
    assert keep_threads(here, again, 1) == 2
    assert tomllib.loads(recorded_recipe(here, "run"))["train"]["threads"] == 2


def test_the_first_number_stands_and_goes_with_its_job(here: Workspace, new_job: Any) -> None:
    job = new_job("train", "run", parts=0, seed=1)
    assert threads_of(here, job) is None
    assert [keep_threads(here, job, number) for number in (3, 4)] == [3, 3]
    later = job_of("train", "run", parts=0, seed=2)
    assert threads_of(here, later.model_copy(update={"identity": later.spec.identity()})) is None
    discard_job(here, job)
    assert threads_of(here, job) is None


def test_fewer_cores_than_a_run_keeps_threads_are_told(
    here: Workspace,
    ask: Callable[..., Job],
    set_threads: Callable[[int], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cores = len(os.sched_getaffinity(0))
    job = ask("run", threads=cores + 1)
    assert beyond_cores(job, cores) == ""
    with caplog.at_level(logging.WARNING):
        train.train_segment.work(here, job, segment_unit("run"), NoLease())
    assert f"train run was begun with {cores + 1} threads and keeps them" in caplog.text


def test_a_number_of_threads_that_cannot_be_is_refused_by_its_option() -> None:
    done = CliRunner().invoke(cli, ["train", "small", "--name", "run", "--threads", "0"])
    assert done.exit_code == 2
    assert "'--threads': 0 is not in the range 1<=x<=1024" in done.output
