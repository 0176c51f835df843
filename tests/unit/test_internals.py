"""What lhcq takes for granted inside Celery and kombu, held to the installed versions."""

import base64
import inspect
import json
from typing import Any

import pytest
from celery.backends.redis import RedisBackend
from kombu.transport.redis import Channel

from lhcq.address import BrokerAddress
from tasks.app import app
from tasks.broker.results import QuietRedisBackend
from tasks.broker.transport import (
    UNACKED_INDEX_KEY,
    UNACKED_KEY,
    Chord,
    chord_body,
    new_message,
    queue_length,
    task_and_arguments,
    waiting_messages,
)
from tasks.engine.publish import publish_job, publish_unit
from tasks.jobs.kinds import chunk_unit
from tasks.jobs.train import validate_unit
from tasks.jobs.units import unit_key, unit_of_key
from tasks.settings import CHORD_JOIN_SECONDS, VISIBILITY_TIMEOUT_SECONDS, celery_settings


def test_a_queue_is_a_list_of_its_name_that_gives_the_oldest_message_first(broker, new_job) -> None:
    app.loader.import_default_modules()  # as a worker does: it takes no message for a task that it does not know
    job = new_job(parts=3)
    for index in range(3):
        publish_unit(chunk_unit(job, index))
    assert queue_length(broker, "cpu") == broker.llen("cpu") == 3
    keys = [unit_key(*message) for message in waiting_messages(broker, "cpu")]
    assert keys == [chunk_unit(job, index).key for index in (2, 1, 0)]
    with app.connection_for_read() as connection, connection.SimpleQueue("cpu", no_ack=False) as queue:
        message = queue.get(timeout=10)
        assert message.payload[0] == ["made", 0]
        assert queue_length(broker, "cpu") == 2
        (tag,) = broker.hkeys(UNACKED_KEY)
        assert broker.zrange(UNACKED_INDEX_KEY, 0, -1) == [tag]
        kept, _, _ = json.loads(broker.hget(UNACKED_KEY, tag))
        assert task_and_arguments(json.dumps(kept)) == ("lhcq.cluster_part", ["made", 0])
        message.ack()
        assert not broker.exists(UNACKED_KEY, UNACKED_INDEX_KEY)


def test_a_message_of_a_chord_tells_its_unit_as_well(broker, here, new_job) -> None:
    job = new_job(parts=1)
    publish_job(here, job)
    assert [unit_key(*message) for message in waiting_messages(broker, "cpu")] == [chunk_unit(job, 0).key]


def test_a_long_queue_is_read_to_its_end(broker, new_job, monkeypatch) -> None:
    monkeypatch.setattr("tasks.broker.transport._AT_ONCE", 2)
    job = new_job(parts=5)
    for index in range(5):
        publish_unit(chunk_unit(job, index))
    assert len(list(waiting_messages(broker, "cpu"))) == 5


def test_a_key_gives_its_unit_back(new_job) -> None:
    for unit in (chunk_unit(new_job(name="a.b-c_d"), 7), validate_unit("run", 40)):
        assert unit_of_key(unit.key) == unit


def test_the_transport_knows_every_option_that_is_set() -> None:
    settings = celery_settings(BrokerAddress.of("redis://localhost/0"))
    for options in ("broker_transport_options", "result_backend_transport_options"):
        assert set(settings[options]) <= set(Channel.from_transport_options)


def test_every_setting_is_one_of_celerys() -> None:
    from celery.app.defaults import NAMESPACES, flatten

    known = {name for name, _ in flatten(NAMESPACES)}
    assert set(celery_settings(BrokerAddress.of("redis://localhost/0"))) <= known


def test_the_timeouts_keep_their_relations() -> None:
    from tasks.engine.reconciler import _LOCK_SECONDS, SCAN_SECONDS
    from tasks.jobs.leases import _EXTEND_EVERY_SECONDS, LEASE_SECONDS

    # What a chord's claim may last: shorter than it, the visibility timeout would leave a killed claim for ever.
    claim = max(5.0, 2 * CHORD_JOIN_SECONDS)
    assert 10 * claim <= VISIBILITY_TIMEOUT_SECONDS
    assert VISIBILITY_TIMEOUT_SECONDS >= 100 * LEASE_SECONDS
    assert 3 * _EXTEND_EVERY_SECONDS < LEASE_SECONDS  # two extensions may fail
    assert 2 * SCAN_SECONDS < _LOCK_SECONDS
    settings = celery_settings(BrokerAddress.of("redis://localhost/0"))
    timeouts = {
        settings[options]["visibility_timeout"]
        for options in ("broker_transport_options", "result_backend_transport_options")
    }
    assert timeouts == {VISIBILITY_TIMEOUT_SECONDS}  # the shortest on a database wins
    assert settings["result_chord_join_timeout"] == CHORD_JOIN_SECONDS


@pytest.mark.parametrize("name", ["on_task_call", "add_pending_result"])
def test_what_the_quiet_backend_silences_is_still_called_so(name: str) -> None:
    theirs: Any = getattr(RedisBackend, name)
    ours = getattr(QuietRedisBackend, name)
    assert list(inspect.signature(theirs).parameters) == list(inspect.signature(ours).parameters)


def test_the_queues_of_a_worker_are_found_where_they_are_looked_for() -> None:
    app.amqp.queues.select(["cpu"])
    try:
        assert set(app.amqp.queues.consume_from) == {"cpu"}
    finally:
        app.amqp.queues.select(None)


def test_a_message_is_what_celery_would_write(broker) -> None:
    app.loader.import_default_modules()
    caption = "{'dataset': 'made', 'rows': '0-19'}"
    merge = {"queue": "cpu.again", "caption": "{'cluster': 'made'}", "identity": "0123.merge"}
    body = chord_body("lhcq.cluster_merge", ["made"], **merge)
    theirs_body = app.signature(
        "lhcq.cluster_merge",
        args=["made"],
        immutable=True,
        queue="cpu.again",
        ignore_result=True,
        kwargsrepr=merge["caption"],
    )
    theirs_body.freeze("0123.merge")
    app.signature(
        "lhcq.cluster_part",
        args=["made", 7],
        immutable=True,
        queue="cpu",
        ignore_result=True,
        kwargsrepr=caption,
    ).apply_async(task_id="0123.7", group_id="0123", group_index=7, chord=theirs_body)
    ours = new_message(
        "lhcq.cluster_part",
        ["made", 7],
        queue="cpu",
        caption=caption,
        identity="0123.7",
        chord=Chord("0123", 7, body),
    )
    theirs = taken_apart(broker.rpop("cpu"))
    found = taken_apart(ours)
    for message in (theirs, found):
        del message["headers"]["origin"], message["properties"]["delivery_tag"]
    # To whom Celery would send results, which nobody asks for; and what it shows twice.
    del theirs["properties"]["reply_to"], theirs["properties"]["kwargsrepr"]
    del theirs["body"][2]["chord"]["options"]["reply_to"]
    assert found == theirs


def taken_apart(message: str) -> dict[str, Any]:
    """A message with its body as values."""
    envelope: dict[str, Any] = json.loads(message)
    return {**envelope, "body": json.loads(base64.b64decode(envelope["body"]))}


def test_a_channel_makes_its_client_once(broker) -> None:
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        with channel.conn_or_acquire() as one, channel.conn_or_acquire() as other:
            assert one is other
            assert one.ping()


def test_a_channel_whose_connections_were_closed_still_has_its_client(broker) -> None:
    """With it, it gives back what it had taken when the broker died; making one then ended the worker."""
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        with channel.conn_or_acquire() as client:
            assert client.ping()
        channel._disconnect_pools()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connection.transport, "client", None)
            with channel.conn_or_acquire() as client:
                assert client.ping()
