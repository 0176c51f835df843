"""What the attacks share: a real broker with a real worker, and another user of the machine."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lhcq.workspace import Workspace
from tests.integration.conftest import event_file, lhcq, until  # noqa: F401  (fixtures)
from tests.security.rig import Target


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One worker for all attacks of a module."""
    from tasks.app import app, connect, own_workspace
    from tasks.broker.connection import redis_client
    from tasks.broker.embedded import embedded_broker

    before = app.conf.broker_url
    place = Workspace(tmp_path_factory.mktemp("target"))
    with pytest.MonkeyPatch.context() as patch, embedded_broker(place) as url:
        patch.setenv("LHCQ_WORKSPACE", str(place.root))
        own_workspace.cache_clear()
        connect(url)
        target = Target(place, url, redis_client())
        yield target
        os.killpg(target.process.pid, signal.SIGKILL)
        target.process.wait()
    connect(before or "")  # other tests of this process have a broker of their own
    own_workspace.cache_clear()


@pytest.fixture(scope="session")
def stranger() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs a command as another user of this machine, who owns nothing."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")

    def run(*command: str | Path) -> "subprocess.CompletedProcess[str]":
        other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *map(str, command)]
        return subprocess.run(other, capture_output=True, text=True, timeout=60, check=False, cwd="/")

    return run
