"""Flower's list of tasks can be read: each message says which rows of what, or which steps of which run."""

import ast
import json
from typing import Any

from lhcq.manifests import write_manifest
from tasks.engine.publish import publish_job, publish_unit
from tasks.jobs.kinds import chunk_unit, merge_unit
from tasks.jobs.train import segment_unit, validate_unit
from tasks.jobs.units import Unit

SPEC = {"n_events": 100, "storage_rows": 10, "events_per_chunk": 20}


def captions(broker: Any, queue: str) -> list[Any]:
    """What Flower will show of the messages of a queue, oldest first."""
    told = []
    for message in reversed(broker.lrange(queue, 0, -1)):
        envelope = json.loads(message)
        told.append(ast.literal_eval(envelope["headers"]["kwargsrepr"]))
    return told


def test_parts_tell_their_rows(broker, here, new_job) -> None:
    job = new_job(parts=5, **SPEC)
    publish_job(here, job)
    told = captions(broker, "cpu")
    assert told[0] == {"dataset": "made", "rows": "0-19"}
    assert told[3] == {"dataset": "made", "rows": "60-79"}
    broker.delete("cpu")
    publish_unit(chunk_unit(job, 2))
    publish_unit(merge_unit(job))
    assert captions(broker, "cpu") == [{"dataset": "made", "rows": "40-59"}]
    assert captions(broker, "cpu.again") == [{"cluster": "made", "parts": "5"}]


def test_segments_and_scores_tell_their_run_and_steps(broker, here, new_job) -> None:
    job = new_job("train", "run", parts=0, checkpoint_steps=[40, 80])
    publish_unit(segment_unit("run"))
    write_manifest(here.checkpoint("run", 40), of=job.identity)
    publish_unit(segment_unit("run"))
    assert captions(broker, "gpu") == [{"run": "run", "steps": "1-40"}, {"run": "run", "steps": "41-80"}]
    publish_unit(validate_unit("run", 40))
    publish_unit(Unit(task="lhcq.test", args=("run",)))
    assert captions(broker, "validate") == [{"run": "run", "step": "40"}]
    assert captions(broker, "validate.again") == [{"run": "run"}]


def test_other_parts_tell_their_place(broker, here, new_job) -> None:
    publish_unit(chunk_unit(new_job("generate", "events", parts=12, out="events.h5"), 3))
    assert captions(broker, "cpu") == [{"generate": "events", "part": "4 of 12"}]


def test_a_unit_without_a_record_is_published_all_the_same(broker, here, new_job) -> None:
    new_job("train", "damaged", parts=0)
    record = here.job("train", "damaged") / "job.json"
    asked = json.loads(record.read_text())
    del asked["spec"]["checkpoint_steps"]
    record.write_text(json.dumps(asked))
    publish_unit(segment_unit("gone"))
    publish_unit(segment_unit("damaged"))
    publish_unit(chunk_unit(new_job(), 99))
    assert captions(broker, "gpu") == [{}, {}]
    assert captions(broker, "cpu") == [{}]
