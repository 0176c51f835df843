"""What is asked for becomes a job below the command line: everything that decides the result is resolved there."""

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lhcq.config import ClusterConfig, GenerateConfig, SplitConfig, TrainConfig
from lhcq.errors import BadInput, NameTaken, NotThere
from lhcq.events.columns import UNLABELLED_WIDTH
from lhcq.events.layout import open_event_file, write_event_file
from lhcq.events.pytables import create_frame
from lhcq.manifests import write_manifest
from lhcq.model.identity import identify
from lhcq.model.tokens import encode_prompts
from lhcq.prompts.writing import write_split
from lhcq.records.jobs import Job, find_job
from lhcq.records.specs import ClusterSpec, PredictSpec
from lhcq.requests.cluster import chunks_of, cluster_request, find_events
from lhcq.requests.generate import generate_request
from lhcq.requests.predict import predict_request, stretches_of
from lhcq.requests.prepare import prepare_request
from lhcq.requests.train import TrainRequest, longest_prompt, train_request
from lhcq.storage import read_json, sha256_of, sha256_of_json
from lhcq.workspace import Workspace
from tasks.client import do_here
from tasks.jobs.planner import pending_units
from tasks.jobs.store import create_job
from tasks.jobs.units import Unit
from tests.tiny_models import write_tokenizer

N_SOURCE, N_RECORDS = 40, 44
SMALL, LARGE = 999_999_999, 1_000_000_000
"""Weights of a base model, on either side of where the default rate changes."""
SUBSETS = ("train", "validation", "calibration", "test")
TRAINING = TrainConfig(max_steps=2, rank=4)

# What each command recorded before there were typed specs: one field more or less is another identity.
RECORDED = {
    "generate": {"out", "config"},
    "cluster": {
        "source_sha256",
        "labels_sha256",
        "n_events",
        "storage_rows",
        "events_per_chunk",
        "config",
    },
    "prepare": {"dataset", "dataset_sha256", "config", "model", "model_dir", "max_tokens"},
    "train": {
        "split",
        "split_sha256",
        "model",
        "model_dir",
        "base",
        "preset",
        "config",
        "config_sha256",
        "n_train",
        "total_steps",
        "checkpoint_steps",
    },
    "predict": {
        "run",
        "step",
        "checkpoint_sha256",
        "config",
        "model",
        "model_dir",
        "base",
        "split",
        "template",
        "n_reference",
        "reference_sha256",
        "dataset",
        "dataset_sha256",
        "trained_on",
        "n_events",
        "n_source",
        "labels_sha256",
        "largest_p_value",
        "events_per_chunk",
    },
}
CONFIG = {
    "generate": {"background", "signal", "seed", "detector"},
    "cluster": {"algorithm", "radius", "pt_min", "max_jets", "features"},
    "prepare": {"limit", "ratio", "seed", "template"},
    "train": {
        "accumulation",
        "alpha",
        "batch_size",
        "checkpoint_every",
        "checkpoints",
        "class_weighted",
        "compute",
        "dropout",
        "epochs",
        "evaluation_batch",
        "keep",
        "learning_rate",
        "max_grad_norm",
        "max_memory",
        "max_steps",
        "max_tokens",
        "on_collapse",
        "on_divergence",
        "on_nan",
        "on_overfitting",
        "on_unknown",
        "patience",
        "rank",
        "sampling",
        "schedule",
        "seed",
        "select",
        "target",
        "warmup_fraction",
        "weight_decay",
    },
}
CONFIG["predict"] = CONFIG["train"]
TERMS = {
    "generate": set(),
    "cluster": {"source", "bytes", "mtime_ns", "labels", "tolerate"},
    "prepare": set(),
    "train": set(),
    "predict": {"labels"},
}
BYTES_VERSIONS = {"generate": 1, "cluster": 3, "prepare": 1, "train": 1, "predict": 2}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An event file, ten rows to a storage chunk."""
    path = tmp_path / "events.h5"
    particles = np.zeros((N_SOURCE, 700, 3))
    particles[:, :30, 0] = 1.0
    write_event_file(path, [(particles, np.arange(N_SOURCE) % 2)], N_SOURCE, storage_rows=10)
    return path


@pytest.fixture
def blind(tmp_path: Path) -> Path:
    """The same without labels."""
    path = tmp_path / "blind.h5"
    with h5py.File(path, "w") as file:
        values = create_frame(file, rows=N_SOURCE, width=UNLABELLED_WIDTH, storage_rows=10)
        values[:, 0] = 1.0
    return path


def write_weights(directory: Path, n_weights: int) -> Path:
    """A model as far as a request looks at one: so many weights of half a bit each, in a file with a hole."""
    write_tokenizer(directory)
    (directory / "config.json").write_text(json.dumps({"model_type": "llama"}))
    size = math.ceil(n_weights / 8)
    entry = {"dtype": "U8", "shape": [n_weights], "data_offsets": [0, size]}
    header = json.dumps({"weight": entry}).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    return directory


@pytest.fixture
def model(place: Workspace) -> Path:
    return write_weights(place.root / "models" / "tiny", 64)


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a dataset and its split."""
    directory = tmp_path_factory.mktemp("clustered")
    place, path = Workspace(directory / "workspace"), directory / "events.h5"
    random = np.random.Generator(np.random.PCG64(5))
    particles = np.zeros((N_RECORDS, 700, 3))
    particles[:, :30, 0] = random.exponential(50.0, (N_RECORDS, 30)) + 1.0
    particles[:, :30, 1:] = random.normal(0.0, 1.0, (N_RECORDS, 30, 2))
    write_event_file(path, [(particles, np.arange(N_RECORDS) % 2)], N_RECORDS)
    place.create()
    done = do_here(place, cluster_request(place, open_event_file(path), "events", ClusterConfig()))
    assert done.state == "done"
    write_split(place.dataset("events"), place.split("split"), config=SplitConfig())
    return place.root


@pytest.fixture
def made(place: Workspace, clustered: Path) -> Workspace:
    """A copy of it."""
    shutil.copytree(clustered / "datasets", place.root / "datasets")
    shutil.copytree(clustered / "splits", place.root / "splits")
    return place


def ask_training(place: Workspace, model: Path, config: TrainConfig = TRAINING, **rest: Any) -> TrainRequest:
    return train_request(place, "split", "run", config, model="tiny", model_dir=model, **rest)


@pytest.fixture
def trained(made: Workspace, model: Path) -> Workspace:
    """The same with a run that has one checkpoint."""
    job = create_job(made, ask_training(made, model).job)
    checkpoint = made.checkpoint("run", 2)
    checkpoint.mkdir(parents=True)
    (checkpoint / "adapter_model.safetensors").write_bytes(b"adapter")
    write_manifest(checkpoint, of=job.identity, step=2)
    return made


# What is recorded.


def requests_of_each_kind(place: Workspace, source: Path, model: Path) -> dict[str, Job]:
    return {
        "generate": generate_request(place, source.parent / "out.h5", GenerateConfig(background=3, signal=2)),
        "cluster": cluster_request(place, open_event_file(source), "made", ClusterConfig()),
        "prepare": prepare_request(place, "events", "other", SplitConfig(), model="tiny", model_dir=model),
        "train": ask_training(place, model).job,
        "predict": predict_request(place, "run", "events", step="2"),
    }


def test_a_request_records_what_commands_have_always_recorded(
    trained: Workspace, source: Path, model: Path
) -> None:
    for kind, job in requests_of_each_kind(trained, source, model).items():
        recorded = job.spec.recorded()
        assert job.kind == kind
        assert set(recorded) == RECORDED[kind]
        assert set(recorded["config"]) == CONFIG[kind]
        assert set(job.terms.recorded()) == TERMS[kind]
        everything = {"kind": kind, "spec": recorded, "bytes": BYTES_VERSIONS[kind]}
        assert job.spec.identity() == sha256_of_json(everything)[:16]
        assert job.identity == ""  # which is set when it is recorded


def test_what_is_recorded_is_what_was_resolved(trained: Workspace, source: Path, model: Path) -> None:
    asked = requests_of_each_kind(trained, source, model)
    dataset, split = trained.dataset("events") / "events.parquet", trained.split("split")
    resolved = TRAINING.model_copy(update={"learning_rate": 1e-3}).model_dump()
    assert asked["generate"].spec.recorded() == {
        "out": str(source.parent / "out.h5"),
        "config": {"background": 3, "signal": 2, "seed": 1, "detector": True},
    }
    assert asked["prepare"].spec.recorded() == {
        "dataset": "events",
        "dataset_sha256": sha256_of(dataset),
        "config": {"limit": None, "ratio": "1:1", "seed": 1, "template": "compact"},
        "model": "tiny",
        "model_dir": "models/tiny",  # as other machines find it
        "max_tokens": 512,
    }
    assert asked["train"].spec.recorded() == {
        "split": "split",
        "split_sha256": {f"{subset}.parquet": sha256_of(split / f"{subset}.parquet") for subset in SUBSETS},
        "model": "tiny",
        "model_dir": "models/tiny",
        "base": identify(model).model_dump(),
        "preset": "default",
        "config": resolved,
        "config_sha256": sha256_of_json(resolved),
        "n_train": 26,
        "total_steps": 2,
        "checkpoint_steps": [1, 2],
    }
    predicted = asked["predict"].spec.recorded()
    assert predicted["template"]["name"] == "compact"
    del predicted["template"]
    assert predicted == {
        "run": "run",
        "step": 2,
        "checkpoint_sha256": sha256_of(trained.checkpoint("run", 2) / "adapter_model.safetensors"),
        "config": resolved,
        "model": "tiny",
        "model_dir": "models/tiny",
        "base": identify(model).model_dump(),
        "split": "split",
        "n_reference": 4,
        "reference_sha256": sha256_of(split / "calibration.parquet"),
        "dataset": "events",
        "dataset_sha256": sha256_of(dataset),
        "trained_on": True,
        "n_events": N_RECORDS,
        "n_source": N_RECORDS,
        "labels_sha256": None,
        "largest_p_value": 0.01,
        "events_per_chunk": 250,
    }


def test_asking_writes_nothing(trained: Workspace, source: Path, model: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.root.rglob("*") if path.is_file()}
    for kind, job in requests_of_each_kind(trained, source, model).items():
        assert kind == "train" or find_job(trained, kind, job.name) is None
    after = {path: path.stat().st_mtime_ns for path in trained.root.rglob("*") if path.is_file()}
    digests = {path for path in after if trained.digests in path.parents}  # which may be removed at any time
    assert {path: after[path] for path in after.keys() - digests} == {
        path: before[path] for path in before.keys() - digests
    }


def test_the_same_request_is_the_same_spec(trained: Workspace, source: Path, model: Path) -> None:
    first, again = (requests_of_each_kind(trained, source, model) for _ in range(2))
    for kind, job in first.items():
        assert job.spec == again[kind].spec
        assert job.name == again[kind].name
        assert job.spec.differences(again[kind].spec) == []


# Generation.


def test_a_generation_is_named_after_its_file_and_what_is_asked_for(place: Workspace, tmp_path: Path) -> None:
    place.create()
    config = GenerateConfig(background=3, signal=2)
    name = generate_request(place, tmp_path / "my events.h5", config).name
    assert name.startswith("my-events-")
    assert len(name) == len("my-events-") + 8
    other = generate_request(place, tmp_path / "my events.h5", GenerateConfig(background=3, signal=3))
    assert other.name != name
    assert generate_request(place, tmp_path / "…", config).name.startswith("events-")


def test_a_generation_that_cannot_be_is_refused(place: Workspace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing to generate: give --background or --signal above 0"):
        generate_request(place, tmp_path / "out.h5", GenerateConfig(background=0, signal=0))
    with pytest.raises(BadInput, match=r"nowhere: no such directory to write out\.h5 into\. Make it first"):
        generate_request(place, tmp_path / "nowhere" / "out.h5", GenerateConfig(background=1, signal=1))


# Clustering.


def test_a_source_is_known_by_its_hash_and_where_it_stands_is_a_term(place: Workspace, source: Path) -> None:
    place.create()
    events = find_events(place, source, ClusterConfig())
    job = cluster_request(place, events, "made", ClusterConfig(), tolerate=0.1)
    moved = source.rename(source.parent / "moved.h5")
    again = cluster_request(place, find_events(place, moved, ClusterConfig()), "made", ClusterConfig())
    assert job.spec == again.spec
    assert job.spec.recorded()["source_sha256"] == sha256_of(moved)
    assert job.terms.recorded() == {
        "source": str(source),
        "bytes": moved.stat().st_size,
        "mtime_ns": moved.stat().st_mtime_ns,
        "labels": None,
        "tolerate": 0.1,
    }
    assert again.terms.recorded()["source"] == str(moved)


@pytest.mark.parametrize(
    ("chunk", "stops"),
    [(None, [20, 40]), (10, [10, 20, 30, 40]), (15, [10, 20, 40]), (1, [10, 20, 30, 40]), (100, [40])],
)
def test_a_clustering_is_cut_where_the_file_is(
    place: Workspace, source: Path, chunk: int | None, stops: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No storage chunk is read twice; without a word about it, by what takes about three seconds."""
    monkeypatch.setattr("lhcq.jets.plan.FEWEST_EVENTS", 20)
    job = cluster_request(place, open_event_file(source), "made", ClusterConfig(), chunk=chunk)
    chunks = chunks_of(job.spec_of(ClusterSpec))
    assert [one.stop for one in chunks] == stops
    assert [one.start for one in chunks] == [0, *stops[:-1]]
    assert job.parts == len(stops)
    assert job.spec.recorded()["events_per_chunk"] == (chunk or 20)


def test_a_clustering_that_cannot_be_is_refused(place: Workspace, source: Path, blind: Path) -> None:
    place.create()
    key = source.parent / "key"
    key.write_text("0\n1\n" * (N_SOURCE // 2))
    labelled, unlabelled = (
        find_events(place, source, ClusterConfig()),
        find_events(place, blind, ClusterConfig()),
    )
    asked = cluster_request(place, unlabelled, "made", ClusterConfig(), key=key)
    assert asked.spec.recorded()["labels_sha256"] == sha256_of(key)
    assert asked.terms.recorded()["labels"] == str(key)
    with pytest.raises(BadInput, match=r"events\.h5: has labels of its own\. Leave --labels out"):
        cluster_request(place, labelled, "made", ClusterConfig(), key=key)
    for tolerate in (math.nan, -0.1, 1.5, math.inf):
        with pytest.raises(BadInput, match=r"is no fraction of the events .*: give one from 0 to 1"):
            cluster_request(place, labelled, "made", ClusterConfig(), tolerate=tolerate)
    with pytest.raises(BadInput, match="cannot name a dataset"):
        cluster_request(place, labelled, "../made", ClusterConfig())
    key.write_text("0\n" * 9)
    with pytest.raises(BadInput, match="9 lines for 40 events"):
        cluster_request(place, unlabelled, "made", ClusterConfig(), key=key)
    with pytest.raises(BadInput, match="there is no such file"):
        find_events(place, source.parent / "missing.h5", ClusterConfig())
    guarded = Workspace(place.root, [place.root / "data"])
    with pytest.raises(BadInput, match="LHCQ_DATA_ROOTS"):
        find_events(guarded, source, ClusterConfig())


def test_a_long_file_is_said_to_be_read(place: Workspace, source: Path, monkeypatch: Any) -> None:
    said: list[str] = []
    cluster_request(place, open_event_file(source), "made", ClusterConfig(), say=said.append)
    assert said == []
    monkeypatch.setattr("lhcq.requests.cluster._LONG_TO_HASH", 0)
    cluster_request(place, open_event_file(source), "made", ClusterConfig(), say=said.append)
    assert len(said) == 1
    assert "once for its sha256" in said[0]


# Prompts.


def test_prompts_of_a_dataset_that_is_not_there_are_refused(made: Workspace, model: Path) -> None:
    with pytest.raises(NotThere, match=r"dataset 'gone' .*Make it with `lhcq cluster` or `lhcq import`"):
        prepare_request(made, "gone", "other", SplitConfig())
    with pytest.raises(BadInput, match="cannot name a split"):
        prepare_request(made, "events", "-x", SplitConfig())
    without = prepare_request(made, "events", "other", SplitConfig(), max_tokens=300).spec.recorded()
    assert (without["model"], without["model_dir"], without["max_tokens"]) == (None, None, 300)


# Training.


@pytest.mark.parametrize(("n_weights", "rate"), [(64, 1e-3), (SMALL, 1e-3), (LARGE, 2e-4)])
def test_the_default_rate_is_that_of_the_models_size(made: Workspace, n_weights: int, rate: float) -> None:
    model = write_weights(made.root / "models" / "sized", n_weights)
    request = ask_training(made, model)
    assert request.config.learning_rate == rate
    recorded = request.job.spec.recorded()
    assert recorded["config"]["learning_rate"] == rate
    assert recorded["config_sha256"] == sha256_of_json(request.config.model_dump())
    given = ask_training(made, model, TRAINING.model_copy(update={"learning_rate": 0.5}))
    assert given.job.spec.recorded()["config"]["learning_rate"] == 0.5


def lengthen(split: Path, subset: str, prompt: str) -> int:
    """Give a subset one longer prompt; its tokens."""
    table = pq.read_table(split / f"{subset}.parquet")
    prompts = [prompt, *table["prompt"].to_pylist()[1:]]
    column = table.schema.get_field_index("prompt")
    pq.write_table(table.set_column(column, "prompt", pa.array(prompts)), split / f"{subset}.parquet")
    manifest = json.loads((split / "manifest.json").read_text())
    manifest.pop("files")
    write_manifest(split, **manifest)
    return len(prompt)


@pytest.mark.parametrize("subset", SUBSETS)
def test_the_longest_prompt_is_found_in_whatever_subset_it_is(
    made: Workspace, model: Path, subset: str
) -> None:
    split, encode = made.split("split"), encode_prompts(model)
    usual = longest_prompt(split, encode, max_tokens=512)
    assert usual < 200  # each digit is a token
    length = lengthen(split, subset, "7" * (usual + 1))
    assert longest_prompt(split, encode, max_tokens=512) == length == usual + 1
    request = ask_training(made, model)
    assert request.longest == usual + 1
    assert request.job.spec.recorded()["config"]["max_tokens"] == 512
    with pytest.raises(BadInput, match=f"its prompt has {usual + 1} tokens, {usual} are allowed"):
        ask_training(made, model, TRAINING.model_copy(update={"max_tokens": usual}))
    ask_training(made, model, TRAINING.model_copy(update={"max_tokens": usual + 1}))


def test_every_subset_of_a_split_is_one_of_the_four(made: Workspace) -> None:
    assert {path.stem for path in made.split("split").glob("*.parquet")} == set(SUBSETS)


def test_a_plan_is_recorded_as_it_will_be_followed(made: Workspace, model: Path) -> None:
    config = TrainConfig(max_steps=9, checkpoint_every=4, batch_size=2, epochs=2)
    recorded = ask_training(made, model, config, preset="diary").job.spec.recorded()
    assert (recorded["total_steps"], recorded["checkpoint_steps"]) == (9, [4, 8, 9])
    assert (recorded["n_train"], recorded["preset"]) == (26, "diary")


def test_a_tracker_is_a_term(made: Workspace, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lhcq.requests.train.require_tracker", lambda _: None)
    told, silent = ask_training(made, model, track="mlflow").job, ask_training(made, model).job
    assert told.terms.recorded() == {"track": "mlflow"}
    assert silent.terms.recorded() == {}
    assert told.spec == silent.spec


def test_a_model_elsewhere_is_recorded_by_its_whole_path(made: Workspace, tmp_path: Path) -> None:
    model = write_weights(tmp_path / "elsewhere", 64)
    assert ask_training(made, model).job.spec.recorded()["model_dir"] == str(model)


def test_a_training_that_cannot_be_is_refused(
    made: Workspace, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(BadInput, match="trackio"):
        ask_training(made, model, track="trackio")
    with pytest.raises(BadInput, match="cannot name a run"):
        train_request(made, "split", "a/b", TRAINING, model="tiny", model_dir=model)
    with pytest.raises(NotThere, match=r"split 'gone' .*Make it with `lhcq prepare`"):
        train_request(made, "gone", "run", TRAINING, model="tiny", model_dir=model)
    split = made.split("split")
    (split / "test.parquet").write_bytes((split / "train.parquet").read_bytes())
    with pytest.raises(BadInput, match=r"test\.parquet: differs from its manifest"):
        ask_training(made, model)


def test_a_split_without_training_prompts_is_refused(made: Workspace, model: Path) -> None:
    split = made.split("split")
    manifest = json.loads((split / "manifest.json").read_text())
    manifest.pop("files")
    manifest["counts"]["train"] = {"signal": 0, "background": 0}
    write_manifest(split, **manifest)
    with pytest.raises(BadInput, match="split 'split' has no training prompts"):
        ask_training(made, model)


# Prediction.


@pytest.mark.parametrize(
    ("chunk", "reference", "events"),
    [(None, [4], [44]), (20, [4], [14, 29, 44]), (30, [4], [22, 44]), (3, [2, 4], None)],
)
def test_a_prediction_scores_its_reference_and_every_event_once(
    trained: Workspace, chunk: int | None, reference: list[int], events: list[int] | None
) -> None:
    job = predict_request(trained, "run", "events", step="2", chunk=chunk)
    cut = stretches_of(job.spec_of(PredictSpec))
    for found, stops, n_rows in ((cut.reference, reference, 4), (cut.events, events, N_RECORDS)):
        assert stops is None or [one.stop for one in found] == stops
        assert [one.start for one in found] == [0, *(one.stop for one in found[:-1])]
        assert found[-1].stop == n_rows
        assert max(one.stop - one.start for one in found) <= (chunk or n_rows)
    assert job.parts == len(cut.reference) + len(cut.events)
    assert job.name == "run-events"


@pytest.mark.parametrize(("largest", "hopeless"), [(0.01, True), (0.5, False)])
def test_a_prediction_says_before_it_begins_what_can_be_selected(
    trained: Workspace, largest: float, hopeless: bool
) -> None:
    said: list[str] = []
    predict_request(trained, "run", "events", step="2", largest_p_value=largest, say=said.append)
    counts = read_json(trained.split("split") / "manifest.json")["counts"]["calibration"]
    smallest = 1 / (counts["background"] + 1)
    assert smallest > 0.01
    (line,) = said
    assert f"none is below {smallest:.3g}" in line
    assert ("no event will be selected" in line) == hopeless


def finish(place: Workspace, job: Job, **fields: Any) -> Path:
    """What the job leaves, as far as requests look at it."""
    final = place.prediction(job.name)
    final.mkdir(parents=True)
    (final / "scores.parquet").write_bytes(b"scores")
    of = {"of": job.spec.identity(), "name": job.name, **job.spec.recorded(), **fields}
    write_manifest(final, **{name: value for name, value in of.items() if value is not None})
    return final


def test_another_selection_uses_the_scores_of_a_finished_prediction(trained: Workspace) -> None:
    finish(trained, predict_request(trained, "run", "events", step="2"))
    for name, expected in ((None, "run-events-select-0.5"), ("loose", "loose")):
        said: list[str] = []
        job = predict_request(
            trained, "run", "events", step="2", largest_p_value=0.5, name=name, say=said.append
        )
        assert (job.name, job.parts) == (expected, 0)
        assert job.terms.recorded() == {"labels": None, "scores_of": "run-events"}
        assert said[-1] == "the scores of prediction run-events are used: nothing is scored again."
    assert job.spec.recorded() == {
        **predict_request(trained, "run", "events", step="2").spec.recorded(),
        "largest_p_value": 0.5,
    }


def test_what_differs_in_more_than_the_selection_is_scored(trained: Workspace) -> None:
    finish(trained, predict_request(trained, "run", "events", step="2"))
    for changed in ({}, {"chunk": 3}, {"chunk": 3, "largest_p_value": 0.5}):
        job = predict_request(trained, "run", "events", step="2", **changed)
        assert job.name == "run-events"  # which is taken: whoever asks is told
        assert job.parts > 0
        assert job.terms.recorded() == {"labels": None}


def test_a_prediction_that_an_earlier_lhcq_finished_is_not_selected_from(trained: Workspace) -> None:
    finish(trained, predict_request(trained, "run", "events", step="2"), of=None)
    (trained.root / "predictions" / "half").mkdir()
    broken = trained.root / "predictions" / "broken"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    job = predict_request(trained, "run", "events", step="2", largest_p_value=0.5)
    assert job.name == "run-events"
    assert job.parts > 0
    with pytest.raises(NameTaken, match="run-events exists already"):
        create_job(trained, job)


def test_damaged_scores_are_refused_before_anything_starts(trained: Workspace) -> None:
    final = finish(trained, predict_request(trained, "run", "events", step="2"))
    (final / "scores.parquet").write_bytes(b"scorez")
    with pytest.raises(BadInput, match=r"scores.parquet: differs from its manifest .*Make run-events again"):
        predict_request(trained, "run", "events", step="2", largest_p_value=0.5)


def test_a_prediction_that_was_begun_goes_on_whether_or_not_its_scores_stand_elsewhere(
    trained: Workspace,
) -> None:
    def ask() -> Job:
        job = predict_request(trained, "run", "events", step="2", largest_p_value=0.5, name="loose")
        return create_job(trained, job)

    assert ask().parts > 0
    final = finish(trained, predict_request(trained, "run", "events", step="2"))
    joined = ask()
    assert joined.parts == 0
    assert pending_units(trained, joined) == [Unit(task="lhcq.predict_select", args=("loose",))]
    shutil.rmtree(final)
    assert ask().parts > 0
    assert pending_units(trained, ask())[0].task == "lhcq.predict_part"


def test_a_prediction_that_cannot_be_is_refused(trained: Workspace, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0\n" * N_RECORDS)
    with pytest.raises(BadInput, match=r"events: has labels of its own. Leave --labels out"):
        predict_request(trained, "run", "events", step="2", key=key)
    with pytest.raises(NotThere, match="dataset 'gone'"):
        predict_request(trained, "run", "gone", step="2")
    with pytest.raises(NotThere, match="train 'walk' does not exist"):
        predict_request(trained, "walk", "events", step="2")
    with pytest.raises(NotThere, match="no checkpoint at step 1"):
        predict_request(trained, "run", "events", step="1")
    for p_value in (0.0, 1.5, math.nan):
        with pytest.raises(BadInput, match="largest_p_value"):
            predict_request(trained, "run", "events", step="2", largest_p_value=p_value)
    with pytest.raises(BadInput, match="cannot name a prediction"):
        predict_request(trained, "run", "events", step="2", name="..")
