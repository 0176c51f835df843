"""What the fault tests share: a file of events, its bytes after a serial run, a rig, and the recovery times."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.rig import Rig, running_rig

N_EVENTS = 168
PER_CHUNK = 7  # 24 chunks

_rows = pytest.StashKey[list[dict[str, Any]]]()
_row = pytest.StashKey[dict[str, Any]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_rows] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """What was measured counts when the case holds."""
    report = yield
    if call.when == "call" and report.passed and _row in item.stash:
        item.config.stash[_rows].append(item.stash[_row])
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Store what was measured where `LHCQ_FAULTS_RESULT` says, beside the cases that did not run this time."""
    where = os.environ.get("LHCQ_FAULTS_RESULT")
    measured = session.config.stash.get(_rows, [])
    if where and measured:
        from benchmarks.machine import machine
        from tasks.jobs.leases import LEASE_SECONDS

        path = Path(where)
        earlier = json.loads(path.read_text())["rows"] if path.exists() else []
        rows = {row["case"]: row for row in [*earlier, *measured]}
        result = {"machine": machine(), "lease_seconds": LEASE_SECONDS, "rows": list(rows.values())}
        path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


@pytest.fixture
def recovered(request: pytest.FixtureRequest) -> Callable[[float], None]:
    """Keep the time that a recovery took, in seconds."""

    def keep(seconds: float) -> None:
        case = request.node.name.removeprefix("test_").replace("_", " ")
        request.node.stash[_row] = {"case": case, "seconds": round(seconds, 1)}

    return keep


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """168 made-up events, 7 to a storage chunk."""
    from lhcq.events.layout import write_event_file

    random = np.random.Generator(np.random.PCG64(5))
    particles = np.zeros((N_EVENTS, 700, 3))
    particles[:, :60, 0] = random.exponential(40.0, (N_EVENTS, 60)) + 1.0
    particles[:, :60, 1] = random.normal(0.0, 1.0, (N_EVENTS, 60))
    particles[:, :60, 2] = random.uniform(-3.1, 3.1, (N_EVENTS, 60))
    particles = particles.astype(np.float32).astype(np.float64)
    path = tmp_path_factory.mktemp("faults") / "events.h5"
    write_event_file(path, [(particles, (np.arange(N_EVENTS) % 2).astype(np.int8))], N_EVENTS, storage_rows=7)
    return path


@pytest.fixture(scope="session")
def serial(compiled_loops: None, events: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The dataset of these events, made in this process without any queue."""
    from lhcq.config import CLUSTER_PRESETS
    from lhcq.events.contents import hash_events
    from lhcq.events.layout import open_event_file, read_rows
    from lhcq.jets.clustering import cluster_events
    from lhcq.jets.merge import merge_parts
    from lhcq.jets.parts import fingerprint, with_contents, write_part

    place = tmp_path_factory.mktemp("serial")
    block = read_rows(open_event_file(events), 0, N_EVENTS)
    config = CLUSTER_PRESETS["lhco"]
    table = cluster_events(block.particles, config, rows=block.rows, labels=block.labels)
    contents = hash_events(block.particles, block.n_particles)
    write_part(place / "000000.arrows", [with_contents(table, contents)], fingerprint())
    merge_parts(
        [place / "000000.arrows"],
        place / "dataset",
        n_events=N_EVENTS,
        manifest_fields={},
        features=config.features,
        axes=config.axes,
    )
    return (place / "dataset" / "events.parquet").read_bytes()


@pytest.fixture(scope="module")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The rig of a module, whose cases differ by the job's name."""
    with running_rig(tmp_path_factory.mktemp("rig")) as rig:
        yield rig


@pytest.fixture
def rig(shared_rig: Rig) -> Rig:
    """The module's rig with two workers at work and nothing armed."""
    for path in shared_rig.arms.iterdir():
        path.unlink()
    shared_rig.keep(2)
    return shared_rig
