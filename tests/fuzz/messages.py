"""Messages on the queue."""

import base64
import json
from pathlib import Path
from random import Random

from lhcq.config import check_name
from lhcq.errors import BadInput
from tasks.broker.admission import refusal
from tasks.broker.transport import task_and_arguments
from tests.fuzz.mutation import mutate_json


class _Task:
    """A task as far as its arguments are concerned."""

    @staticmethod
    def run(name: str, index: int) -> None:
        """Take what a part's task takes."""


KNOWN = {"lhcq.cluster_part": _Task(), "celery.map": _Task()}


def make_message(random: Random) -> bytes:
    nothing = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    body: bytes = json.dumps([["made", 3], {}, nothing]).encode()
    if random.random() < 0.6:
        body = mutate_json([["made", 3], {}, nothing], random)
    tag = "0c2ecf1f-8af1-4b53-9ef3-3f3b0c2a8b2a"
    properties = {"correlation_id": tag, "delivery_tag": tag, "body_encoding": "base64", "priority": 0}
    message = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "lhcq.cluster_part", "id": tag, "retries": 0, "timelimit": [None, None]},
        "properties": {**properties, "delivery_info": {"exchange": "", "routing_key": "cpu"}},
    }
    return mutate_json(message, random) if random.random() < 0.7 else json.dumps(message).encode()


def attack_message(data: bytes, _: Path) -> None:
    """What is let in has a known task and the arguments that it takes; what is not is refused by a word."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):  # as the transport does
        return
    reason = refusal(message, KNOWN)
    if reason is None:
        task, (name, index) = task_and_arguments(data.decode())
        check_name(name, what="job")
        assert task == "lhcq.cluster_part"
        assert type(index) is int
        assert index >= 0
    else:
        assert len(ascii(reason)) < 3_000
        raise BadInput(reason)
