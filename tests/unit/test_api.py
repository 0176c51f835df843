"""The Python interface never ends well with what is something else's."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import lhcq
from lhcq.config import SplitConfig
from lhcq.errors import BadInput, NameTaken
from lhcq.events.layout import write_event_file
from lhcq.manifests import write_manifest
from lhcq.prompts.writing import write_split
from lhcq.records.commits import digests_of
from lhcq.records.jobs import MADE, directory_of, end_job
from lhcq.storage import MANIFEST, sha256_of, write_json
from lhcq.workspace import Workspace
from tasks.jobs.store import create_job, done_already
from tests.specs import job_of

N_EVENTS = 80


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Events of some thirty particles, every other one signal."""
    path = tmp_path_factory.mktemp("events") / "events.h5"
    random = np.random.Generator(np.random.PCG64(3))
    particles = np.zeros((N_EVENTS, 700, 3))
    particles[:, :30, 0] = random.exponential(50.0, (N_EVENTS, 30)) + 1.0
    particles[:, :30, 1:] = random.normal(0.0, 1.0, (N_EVENTS, 30, 2))
    write_event_file(path, [(particles, np.arange(N_EVENTS) % 2)], N_EVENTS)
    return path


def test_the_same_again_is_done_already_and_another_request_is_refused(
    place: Workspace, events: Path
) -> None:
    first = lhcq.cluster(events, "made", workspace=place)
    before = (first.path / "events.parquet").stat()
    assert lhcq.cluster(events, "made", workspace=place) == first
    assert (first.path / "events.parquet").stat() == before
    with pytest.raises(NameTaken, match=r"made of something else \(--radius 0\.5, was 1\.0\)"):
        lhcq.cluster(events, "made", workspace=place, radius=0.5)


def test_what_was_planned_in_a_workspace_is_submitted_there_and_nowhere_else(
    place: Workspace, events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment names another one, to which a program's plan went."""
    other = tmp_path / "of the environment"
    monkeypatch.setenv("LHCQ_WORKSPACE", str(other))
    made = lhcq.cluster(events, "made", workspace=place)
    plan = lhcq.plan_cluster(events, "made", workspace=place)
    assert lhcq.submit(plan).result() == made
    assert not other.exists()
    with pytest.raises(BadInput, match=r"was planned in .* and not for .*of the environment"):
        lhcq.submit(plan, workspace=other)


def test_what_stands_in_another_workspace_is_not_taken_by_its_name_alone(
    place: Workspace, events: Path, tmp_path: Path
) -> None:
    """Both have a dataset of that name, of other jets."""
    elsewhere = Workspace(tmp_path / "elsewhere")
    here, there = (
        lhcq.cluster(events, "made", workspace=where, radius=radius)
        for where, radius in ((place, 1.0), (elsewhere, 0.5))
    )
    run = lhcq.results.Run("run", place)
    for wrong in (
        lambda: lhcq.plan_score(run, there),
        lambda: lhcq.score(run, there),
        lambda: lhcq.mix("mixed", background=[there], signal=here, signal_events=1),
        lambda: lhcq.plan_search(here, beside=lhcq.results.Search("made", elsewhere)),
        lambda: lhcq.search(here, beside=lhcq.results.Search("made", elsewhere)),
        lambda: lhcq.prepare(there, "split", workspace=place),
    ):
        with pytest.raises(BadInput, match=r"made stands in .*elsewhere, not in .*: a job has one workspace"):
            wrong()


def test_a_workspace_is_the_same_by_a_link_to_it(place: Workspace, events: Path, tmp_path: Path) -> None:
    made = lhcq.cluster(events, "made", workspace=place)
    link = tmp_path / "link"
    link.symlink_to(place.root)
    plan = lhcq.plan_cluster(events, "made", workspace=link)
    assert lhcq.submit(plan, workspace=place).result().path == made.path


def test_a_dataset_that_came_under_the_name_of_a_removed_one_is_not_taken_for_it(
    place: Workspace, events: Path
) -> None:
    """The record of the job stays, and says that it is done."""
    made, other = (
        lhcq.cluster(events, "made", workspace=place),
        lhcq.cluster(events, "b", workspace=place, radius=0.5),
    )
    shutil.rmtree(made.path)
    other.path.rename(made.path)
    with pytest.raises(NameTaken, match=r"made of something else \(config\)"):
        lhcq.cluster(events, "made", workspace=place)


def test_a_generated_file_that_was_written_over_is_not_taken_for_it(place: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    out.write_text("made")
    job = job_of("generate", out=str(out))
    shutil.move(out, tmp_path / "aside")
    job = create_job(place, job)
    end_job(place, job, "done", "made")
    shutil.move(tmp_path / "aside", out)
    write_json(directory_of(place, job) / MADE, {"sha256": sha256_of(out)})
    assert done_already(place, job)
    out.write_text("mine")
    with pytest.raises(NameTaken, match="its contents are others"):
        done_already(place, job)


def test_a_run_reads_no_jets_that_it_was_not_trained_on(place: Workspace, events: Path) -> None:
    own = lhcq.cluster(events, "own", workspace=place)
    other = lhcq.cluster(events, "other", workspace=place, radius=0.5)
    split = write_split(own.path, place.split("split"), config=SplitConfig())
    job = create_job(place, job_of("train", "run", split="split", split_sha256=digests_of(split)))
    checkpoint = place.checkpoint("run", 10)
    checkpoint.mkdir(parents=True)
    (checkpoint / "adapter_model.safetensors").write_bytes(b"")
    write_manifest(checkpoint, step=10, of=job.identity)
    run = lhcq.load("run", workspace=place)
    for given in (other, "other"):
        with pytest.raises(
            BadInput, match=r"other: its jets are others than those of own.*radius 0\.5, not 1\.0"
        ):
            run.predict(given, step="latest")
    with pytest.raises(BadInput, match="models/smollm2"):  # its own would be read, but the base model is gone
        run.predict(own, step="latest")
    shutil.rmtree(own.path)
    with pytest.raises(BadInput, match=r"radius 0\.5, not 1\.0"):  # its split tells how its jets were found
        run.predict(other, step="latest")
    lhcq.cluster(events, "own", workspace=place, radius=0.5)
    with pytest.raises(BadInput, match="own: its jets are others than those of own of before, which the run"):
        run.predict("own", step="latest")
    shutil.rmtree(own.path)
    of_earlier = {key: value for key, value in split.items() if key != "jets"}
    write_json(place.split("split") / MANIFEST, of_earlier)
    with (
        pytest.warns(
            UserWarning, match="own, which the run was trained on, is gone: whether the jets of other"
        ),
        pytest.raises(BadInput, match="models/smollm2"),
    ):
        run.predict(other, step="latest")
