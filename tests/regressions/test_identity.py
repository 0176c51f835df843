"""What is made for a job that was removed, or by another lhcq, never enters the job that has its name now."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lhcq.config import SplitConfig
from lhcq.errors import BadInput, LeaseLost, NameTaken
from lhcq.evaluate.validation import write_validation
from lhcq.events.layout import open_event_file, write_event_file
from lhcq.manifests import write_manifest
from lhcq.records.commits import is_commit, make_way
from lhcq.records.failures import failures_of
from lhcq.records.jobs import Job, outcome_of
from lhcq.records.run_state import committed_steps, reached_step, validated_steps
from lhcq.records.specs import ClusterSpec
from lhcq.storage import sha256_of, staged_directory
from lhcq.workspace import Workspace
from tasks.jobs import store
from tasks.jobs.kinds import chunk_path, finished_chunks
from tasks.jobs.planner import pending_units
from tasks.jobs.store import create_job, discard_job
from tasks.jobs.train import validate_unit
from tasks.stages import generate
from tasks.stages.cluster import cluster_merge, cluster_part
from tasks.stages.fanout import perform_chunk, perform_merge
from tests.specs import job_of

N_EVENTS = 40


@pytest.fixture
def ask(here: Workspace, broker: Any, tmp_path: Path) -> Any:
    """Records a clustering of the same forty events into four parts."""
    source = tmp_path / "events.h5"
    random = np.random.Generator(np.random.PCG64(5))
    particles = np.zeros((N_EVENTS, 700, 3))
    particles[:, :30, 0] = random.exponential(50.0, (N_EVENTS, 30)) + 1.0
    particles[:, :30, 1:] = random.normal(0.0, 1.0, (N_EVENTS, 30, 2))
    labels = (np.arange(N_EVENTS) % 2).astype(np.int8)
    write_event_file(source, [(particles, labels)], N_EVENTS, storage_rows=10)
    status = source.stat()

    def record(radius: float, *, tolerate: float = 0.0) -> Job:
        terms = {"source": str(source), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        job = job_of(
            source_sha256=sha256_of(source),
            radius=radius,
            n_events=N_EVENTS,
            storage_rows=open_event_file(source).storage_rows,
            events_per_chunk=10,
            terms={**terms, "tolerate": tolerate},
            parts=4,
        )
        return create_job(here, job)

    return record


def test_a_worker_still_at_an_earlier_job_leaves_nothing_in_the_later_one(here: Workspace, ask: Any) -> None:
    undisturbed = ask(0.4)
    assert [cluster_part("made", index) for index in range(4)] == ["done"] * 4
    cluster_merge("made")
    expected = pq.read_table(here.dataset("made") / "events.parquet")
    shutil.rmtree(here.dataset("made"))
    discard_job(here, undisturbed)

    wide = ask(1.0)

    def make(_: Workspace, job: Job, index: int, path: Path, held: Any) -> None:
        assert job == wide
        discard_job(here, wide)  # as the refusal of another radius advises
        ask(0.4)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a part of the other radius")
        held.check()

    assert perform_chunk("cluster", "made", 2, make) == "leased"  # it stopped, and counts as no attempt
    narrow = store.load_job(here, "cluster", "made")
    assert narrow.identity != wide.identity
    assert finished_chunks(here, narrow) == set()
    assert [cluster_part("made", index) for index in range(4)] == ["done"] * 4
    cluster_merge("made")
    assert outcome_of(here, narrow).state == "done"
    assert pq.read_table(here.dataset("made") / "events.parquet").equals(expected)


def test_a_worker_stops_once_its_job_is_gone(here: Workspace, ask: Any) -> None:
    job = ask(1.0)

    def make(_: Workspace, __: Job, index: int, path: Path, held: Any) -> None:
        held.check()
        discard_job(here, job)
        with pytest.raises(LeaseLost):
            held.check()
        held.check()

    assert perform_chunk("cluster", "made", 0, make) == "leased"


def test_a_dataset_that_an_earlier_job_left_is_not_the_result_of_a_later_one(
    here: Workspace, ask: Any
) -> None:
    ask(1.0)
    assert [cluster_part("made", index) for index in range(4)] == ["done"] * 4

    def late_merge(place: Workspace, job: Job, parts: Any, lost: Any) -> str:
        from tasks.stages import cluster

        said: str = cluster._merge(place, job, parts, lost)
        discard_job(place, job)  # it was removed while the merge ran
        return said

    perform_merge("cluster", "made", late_merge)
    shutil.rmtree(here.job("cluster", "made"), ignore_errors=True)
    (here.dataset("made")).rename(here.root / "aside")
    later = ask(0.4)
    (here.root / "aside").rename(here.dataset("made"))  # the late merge commits now
    assert [cluster_part("made", index) for index in range(4)] == ["done"] * 4
    cluster_merge("made")
    outcome = outcome_of(here, later)
    assert outcome.state == "failed"
    assert "exists already, with another config" in outcome.message


def test_a_job_of_another_lhcq_is_refused_by_commands_and_workers(
    here: Workspace, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ask(1.0)
    monkeypatch.setattr(ClusterSpec, "bytes_version", ClusterSpec.bytes_version + 1)
    with pytest.raises(NameTaken, match="begun by another version of lhcq"):
        ask(1.0)
    assert cluster_part("made", 0) == "failed"
    (failure,) = failures_of(here, job)
    assert failure.permanent
    assert "another version of lhcq" in failure.message


def test_chunks_that_an_earlier_lhcq_left_in_an_open_job_are_made_again(here: Workspace, ask: Any) -> None:
    job = ask(0.4)
    earlier = chunk_path(here, job, 1).with_suffix(".parquet")
    earlier.parent.mkdir(parents=True)
    earlier.write_bytes(b"as its format was")
    assert finished_chunks(here, job) == set()
    assert [cluster_part("made", index) for index in range(4)] == ["done"] * 4
    cluster_merge("made")
    assert outcome_of(here, job).state == "done"
    assert pq.read_table(here.dataset("made") / "events.parquet")["row"].to_pylist() == list(range(N_EVENTS))
    assert not earlier.exists()


def test_a_record_that_was_changed_by_hand_is_refused(here: Workspace, ask: Any) -> None:
    job = ask(1.0)
    record = here.job("cluster", "made") / "job.json"
    record.write_text(record.read_text().replace('"radius": 1.0', '"radius": 0.4'))
    assert cluster_part("made", 0) == "failed"
    assert "its record was changed" in failures_of(here, job)[0].message


def test_a_part_that_was_given_up_is_never_tolerated_as_rows_that_cannot_be_used(
    here: Workspace, ask: Any
) -> None:
    job = ask(1.0, tolerate=0.25)
    assert [cluster_part("made", index) for index in (0, 1, 3)] == ["done"] * 3

    def killed(*_: Any) -> None:
        raise OSError("out of memory")

    while not failures_of(here, job):
        perform_chunk("cluster", "made", 2, killed)
    cluster_merge("made")
    outcome = outcome_of(here, job)
    assert (outcome.state, outcome.message) == ("incomplete", "OSError: out of memory")
    assert not here.dataset("made").exists()
    assert finished_chunks(here, job) == {0, 1, 3}  # kept for the next try


def test_a_checkpoint_of_an_earlier_run_counts_for_nothing_and_makes_way(
    here: Workspace, new_job: Any
) -> None:
    earlier = new_job("train", "run", parts=0, checkpoint_steps=[3, 6], seed=1)
    discard_job(here, earlier)
    run = new_job("train", "run", parts=0, checkpoint_steps=[3, 6], seed=2)
    for of in (earlier.identity, run.identity):
        if not is_commit(here.checkpoint("run", 3)):
            make_way(here.checkpoint("run", 3))
        with staged_directory(here.checkpoint("run", 3)) as directory:
            (directory / "adapter").write_text(of)
            write_manifest(directory, of=of, step=3)
        known = committed_steps(here.run("run"))
        assert known == ([3] if of == run.identity else [])
        assert reached_step(here.run("run")) == (3 if of == run.identity else 0)
    assert (here.checkpoint("run", 3) / "adapter").read_text() == run.identity
    assert validate_unit("run", 3) in pending_units(here, run)


def test_a_validation_of_an_earlier_run_is_no_validation_of_this_one(here: Workspace, new_job: Any) -> None:
    run = new_job("train", "run", parts=0, checkpoint_steps=[3], seed=2)
    scores: dict[str, Any] = {
        "rows": [1, 2],
        "labels": [0, 1],
        "p_signal": [0.2, 0.8],
        "answers": None,
    }
    with staged_directory(here.checkpoint("run", 3)) as directory:
        write_manifest(directory, of=run.identity, step=3)
    write_validation(here.validation("run", 3), step=3, of="of an earlier one", **scores)
    assert validated_steps(here.run("run")) == []
    assert pending_units(here, run) == [validate_unit("run", 3)]


def test_of_two_commands_that_generate_into_one_file_the_second_is_told(
    here: Workspace, broker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "events.h5"
    monkeypatch.setattr(
        "lhcq.events.pythia.assemble",
        lambda config, paths, out, on_made: _stage(out, str(config.seed), on_made),
    )
    made = []
    for seed in (1, 2):
        asked = {"out": str(out), "background": 1, "signal": 0, "seed": seed, "detector": False}
        made.append(create_job(here, job_of("generate", f"e{seed}", parts=0, **asked)))
    for job in made:
        generate.generate_merge(job.name)
    outcomes = [outcome_of(here, job) for job in made]
    assert [outcome.state for outcome in outcomes] == ["done", "failed"]
    assert "is not what this command makes" in outcomes[1].message
    assert out.read_text() == "1"


def _stage(out: Path, text: str, on_made: Any) -> None:
    from lhcq.storage import staged_file

    with staged_file(out) as temporary:
        temporary.write_text(text)
        on_made(temporary)


def test_a_split_is_not_the_result_of_a_job_that_asked_for_another(
    here: Workspace, broker: Any, new_job: Any
) -> None:
    from tasks.stages.prepare import prepare

    with staged_directory(here.split("made")) as directory:
        write_manifest(directory, dataset="one", dataset_sha256="1", config=SplitConfig().model_dump())
    aside = here.split("made").rename(here.root / "aside")
    job = new_job("prepare", "made", parts=0, dataset="two", dataset_sha256="2")
    aside.rename(here.split("made"))
    prepare("made")
    from tasks.stages.prepare import baseline

    baseline("made")
    outcome = outcome_of(here, job)
    assert outcome.state == "failed"
    assert "exists already, with another dataset, dataset_sha256" in outcome.message


def test_the_record_of_a_job_says_what_its_parts_carry(here: Workspace, ask: Any) -> None:
    job = ask(1.0)
    recorded = json.loads((here.job("cluster", "made") / "job.json").read_text())
    assert recorded["identity"] == job.spec.identity() == job.identity
    assert recorded["spec"] == job.spec.recorded()
    assert chunk_path(here, job, 3).parent.name == job.identity
    with pytest.raises(BadInput):
        store.require_same_bytes(job.model_copy(update={"identity": ""}))
