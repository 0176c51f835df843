"""What is left to do: read from the workspace alone."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhcq.records.failures import Failure, Holder, record_failure
from lhcq.records.job_control import set_wish
from lhcq.records.jobs import Job, load_job
from lhcq.storage import MANIFEST
from lhcq.workspace import Workspace
from tasks.jobs.kinds import KINDS, chunk_path, chunk_unit, finished_chunks, merge_unit, queue_of
from tasks.jobs.planner import pending_units
from tasks.jobs.store import create_job
from tasks.jobs.train import segment_unit, validate_unit
from tasks.jobs.train import test_unit as final_unit
from tasks.jobs.units import Unit
from tests.specs import job_of

FAN_OUTS = ("generate", "cluster", "predict", "search", "scan")


def finish_parts(place: Workspace, job: Job, *indices: int) -> None:
    for index in indices:
        path = chunk_path(place, job, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def give_up(place: Workspace, job: Job, unit: Unit) -> None:
    record_failure(
        place,
        job,
        Failure(
            unit=unit.key,
            message="broke",
            permanent=False,
            attempts=5,
            by=Holder.this_process(),
            traceback="",
        ),
    )


def commit(*directories: Any) -> None:
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
        record = directory.parent.parent / "job.json"
        of = {"of": json.loads(record.read_text())["identity"]} if record.exists() else {}
        (directory / MANIFEST).write_text(json.dumps(of))


def test_units_have_a_key_of_their_own_and_a_queue() -> None:
    job = job_of()
    units = [chunk_unit(job, 1), merge_unit(job), segment_unit("r"), validate_unit("r", 40), final_unit("r")]
    assert [(unit.key, queue_of(unit)) for unit in units] == [
        ("lhcq.cluster_part:made:1", "cpu"),
        ("lhcq.cluster_merge:made", "cpu"),
        ("lhcq.train_segment:r", "gpu"),
        ("lhcq.validate:r:40", "validate"),
        ("lhcq.test:r", "validate"),
    ]


def test_a_prediction_without_chunks_selects_where_no_model_is(place, new_job) -> None:
    job = new_job("predict", parts=0)
    (unit,) = pending_units(place, job)
    assert (unit.key, queue_of(unit)) == ("lhcq.predict_select:made", "cpu")
    give_up(place, job, unit)
    assert pending_units(place, job) == []


def test_the_other_kinds_have_no_merge() -> None:
    assert {name for name, kind in KINDS.items() if kind.fans_out} == set(FAN_OUTS)


@pytest.mark.parametrize("kind", FAN_OUTS)
def test_a_new_fan_out_needs_all_its_parts(place, new_job, kind) -> None:
    job = new_job(kind)
    assert pending_units(place, job) == [chunk_unit(job, index) for index in range(3)]


@pytest.mark.parametrize("kind", FAN_OUTS)
def test_a_fan_out_needs_what_is_missing_and_then_its_merge(place, new_job, kind) -> None:
    job = new_job(kind)
    finish_parts(place, job, 0, 2)
    assert pending_units(place, job) == [chunk_unit(job, 1)]
    finish_parts(place, job, 1)
    assert pending_units(place, job) == [merge_unit(job)]


def test_a_search_draws_pseudo_experiments_once_all_else_is_done(place, new_job) -> None:
    job = new_job("search", parts=5)  # two trainings, a shuffle, and two tasks of ten pseudo-experiments
    assert pending_units(place, job) == [chunk_unit(job, index) for index in (0, 1, 2)]
    finish_parts(place, job, 0, 2)
    assert pending_units(place, job) == [chunk_unit(job, 1)]
    finish_parts(place, job, 1)
    assert pending_units(place, job) == [chunk_unit(job, index) for index in (3, 4)]
    finish_parts(place, job, 3, 4)
    assert pending_units(place, job) == [merge_unit(job)]


def test_a_training_that_was_given_up_ends_a_search_before_its_pseudo_experiments(place, new_job) -> None:
    job = new_job("search", parts=5)
    finish_parts(place, job, 0, 2)
    give_up(place, job, chunk_unit(job, 1))
    assert pending_units(place, job) == [merge_unit(job)]


def test_a_part_that_is_being_written_is_missing(place, new_job) -> None:
    job = new_job()
    finish_parts(place, job, 0, 1)
    directory = chunk_path(place, job, 2).parent
    (directory / ".000002.arrows.12-ab.tmp").touch()
    assert finished_chunks(place, job) == {0, 1}
    assert pending_units(place, job) == [chunk_unit(job, 2)]


def test_parts_that_were_given_up_leave_the_merge_to_say_so(place, new_job) -> None:
    job = new_job()
    finish_parts(place, job, 0)
    give_up(place, job, chunk_unit(job, 1))
    assert pending_units(place, job) == [chunk_unit(job, 2)]
    give_up(place, job, chunk_unit(job, 2))
    assert pending_units(place, job) == [merge_unit(job)]
    give_up(place, job, merge_unit(job))
    assert pending_units(place, job) == []


@given(
    st.integers(1, 12).flatmap(lambda n: st.tuples(*[st.lists(st.sampled_from(range(n)))] * 2, st.just(n)))
)
def test_a_fan_out_is_never_left_without_a_unit(tmp_path_factory, drawn) -> None:
    finished, given_up, n_parts = drawn
    place = Workspace(tmp_path_factory.mktemp("place"))
    job = create_job(place, job_of(parts=n_parts))
    finish_parts(place, job, *finished)
    for index in given_up:
        give_up(place, job, chunk_unit(job, index))
    left = sorted(set(range(n_parts)) - set(finished) - set(given_up))
    assert pending_units(place, job) == ([chunk_unit(job, i) for i in left] or [merge_unit(job)])


def test_a_split_is_written_and_then_its_baseline_fitted(place, new_job) -> None:
    job = new_job("prepare", "split", parts=0)
    prepare, baseline = (Unit(task=f"lhcq.{name}", args=("split",)) for name in ("prepare", "baseline"))
    assert pending_units(place, job) == [prepare]
    commit(place.split("split"))
    assert pending_units(place, job) == [baseline]
    commit(place.baseline("split"))
    assert pending_units(place, job) == [baseline]  # which ends the job
    give_up(place, job, baseline)
    assert pending_units(place, job) == []


@pytest.fixture
def run(new_job) -> Job:
    """A run of 9 steps with a checkpoint each 3."""
    job: Job = new_job("train", "run", parts=0, checkpoint_steps=[3, 6, 9])
    return job


def test_a_fresh_run_trains(place, run) -> None:
    assert pending_units(place, run) == [segment_unit("run")]


def test_a_checkpoint_is_validated_before_the_next_segment(place, run) -> None:
    commit(place.checkpoint("run", 3), place.checkpoint("run", 6), place.validation("run", 3))
    assert pending_units(place, run) == [validate_unit("run", 6), segment_unit("run")]


def test_a_checkpoint_without_its_manifest_does_not_count(place, run) -> None:
    place.checkpoint("run", 3).mkdir(parents=True)
    commit(place.checkpoint("run", 3).parent / ".00000006.1-ab.tmp")
    assert pending_units(place, run) == [segment_unit("run")]


def test_a_paused_run_validates_and_trains_no_further(place, run) -> None:
    commit(place.checkpoint("run", 3))
    set_wish(place, load_job(place, "train", "run"), "pause")
    assert pending_units(place, run) == [validate_unit("run", 3)]
    commit(place.validation("run", 3))
    assert pending_units(place, run) == []
    set_wish(place, load_job(place, "train", "run"), "run")
    assert pending_units(place, run) == [segment_unit("run")]


def test_a_trained_run_is_tested_once_all_is_validated(place, run) -> None:
    commit(*(place.checkpoint("run", step) for step in (3, 6, 9)))
    assert pending_units(place, run) == [validate_unit("run", step) for step in (3, 6, 9)]
    commit(*(place.validation("run", step) for step in (3, 6)))
    assert pending_units(place, run) == [validate_unit("run", 9)]
    commit(place.validation("run", 9))
    assert pending_units(place, run) == [final_unit("run")]


def test_a_pause_does_not_hold_back_the_end_of_a_trained_run(place, run) -> None:
    commit(*(make("run", step) for make in (place.checkpoint, place.validation) for step in (3, 6, 9)))
    set_wish(place, load_job(place, "train", "run"), "pause")
    assert pending_units(place, run) == [final_unit("run")]


def test_a_run_without_a_validation_that_was_given_up_is_not_tested(place, run) -> None:
    commit(*(place.checkpoint("run", step) for step in (3, 6, 9)))
    commit(*(place.validation("run", step) for step in (3, 9)))
    give_up(place, run, validate_unit("run", 6))
    assert pending_units(place, run) == []
