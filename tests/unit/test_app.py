"""The application of a process that works with one broker after the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lhcq.workspace import Workspace
from tasks.app import app, connect
from tasks.broker.connection import redis_client
from tasks.broker.embedded import embedded_broker


@pytest.fixture
def two_brokers(broker_url: str, tmp_path: Path) -> Iterator[list[str]]:
    """The session's and another; the session's is this process's own again afterwards."""
    with embedded_broker(Workspace(tmp_path / "another")) as another:
        yield [broker_url, another]
    connect(broker_url)


def held() -> list[int]:
    """Messages, results and questions at the broker of now."""
    broker = redis_client()
    return [broker.llen("cpu"), broker.exists("result"), broker.exists("asked")]


def test_messages_results_and_questions_go_to_the_broker_that_was_named_last(two_brokers: list[str]) -> None:
    app.loader.import_default_modules()
    for url in (*two_brokers, two_brokers[0]):
        for one in two_brokers:
            connect(one)
            redis_client().flushall()
        connect(url)
        app.tasks["lhcq.prepare"].apply_async(args=("x",), queue="cpu")
        app.backend.client.set("result", 1)
        with app.pool.acquire() as connection:
            connection.default_channel.client.set("asked", 1)
        assert held() == [1, 1, 1]
        (other,) = {*two_brokers} - {url}
        connect(other)
        assert held() == [0, 0, 0]
