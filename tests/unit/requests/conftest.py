"""A dataset, its split, a run and a model, to ask for jobs of."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lhcq.config import ClusterConfig, SplitConfig
from lhcq.events.layout import open_event_file, write_event_file
from lhcq.manifests import write_manifest
from lhcq.prompts.writing import write_split
from lhcq.requests.cluster import cluster_request
from lhcq.workspace import Workspace
from tasks.client import do_here
from tasks.jobs.store import create_job
from tests.requested import N_RECORDS, ask_training, write_weights


@pytest.fixture
def model(place: Workspace) -> Path:
    return write_weights(place.root / "models" / "tiny", 64)


@pytest.fixture(scope="session")
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


@pytest.fixture
def trained(made: Workspace, model: Path) -> Workspace:
    """The same with a run that has one checkpoint."""
    job = create_job(made, ask_training(made, model).job)
    checkpoint = made.checkpoint("run", 2)
    checkpoint.mkdir(parents=True)
    (checkpoint / "adapter_model.safetensors").write_bytes(b"adapter")
    write_manifest(checkpoint, of=job.identity, step=2)
    return made
