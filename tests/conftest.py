"""What tests share."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from lhcq.workspace import Workspace
from tests.pages import nothing_drawn

# Two test processes share the cores: threads of torch that spin while they wait would stop the other one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Hundreds of processes that tests start would each compile all modules of lhcq anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_FEW = 4

# How long an example takes is the machine's business.
hypothesis.settings.register_profile("lhcq", deadline=None)
hypothesis.settings.load_profile("lhcq")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The directory of the real LHC Olympics events."""
    where = os.environ.get("LHCQ_TEST_DATA")
    if not where:
        pytest.skip("LHCQ_TEST_DATA does not name the directory of the real LHC Olympics events")
    return Path(where)


@pytest.fixture(scope="session")
def compiled_loops() -> None:
    """The loops that find jets, compiled by one process while others wait for it: it takes 20 s of a core."""
    from lhcq.jets.clustering import compile_kernels

    compile_kernels()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M as safetensors; the first session on a machine downloads and converts it (about 40 s)."""
    from lhcq.model.sources import obtain

    cache = Path(os.environ.get("LHCQ_TEST_CACHE") or Path(__file__).parents[1] / ".cache" / "lhcq-tests")
    return obtain("smollm2", Workspace(cache), say=print)


@pytest.fixture(scope="session")
def few_layers(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first four layers of SmolLM2, which load and train fast."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    place = tmp_path_factory.mktemp("model") / "small"
    shutil.copytree(smollm2, place, ignore=shutil.ignore_patterns("model.safetensors"))
    beyond = re.compile(r"model\.layers\.(\d+)\.")
    with safe_open(
        smollm2 / "model.safetensors", framework="pt"
    ) as weights:  # it holds five times what is kept
        names = list(weights.keys())
        kept = {
            name: weights.get_tensor(name)
            for name in names
            if not (found := beyond.match(name)) or int(found[1]) < _FEW
        }
    assert len(kept) < len(names)
    save_file(kept, place / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "num_hidden_layers": _FEW}))
    return place


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A filesystem of 1 MB, or of as much as the test's module says in `DISK_SIZE`."""
    place = tmp_path / "disk"
    place.mkdir()
    size = getattr(request.module, "DISK_SIZE", "1m")
    mounted = os.geteuid() == 0 and not subprocess.call(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], stderr=subprocess.DEVNULL
    )
    if not mounted:
        pytest.skip("a small filesystem cannot be mounted here")
    yield place
    subprocess.check_call(["umount", "--lazy", str(place)])


@pytest.fixture
def undrawn() -> Iterator[None]:
    """Pages of this test have empty pictures."""
    with nothing_drawn():
        yield


@pytest.fixture(scope="module")
def all_undrawn() -> Iterator[None]:
    """Pages of this module have empty pictures, those of its own fixtures too."""
    with nothing_drawn():
        yield


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    """A workspace of its own."""
    return Workspace(tmp_path / "workspace")


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real broker, one for the session."""
    from tasks.app import connect
    from tasks.broker.embedded import embedded_broker

    with embedded_broker(Workspace(tmp_path_factory.mktemp("broker"))) as url:
        connect(url)
        yield url


@pytest.fixture
def broker(broker_url: str) -> Any:
    """A client of the real broker, whose database is empty; this process's application uses it."""
    from tasks.broker.connection import redis_client

    client = redis_client()
    client.flushall()
    return client


@pytest.fixture
def here(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace of its own that the tasks of this process work in."""
    from tasks.app import own_workspace

    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    own_workspace.cache_clear()
    yield place
    own_workspace.cache_clear()


@pytest.fixture
def new_job(place: Workspace) -> Callable[..., Any]:
    """Record a job that was asked for: a clustering into three parts, unless told otherwise."""
    from lhcq.records.jobs import Job
    from tasks.jobs.store import create_job
    from tests.specs import job_of

    def create(kind: str = "cluster", name: str = "made", *, parts: int = 3, **spec: Any) -> Job:
        return create_job(place, job_of(kind, name, parts=parts, **spec))

    return create
