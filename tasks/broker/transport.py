"""What lhcq knows of the insides of Celery and of kombu's Redis transport, in one workspace.

None of it is documented, so `tests/unit/test_internals.py` holds each to the installed version on a real broker: an
upgrade that changes one fails there, and not in somebody's job.
"""

import base64
import json
import logging
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import celery.worker.state
import redis
from celery.loaders.app import AppLoader
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.redis import Channel, Transport
from kombu.utils.json import dumps

from tasks.broker.admission import refusal
from tasks.broker.refused import put_aside
from tasks.settings import QUEUES, with_again

log = logging.getLogger(__name__)

UNACKED_KEY: str = Channel.unacked_key
"""Hash of the messages that were popped and not acknowledged, by delivery tag."""
UNACKED_INDEX_KEY: str = Channel.unacked_index_key
"""Sorted set of their delivery tags by the time of the pop."""

CHANNELS = ("/{db}.celery.pidbox", "/{db}.celeryev/*")
"""What workers, Flower and `lhcq doctor` listen to, for a database: remote control and events."""
KEYS = (
    *(name for queue in QUEUES for name in with_again(queue)),
    *(UNACKED_KEY, UNACKED_INDEX_KEY, Channel.unacked_mutex_key),
    *(
        Channel.keyprefix_queue % name
        for name in (*QUEUES, "celeryev", "celery.pidbox", "reply.celery.pidbox")
    ),
    *("id.reply.celery.pidbox", "celery-task-meta-id", "celery-taskset-meta-id.j", "chord-unlock-id"),
)
"""A key of each family that Celery and kombu write."""

_ORIGIN = f"lhcq{os.getpid()}@{socket.gethostname()}"
_CHECKED = {name for queue in QUEUES for name in with_again(queue)}
_AT_ONCE = 1000
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What taking apart a message raises that is none."""


def queue_length(client: "redis.Redis", *queues: str) -> int:
    """How many messages wait in queues, each of which is a Redis list of that name."""
    return sum(int(client.llen(queue)) for queue in queues)


def waiting_messages(client: "redis.Redis", *queues: str) -> Iterator[tuple[str, list[Any]]]:
    """The task and the arguments of each message that waits in one of the queues, newest first in each.

    Read while others work: a message may be given twice, and none that waits all the while is left out, since new
    ones come in at the front and workers pop at the other end.
    """
    for queue in queues:
        at = 0
        while messages := client.lrange(queue, at, at + _AT_ONCE - 1):
            at += len(messages)
            for message in messages:
                try:
                    yield task_and_arguments(str(message))
                except _UNREADABLE:
                    continue  # it is no unit's; whoever takes it says what is wrong with it


def task_and_arguments(message: str) -> tuple[str, list[Any]]:
    """What one message asks for."""
    envelope = json.loads(message)
    arguments, _, _ = json.loads(base64.b64decode(envelope["body"]))
    return envelope["headers"]["task"], arguments


def new_message(
    task: str,
    args: Sequence[str | int],
    *,
    queue: str,
    caption: str,
    identity: str,
    chord: "Chord | None" = None,
) -> str:
    """A message as Celery and kombu would write it, at a tenth of the cost: workers publish one with each chunk.

    `caption` is what Flower shows as the keyword arguments, `identity` the task's id.
    """
    follows = {"callbacks": None, "errbacks": None, "chain": None, "chord": chord.body if chord else None}
    body = json.dumps([list(args), {}, follows]).encode()
    headers: dict[str, Any] = {
        "lang": "py",
        "task": task,
        "id": identity,
        "root_id": identity,
        "parent_id": None,
        "group": chord.name if chord else None,
        "group_index": chord.number if chord else None,
        "shadow": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": repr(tuple(args)),
        "kwargsrepr": caption,
        "origin": _ORIGIN,
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    properties = {
        "correlation_id": identity,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": headers,
            "properties": properties,
        }
    )


class Chord(NamedTuple):
    """What makes a message one of the header of a chord."""

    name: str
    number: int
    """Of the message in the header."""
    body: dict[str, Any]


def chord_body(
    task: str, args: Sequence[str | int], *, queue: str, caption: str, identity: str
) -> dict[str, Any]:
    """What Celery publishes at the end of a chord; immutable, since results never travel."""
    return {
        "task": task,
        "args": list(args),
        "kwargs": {},
        "options": {"queue": queue, "ignore_result": True, "kwargsrepr": caption, "task_id": identity},
        "subtask_type": None,
        "immutable": True,
    }


def put_messages(client: "redis.Redis", messages: Sequence[tuple[str, str]]) -> None:
    """Put messages into their queues, the first first."""
    if len(messages) == 1:
        client.lpush(*messages[0])
    elif messages:
        with client.pipeline(transaction=False) as pipe:
            for queue, message in messages:
                pipe.lpush(queue, message)
            pipe.execute()


def at_work() -> bool:
    """Whether this process, a worker's main one, has taken a message whose work has not ended."""
    state = celery.worker.state
    return bool(state.reserved_requests or state.active_requests)


class CheckedChannel(Channel):
    """Outlives messages that cannot be parsed at all, and makes a client once instead of at each question."""

    _own_client: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._own_client is None:
            self._own_client = super()._create_client()
        return (
            self._own_client
        )  # after its pool was disconnected too: a channel that closes gives messages back

    def _after_fork(self) -> None:
        self._own_client = None
        super()._after_fork()

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except _UNREADABLE as error:
            # The message itself, where the parser's error has it.
            raw = getattr(error, "doc", None) or getattr(error, "object", None)
            log.error(
                "a message was refused: it cannot be read (%s); %s", type(error).__name__, put_aside(raw)
            )
            return True


class CheckedTransport(Transport):
    """Hands on the messages of the task queues that `tasks.broker.admission` lets in, and puts the others aside.

    They have left their queue and are not yet among the unacknowledged, so that a refused one never comes back.
    """

    Channel = CheckedChannel

    known_tasks: Callable[[], Mapping[str, Any]] = dict
    """The tasks of the application, by name."""

    def _deliver(self, message: Any, queue: str) -> None:
        if queue in _CHECKED and (reason := refusal(message, type(self).known_tasks())):
            log.error("a message in queue %s was refused: %s %s", queue, reason, put_aside(dumps(message)))
            return
        try:
            super()._deliver(message, queue)
        except _UNREADABLE as error:
            log.error("a message to %s was refused: it cannot be read (%s)", queue, type(error).__name__)


class OwnLoader(AppLoader):
    """Imports as Python does; Celery's own looks into the current directory first, where a user's modules lie."""

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> Any:
        """Import a module, by the search path alone."""
        return (imp or self.import_module)(module, package=package)


def check_messages(known_tasks: Callable[[], Mapping[str, Any]]) -> None:
    """Have every connection to a Redis of this process check what it receives against the tasks that there are."""
    CheckedTransport.known_tasks = staticmethod(known_tasks)
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "tasks.broker.transport:CheckedTransport"))
