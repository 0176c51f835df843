"""`lhcq flower`: closed without its login, counts lhcq's own events, and knows after a restart what it knew."""

import json
import re
import signal
import stat
import time
from typing import Any

import pytest
from click.testing import CliRunner

from lhcq.cli import flower
from lhcq.errors import BadInput
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.engine.publish import publish_unit
from tasks.jobs.kinds import chunk_unit
from tasks.jobs.store import create_job
from tasks.workers.flower import local_flower
from tests.integration.flower import ask
from tests.specs import job_of

PAGES = ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks", "/api/task/types", "/metrics")


def start(lhcq: Any, broker_url: str, **environment: str) -> tuple[Any, str, str]:
    """A Flower that runs: its process, address and login."""
    process = lhcq.start("flower", LHCQ_BROKER_URL=broker_url, **environment)
    first = process.stdout.readline()
    found = re.match(r"Flower  (http://127\.0\.0\.1:\d+)  login (lhcq:\S+) ", first)
    assert found, first + process.stderr.read()
    return process, *found.groups()


def _tell_received(broker: Any) -> None:
    """As a worker does whose events were switched on, of the newest message."""
    headers = json.loads(broker.lindex("cpu", 0))["headers"]
    with app.connection_for_write() as connection:
        told = {"name": headers["task"], "args": headers["argsrepr"], "kwargs": headers["kwargsrepr"]}
        dispatcher = app.events.Dispatcher(connection, hostname="cpu-1@here")
        dispatcher.send("task-received", uuid=headers["id"], **told)


def test_flower_is_closed_counts_what_is_lhcqs_and_remembers(lhcq, broker, broker_url: str, until) -> None:
    process, url, login = start(lhcq, broker_url)
    for page in PAGES:
        assert ask(url + page)[0] == 401
        assert ask(url + page, "lhcq:wrong")[0] == 401
        assert ask(url + page, login)[0] == 200
    assert ask(f"{url}/api/task/send-task/lhcq.validate", data=b'{"args": ["x", 1]}')[0] == 401
    assert broker.llen("validate") == 0
    assert "Flower runs already" in lhcq.refused("flower", LHCQ_BROKER_URL=broker_url)

    place = Workspace(lhcq.workspace)
    spec = {"n_events": 100, "storage_rows": 10, "events_per_chunk": 20}
    job = create_job(place, job_of(parts=5, **spec))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.engine.publish.own_workspace", lambda: place)

        def shown() -> Any:
            publish_unit(chunk_unit(job, 3))
            _tell_received(broker)  # until it listens, what is sent is lost
            return [task["kwargs"] for task in json.loads(ask(f"{url}/api/tasks", login)[1]).values()]

        listed = until(shown, "Flower to list the task")
    assert set(listed) == {"{'dataset': 'made', 'rows': '60-79'}"}
    with app.connection_for_write() as connection:
        events = app.events.Dispatcher(connection, hostname="gpu-1@here")
        events.send("worker-heartbeat", freq=2)  # metrics of a worker that is not alive are dropped
        events.send("lhcq-checkpoint", run="first", step=40)
        events.send("lhcq-alarm", run="first", kind="collapse")
    for kind in ("checkpoint", "alarm"):
        line = f'flower_events_total{{task="first",type="lhcq-{kind}",worker="gpu-1@here"}} 1.0'
        until(lambda line=line: line in ask(f"{url}/metrics", login)[1], "the event to be counted")

    process.send_signal(signal.SIGINT)
    done = lhcq.finish(process)
    assert (done.returncode, done.stderr) == (0, "")
    assert not lhcq.processes()
    assert stat.S_IMODE((lhcq.workspace / "flower").stat().st_mode) == 0o700

    _, url, again = start(lhcq, broker_url)
    assert again == login
    assert [task["kwargs"] for task in json.loads(ask(f"{url}/api/tasks", login)[1]).values()][:1] == listed[
        :1
    ]


@pytest.mark.torture
def test_a_worker_that_was_killed_leaves_the_metrics(lhcq, broker, broker_url: str, until) -> None:
    _, url, login = start(lhcq, broker_url)
    with app.connection_for_write() as connection:

        def online(*alive: str) -> set[str]:
            for name in alive:
                app.events.Dispatcher(connection, hostname=name).send("worker-heartbeat", freq=2)
            return set(
                re.findall(r'flower_worker_online{worker="(.*)"} 1.0', ask(f"{url}/metrics", login)[1])
            )

        until(lambda: online("lives@here", "killed@here") == {"lives@here", "killed@here"}, "both to be seen")
        began = time.monotonic()
        until(lambda: online("lives@here") == {"lives@here"}, "the one that is silent to leave", 120)
    assert time.monotonic() - began > 30  # a heart that stands still for a moment is no death


def test_flower_is_not_started_on_a_state_that_others_can_write(here) -> None:
    (here.root / "flower").mkdir(parents=True)
    (here.root / "flower").chmod(0o770)
    with pytest.raises(BadInput, match="mode 0700"), local_flower(here, "redis://nowhere:1/0", None):
        pass


def test_flower_without_a_broker_is_refused(here, monkeypatch) -> None:
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)
    result = CliRunner().invoke(flower.command, [])
    assert isinstance(result.exception, BadInput)
    assert "Flower needs a broker" in str(result.exception)
