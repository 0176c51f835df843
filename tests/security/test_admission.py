"""What `tasks.broker.admission` lets in, beside the attacks of `test_messages`."""

import json
from typing import Any

from tasks.broker.admission import LARGEST_BODY, refusal


def test_a_waiting_message_that_is_none_does_not_stop_the_reconciler(broker: Any, new_job: Any) -> None:
    from tasks.broker.transport import waiting_messages
    from tasks.engine.publish import publish_unit
    from tasks.jobs.kinds import chunk_unit

    unit = chunk_unit(new_job(), 1)
    for raw in (
        b"not a message",
        b"null",
        b"5",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"body": "!", "headers": {}}',
    ):
        broker.lpush("cpu", raw)
    publish_unit(unit)
    assert (unit.task, list(unit.args)) in list(waiting_messages(broker, "cpu"))


def test_what_lhcq_writes_is_let_in(broker: Any, here: Any, new_job: Any) -> None:
    from tasks.app import app
    from tasks.engine.publish import publish_job, publish_unit
    from tasks.jobs.kinds import merge_unit
    from tasks.jobs.train import segment_unit, validate_unit

    app.loader.import_default_modules()
    job = new_job(name="a" * 64)
    publish_job(here, job)
    for unit in (merge_unit(job), segment_unit("run"), validate_unit("run", 10)):
        publish_unit(unit)
    messages = [
        json.loads(message)
        for queue in ("cpu", "cpu.again", "gpu", "validate")
        for message in broker.lrange(queue, 0, -1)
    ]
    assert len(messages) == 6
    assert [refusal(message, app.tasks) for message in messages] == [None] * 6
    assert max(len(message["body"]) for message in messages) < LARGEST_BODY // 10
