"""A worker to attack, and messages to attack it with."""

import base64
import json
import subprocess
import time
import uuid
from collections.abc import Callable
from typing import Any

from lhcq.workspace import Workspace

WAIT_SECONDS = 120.0
NOTHING_FOLLOWS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def envelope(
    task: Any, args: Any, /, kwargs: Any = None, embed: Any = None, **headers: Any
) -> dict[str, Any]:
    """A message as Celery writes it, with other headers where they are given."""
    tag = str(uuid.uuid4())
    body = json.dumps([args, kwargs or {}, embed or NOTHING_FOLLOWS]).encode()
    return {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": task,
            "id": tag,
            "root_id": tag,
            "parent_id": None,
            "group": None,
            "retries": 0,
            "timelimit": [None, None],
            "argsrepr": "",
            "kwargsrepr": "{}",
            "origin": "a stranger",
            "ignore_result": True,
            **headers,
        },
        "properties": {
            "correlation_id": tag,
            "reply_to": None,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "cpu"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": tag,
        },
    }


def changed(message: dict[str, Any], *path: str, to: Any) -> dict[str, Any]:
    """The message with another value at `path`."""
    inner = message
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    return message


class Target:
    """A worker of the cpu queue, and its broker."""

    def __init__(self, place: Workspace, url: str, client: Any) -> None:
        from tasks.workers.local import worker_command, worker_environment

        self.place, self.url, self.client = place, url, client
        self.log = place.root / "worker.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                worker_command("cpu", processes=1, name="target@localhost"),
                env=worker_environment(place, url, "cpu"),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait(lambda: client.smembers("lhcq:ready"), "the worker to come up")

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for something to become true while the worker lives."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert self.process.poll() is None, f"the worker died: {self.log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"waited in vain for {what}: {self.log.read_text()[-2000:]}"
            time.sleep(0.02)

    def send(self, message: Any) -> None:
        """Put a message, or raw bytes, into the worker's queue, and wait until it has been dealt with."""
        raw = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.client.lpush("cpu", raw)
        self.wait(lambda: not self.client.exists("cpu", "unacked", "unacked_index"), "the message to be gone")
