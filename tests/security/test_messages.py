"""A malicious message on the queue: refused in one line, and the worker goes on."""

import base64
import json
from typing import Any

import pytest

from tests.security.rig import Target, changed, envelope
from tests.specs import job_of

PART = ("lhcq.cluster_part", ["made", 0])
PICKLE = base64.b64encode(b"cos\nsystem\n(S'touch pickled'\ntR.").decode()
CHORD = {"task": "os.system", "args": ["touch chord"], "kwargs": {}, "options": {}, "subtask_type": None}


def part(**headers: Any) -> dict[str, Any]:
    return envelope(*PART, **headers)


def embedding(**embed: Any) -> dict[str, Any]:
    nothing = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return envelope(*PART, embed={**nothing, **embed})


def pickled() -> dict[str, Any]:
    message = changed(part(), "content-type", to="application/x-python-serialize")
    return changed(message, "body", to=PICKLE)


ATTACKS: dict[str, Any] = {
    # What may not run.
    "a pickle": pickled(),
    "a pickle that calls itself JSON": changed(part(), "body", to=PICKLE),
    "YAML": changed(part(), "content-type", to="application/x-yaml"),
    "an unknown task": envelope("os.system", ["touch owned"]),
    "a task of Celery's own": envelope("celery.map", [{"task": PART[0], "args": []}, [PART[1]] * 9]),
    "a task that asks for itself for ever": envelope("celery.chord_unlock", ["group", None]),
    "a chord that ends in another program": embedding(chord=CHORD),
    "a callback": embedding(callbacks=[CHORD]),
    "an errback": embedding(errbacks=[CHORD]),
    "a chain": embedding(chain=[CHORD]),
    "a delay of years": part(eta="2999-01-01T00:00:00"),
    "a time limit that kills the process": part(timelimit=[0.001, 0.001]),
    "a retry": part(retries=3),
    # What is no argument of a task.
    "no arguments": envelope(PART[0], []),
    "too many arguments": envelope(PART[0], ["made", 0, 1]),
    "arguments by name": envelope(*PART, kwargs={"name": "made"}),
    "arguments that are no list": envelope(PART[0], "ab"),
    "a record for a name": envelope(PART[0], [{"a": 1}, 0]),
    "a number for a name": envelope(PART[0], [5, 0]),
    "a negative index": envelope(PART[0], ["made", -1]),
    "a fractional index": envelope(PART[0], ["made", 1.5]),
    "a true index": envelope(PART[0], ["made", True]),
    "an index beyond reach": envelope(PART[0], ["made", 10**30]),
    **{
        f"the name {name!r}": envelope(PART[0], [name, 0])
        for name in (
            "../../etc",
            "..",
            ".",
            "/etc",
            "a/b",
            "a\0b",
            "a\n",
            "",
            " a",
            "ａ",
            "a\u202eb",
            "é",
            "-a",
        )
    },
    "a name too long": envelope(PART[0], ["a" * 65, 0]),
    "an argument of a megabyte": envelope(PART[0], ["a" * 1_000_000, 0]),
    "a million arguments": envelope(PART[0], [0] * 1_000_000),
    # What is no message.
    "a compressed body": part(compression="zlib"),
    "a body that is no base64": changed(part(), "body", to="!!!"),
    "no body": changed(part(), "body", to=None),
    "a body of one number": changed(part(), "body", to=base64.b64encode(b"5").decode()),
    "a body nested deeply": changed(part(), "body", to=base64.b64encode(b"[" * 40_000).decode()),
    "a number for an id": part(id=5),
    "a record for an id": part(id={"a": 1}),
    "an id with a line of its own": part(id="a\nlhcq: all is well"),
    "a record for a group": part(group={"a": 1}),
    "a list for a task": part(task=["a"]),
    "no task": part(task=None),
    "a word for the time limit": part(timelimit="x"),
    "headers that are a list": changed(part(), "headers", to=[]),
    "a delivery tag that is a record": changed(part(), "properties", "delivery_tag", to={}),
    "a delivery that is a word": changed(part(), "properties", "delivery_info", to="x"),
    "properties that are a word": changed(part(), "properties", to="x"),
    "nothing": {},
    "a list": [],
    "a number": 5,
    "null": None,
    "text": b"not a message",
    "bytes": b"\xff\x00\x80",
    "a list without an end": b"[" * 100_000,
    "a number of 5,000 digits": b"1" * 5_000,
    "a type to be revived": b'{"__type__": "uuid", "__value__": 5}',
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_it_is_refused_and_never_comes_back(target: Target, attack: Any) -> None:
    before = target.log.read_text().count("refused")
    target.send(attack)
    target.wait(lambda: target.log.read_text().count("refused") > before, "the refusal")


def test_none_of_them_ran_and_the_worker_is_the_same(target: Target) -> None:
    from lhcq.records.jobs import outcome_of
    from tasks.app import app
    from tasks.engine.publish import publish_job
    from tasks.jobs.store import create_job

    assert not [path for path in target.place.root.iterdir() if path.name in ("pickled", "owned", "chord")]
    log = target.log.read_text()
    assert "Traceback" not in log
    assert all(len(line) < 1_000 for line in log.splitlines())
    assert list(app.conf.accept_content) == list(app.conf.result_accept_content) == ["json"]
    # It still works: a job with no source ends in a failure that it records itself.
    job = create_job(target.place, job_of(parts=1))
    publish_job(target.place, job)
    target.wait(
        lambda: target.client.hlen("lhcq:attempts:cluster:made") or outcome_of(target.place, job), "a try"
    )


def test_another_projects_task_is_put_aside_as_it_was_and_told(target: Target) -> None:
    from tasks.doctor.checks import refused_findings

    target.client.delete("lhcq:refused")
    assert refused_findings() == []
    theirs = envelope("shop.send_invoice", ["customer 5"])
    target.send(theirs)
    target.wait(lambda: target.client.llen("lhcq:refused") == 1, "the message to be put aside")
    assert json.loads(target.client.lindex("lhcq:refused", 0)) == theirs
    assert "put aside in the broker's list lhcq:refused" in target.log.read_text().splitlines()[-1]
    target.send(b"\xff\x00\x80")  # not even text
    target.wait(lambda: target.client.llen("lhcq:refused") == 2, "the bytes to be put aside")
    (finding,) = refused_findings()
    assert finding.state == "warning"
    assert finding.found.startswith("2 in lhcq's queues were not for lhcq")
    assert "shop.send_invoice" in finding.found


def test_strangers_cannot_fill_the_broker_with_what_is_put_aside(broker: Any) -> None:
    from tasks.broker.refused import LARGEST, MOST, put_aside

    for number in range(MOST + 5):
        put_aside(f"message {number}")
    assert broker.llen("lhcq:refused") == MOST
    assert broker.lindex("lhcq:refused", 0) == f"message {MOST + 4}"
    assert "dropped" in put_aside("x" * (LARGEST + 1))
    assert broker.llen("lhcq:refused") == MOST


def test_garbage_on_the_channels_for_remote_control_and_events_does_not_end_the_worker(
    target: Target,
) -> None:
    for channel in ("/0.celery.pidbox", "/0.celeryev/worker.heartbeat"):
        for raw in (b"{}", b"[]", b"\xff", b"not JSON", json.dumps(pickled()).encode(), b"5"):
            target.client.publish(channel, raw)
    target.send(ATTACKS["an unknown task"])
