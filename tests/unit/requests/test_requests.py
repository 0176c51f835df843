"""What is asked for becomes a job below the command line: everything that decides the result is resolved there."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lhcq.config import ClusterConfig, GenerateConfig, SplitConfig
from lhcq.errors import BadInput, NotThere
from lhcq.events.columns import UNLABELLED_WIDTH
from lhcq.events.layout import open_event_file, write_event_file
from lhcq.events.pytables import create_frame
from lhcq.model.identity import identify
from lhcq.records.jobs import Job, find_job
from lhcq.records.specs import ClusterSpec
from lhcq.requests.cluster import chunks_of, cluster_request, find_events
from lhcq.requests.generate import generate_request
from lhcq.requests.predict import predict_request
from lhcq.requests.prepare import prepare_request
from lhcq.storage import sha256_of, sha256_of_json
from lhcq.workspace import Workspace
from tests.requested import N_RECORDS, N_SOURCE, SUBSETS, TRAINING, ask_training

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
