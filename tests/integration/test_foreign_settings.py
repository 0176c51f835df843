"""Celery's and Flower's variables of another project, on a machine where one lives: nothing of lhcq follows them."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.integration.flower import ask
from tests.integration.server import Server
from tests.integration.test_flower import start as start_flower


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Server]:
    """The broker of the other project."""
    place = tmp_path / "other"
    place.mkdir()
    server = Server(place)
    yield server
    server.kill()


@pytest.fixture
def theirs(other: Server, tmp_path: Path) -> dict[str, str]:
    """Everything by which Celery would go to the other broker, and Flower elsewhere."""
    configuration = tmp_path / "their"
    configuration.mkdir()
    (configuration / "their_celery.py").write_text(f"broker_url = {other.url!r}\ntask_always_eager = True\n")
    return {
        "CELERY_BROKER_URL": other.url,
        "CELERY_BROKER_READ_URL": other.url,
        "CELERY_BROKER_WRITE_URL": other.url,
        "CELERY_RESULT_BACKEND": other.url,
        "CELERY_CONFIG_MODULE": "their_celery",
        "CELERY_LOADER": "their_celery:Loader",
        "CELERY_CUSTOM_WORKER_POOL": "their_celery:Pool",
        "BROKER_URL": other.url,
        "RESULT_BACKEND": other.url,
        "CONFIG_MODULE": "their_celery",
        "PYTHONPATH": str(configuration),
        "FLOWER_UNIX_SOCKET": str(tmp_path / "their.sock"),
        "FLOWER_URL_PREFIX": "theirs",
    }


def visits(server: Server) -> int:
    """How many connections a server has had, that of the question not counted."""
    with redis.Redis.from_url(server.url) as client:
        return int(client.info("stats")["total_connections_received"]) - 1


def test_no_word_is_said_to_the_broker_of_another_project(
    lhcq, other: Server, theirs: dict[str, str], tmp_path: Path, event_file: Path, until
) -> None:
    before = visits(other)
    lhcq.run("cluster", event_file, "--name", "brought", **theirs)
    ours = Server(tmp_path)
    try:
        worker = lhcq.start("worker", "cpu", "--processes", "1", LHCQ_BROKER_URL=ours.url, **theirs)
        with redis.Redis.from_url(ours.url) as client:
            until(lambda: client.scard("lhcq:ready") == 1, "the worker to be up")
            made = lhcq.ask("cluster", event_file, "--name", "made", LHCQ_BROKER_URL=ours.url, **theirs)
            assert made["rows"] == 2100
            assert int(client.info("commandstats")["cmdstat_lpush"]["calls"]) > 0
        worker.send_signal(signal.SIGTERM)
        lhcq.finish(worker)
    finally:
        ours.kill()
    assert visits(other) == before + 1  # the question before


def test_flower_shows_our_workers_where_it_says(
    lhcq, broker, broker_url: str, other: Server, theirs: dict[str, str]
) -> None:
    before = visits(other)
    process, url, login = start_flower(lhcq, broker_url, **theirs)
    assert "Flower" in ask(url, login)[1]
    process.send_signal(signal.SIGINT)
    lhcq.finish(process)
    assert visits(other) == before + 1


def test_doctor_names_what_is_set_and_ignored_and_not_what_it_holds(
    lhcq, theirs: dict[str, str], other: Server
) -> None:
    told = lhcq.ask("doctor", **theirs)
    (found,) = [finding for finding in told["findings"] if finding["check"] == "environment"]
    assert found["state"] == "ok"
    outranking = sorted(name for name in theirs if name.startswith(("CELERY_", "FLOWER_")))
    assert found["found"].partition(":")[0].split(", ") == outranking
    assert other.url not in found["found"]
