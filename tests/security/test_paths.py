"""Names and paths that would lead out of the workspace and the data roots."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lhcq.environment import Settings
from lhcq.errors import BadInput, LhcqError
from lhcq.manifests import verify_files
from lhcq.records.jobs import Job, find_job, list_jobs
from lhcq.records.specs import ClusterSpec, ClusterTerms
from lhcq.storage import write_json
from lhcq.workspace import Workspace
from tasks.jobs.kinds import chunk_path, chunk_unit, finished_chunks
from tasks.jobs.train import validate_unit
from tests.specs import job_of, spec_of, terms_of

NAMES = (
    "..", ".", "../x", "a/b", "/etc", "a\\..\\b/", "a\0b", "a\nb", "a\n", "\na", " a", "a ", "", "-rf", "~", "~root",
    "ａ", "․․", "a\u202eb", "a\u200bb", "é", "²", "a\ud800", "x" * 65, "$(id)", "a;b", "*", "a:b",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_plain_or_refused_wherever_it_becomes_a_path(place: Workspace, name: str) -> None:
    for make in (place.dataset, place.split, place.run, place.baseline, place.prediction):
        with pytest.raises(BadInput, match="cannot name a") as caught:
            make(name)
        assert "\n" not in str(caught.value)
        str(caught.value).encode()
    with contextlib.suppress(BadInput):
        assert place.model(f"owner/{name}").parent == place.root / "models"
    with pytest.raises(BadInput):
        place.job("cluster", name + "/")


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root, which the environment names."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("LHCQ_DATA_ROOTS", f"{root}:{tmp_path / 'more'}")
    return root


@pytest.fixture
def guarded(here: Workspace, roots: Path) -> Workspace:
    """A workspace with a data root, which the tasks of this process work in."""
    return Workspace(here.root, Settings.from_environment().data_roots)


def test_a_path_is_followed_to_its_end_before_it_is_allowed(
    guarded: Workspace, roots: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "events.h5").touch()
    (roots / "link.h5").symlink_to(outside / "events.h5")
    (roots / "door").symlink_to(outside)
    (roots / "to-us").symlink_to(guarded.root)
    (tmp_path / "data-of-another").mkdir()
    for path in (
        outside / "events.h5",
        roots / "link.h5",
        roots / "door" / "events.h5",
        roots / ".." / "outside" / "events.h5",
        Path("/etc/passwd"),
        Path("/proc/self/environ"),
        tmp_path / "data-of-another" / "events.h5",  # only begins like the root
    ):
        with pytest.raises(BadInput, match="outside of the workspace and of LHCQ_DATA_ROOTS"):
            guarded.permitted(path)
    for path in (
        roots / "events.h5",
        guarded.root / "events.h5",
        tmp_path / "more" / "x",
        roots / "to-us" / "x",
    ):
        assert guarded.permitted(path) == path.resolve()


def test_a_record_that_names_a_file_outside_is_refused_by_every_task_that_would_open_it(
    guarded: Workspace, tmp_path: Path, event_file_outside: Path
) -> None:
    from tasks.stages.cluster import open_source, read_key
    from tasks.stages.generate import _merge

    secret = tmp_path / "secret"
    secret.write_text("the first line of somebody's file\n")
    terms = terms_of("cluster", source=str(event_file_outside), labels=str(secret))
    spec = spec_of("cluster")
    assert isinstance(terms, ClusterTerms)
    assert isinstance(spec, ClusterSpec)
    for read in (
        lambda: open_source(guarded, spec, terms),
        lambda: read_key(guarded, terms.labels, "0" * 64, 1),
    ):
        with pytest.raises(BadInput, match="LHCQ_DATA_ROOTS") as caught:
            read()
        assert "first line" not in str(caught.value)
    out = tmp_path / "planted.h5"
    with pytest.raises(BadInput, match="LHCQ_DATA_ROOTS"):
        _merge(guarded, job_of("generate", out=str(out), background=1, signal=0), {}, {})
    assert not out.exists()


@pytest.fixture
def event_file_outside(tmp_path: Path) -> Path:
    """An event file of somebody else's."""
    import numpy as np

    from lhcq.events.layout import write_event_file

    write_event_file(tmp_path / "events.h5", [(np.zeros((2, 700, 3)), np.zeros(2))], 2)
    return tmp_path / "events.h5"


def test_commands_refuse_a_path_outside_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, guarded: Workspace, event_file_outside: Path, tmp_path: Path
) -> None:
    from click.testing import CliRunner

    from lhcq.cli.main import cli

    for words in (
        ("cluster", event_file_outside, "--name", "made"),
        ("generate", tmp_path / "out.h5", "--background", "1", "--signal", "1"),
    ):
        done = CliRunner().invoke(cli, [*map(str, words)])
        assert isinstance(done.exception, BadInput)
        assert "LHCQ_DATA_ROOTS" in str(done.exception)
    assert not list(guarded.root.glob("jobs/*"))


@pytest.mark.parametrize("below", ["jobs", "jobs/cluster-made", "jobs/cluster-made/parts"])
def test_a_link_that_was_planted_in_the_workspace_is_not_followed_out_of_it(
    place: Workspace, tmp_path: Path, below: str
) -> None:
    victim = tmp_path / "home"
    (victim / "parts").mkdir(parents=True)
    (victim / "parts" / "000000.arrows").write_text("mine")
    link = place.root / below
    link.parent.mkdir(parents=True)
    link.symlink_to(victim)
    job = job_of()
    for touch in (lambda: chunk_path(place, job, 0), lambda: finished_chunks(place, job)):
        with pytest.raises(BadInput, match="a link that leads out of the workspace"):
            touch()
    assert list_jobs(place) == []
    assert (victim / "parts" / "000000.arrows").read_text() == "mine"


def test_a_link_within_the_workspace_is_followed(place: Workspace, tmp_path: Path) -> None:
    (place.root / "large").mkdir(parents=True)
    (place.root / "datasets").symlink_to(place.root / "large")
    assert place.dataset("made") == place.root / "datasets" / "made"
    (tmp_path / "disk").mkdir()
    (place.root / "runs").symlink_to(tmp_path / "disk")
    assert Workspace(place.root, [tmp_path / "disk"]).run("made") == place.root / "runs" / "made"


def test_the_record_of_another_job_is_not_taken_for_this_one(place: Workspace, new_job: Any) -> None:
    good = new_job(name="good")
    forged = good.model_dump() | {"name": "../../../etc"}
    write_json(place.root / "jobs" / "cluster-forged" / "job.json", forged)
    write_json(place.root / "runs" / "forged" / "job.json", good.model_dump())
    write_json(place.root / "jobs" / "cluster-odd" / "job.json", {"cls": 1})
    (place.root / "jobs" / "cluster-text").mkdir()
    (place.root / "jobs" / "cluster-text" / "job.json").write_text("[" * 100_000)
    assert list_jobs(place) == [good]  # the others neither hide it nor keep the reconciler from it
    for kind, name in (("cluster", "forged"), ("train", "forged"), ("cluster", "odd"), ("cluster", "text")):
        with pytest.raises(BadInput):
            find_job(place, kind, name)


def test_a_manifest_may_name_files_of_its_own_directory_alone(tmp_path: Path) -> None:
    for name in ("../secret", "/etc/hostname", "a/../../secret"):
        with pytest.raises(BadInput, match="names a file of another directory"):
            verify_files(tmp_path, {"files": {name: {"sha256": "0"}}})


@pytest.fixture
def training(here: Workspace) -> Job:
    """A run with a checkpoint at 10 and none at 20."""
    from tasks.jobs.store import create_job

    job = create_job(here, job_of("train", "run", parts=0, checkpoint_steps=[10, 20], total_steps=20))
    write_json(here.checkpoint("run", 10) / "manifest.json", {"files": {}})
    return job


def test_a_message_out_of_turn_neither_ends_a_training_nor_does_its_test(
    broker: Any, here: Workspace, training: Job
) -> None:
    from lhcq.records.failures import failures_of
    from lhcq.records.jobs import outcome_of
    from tasks.engine.execute import perform
    from tasks.jobs.train import test_unit

    def work(*_: Any) -> None:
        pytest.fail("was done")

    for unit in (test_unit("run"), validate_unit("run", 999), validate_unit("run", 20)):
        assert perform(unit, work, done=lambda *_: False) == "closed"
    assert outcome_of(here, training) is None
    assert failures_of(here, training) == []


def test_a_part_that_the_job_does_not_have_is_not_made(broker: Any, here: Workspace, new_job: Any) -> None:
    from tasks.stages.fanout import perform_chunk

    job = new_job(parts=2)
    for index in (-1, 2, 10**9):
        assert perform_chunk("cluster", "made", index, lambda *_: pytest.fail("was made")) == "closed"
    assert not list(here.root.rglob("*.arrows"))
    assert chunk_unit(job, 1).args == ("made", 1)


def test_one_job_whose_record_makes_no_sense_does_not_keep_others_from_being_healed(
    broker: Any, here: Workspace, new_job: Any
) -> None:
    from tasks.engine.reconciler import Reconciler
    from tasks.jobs.turns import turns_of

    for name, steps in (("broken", "soon"), ("poor", None), ("endless", [])):
        new_job("train", name)
        record = here.run(name) / "job.json"
        asked = json.loads(record.read_text())
        del asked["spec"]["checkpoint_steps"]
        asked["spec"] |= {} if steps is None else {"checkpoint_steps": steps}
        record.write_text(json.dumps(asked))
    good = new_job("cluster", "good", parts=2)
    Reconciler().scan(here)
    assert turns_of([good])[0].out == [chunk_unit(good, index) for index in range(2)]


def test_an_error_stays_in_one_line_whatever_a_file_is_called() -> None:
    said = str(LhcqError("a\nlhcq: all is well\r\x1b]0;owned\x07 \u202e \udcff " + "x" * 10**6))
    assert said.isprintable()
    assert len(said) < 20_000
    json.dumps(said).encode()
    said.encode()


def test_an_abandoned_job_does_not_take_with_it_what_a_link_names(
    place: Workspace, new_job: Any, tmp_path: Path
) -> None:
    from tasks.jobs.store import discard_job

    job = new_job()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "file").touch()
    (place.job("cluster", "made") / "parts").symlink_to(tmp_path / "home")
    discard_job(place, job)
    assert (tmp_path / "home" / "file").exists()
    shutil.rmtree(place.root)
