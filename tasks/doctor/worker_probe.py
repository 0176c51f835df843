"""What a worker tells `lhcq doctor` of itself, by Celery's remote control: the main process answers, and answers
while its children work.
"""

import hashlib
import os
import socket
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import redis
from celery.worker.control import inspect_command

from lhcq.frozen import Frozen
from lhcq.model.gpus import Gpu, gpus_here
from lhcq.storage import staged_file
from lhcq.version import version as own_version
from lhcq.workspace import Workspace
from tasks.app import own_workspace
from tasks.broker.connection import redis_client

ASKER = "asker"
_PACKAGES = ("celery", "kombu", "redis", "numpy", "pyarrow", "scikit-learn", "tokenizers")
_TRAINING = ("torch", "transformers", "peft", "bitsandbytes")


class Examined(Frozen):
    """One worker."""

    host: str
    queues: list[str]
    workspace: str
    shares: bool
    """Whether it read what the asker had written, and committed its own file beside it."""
    trouble: str
    """Why it could not commit; empty where it could."""
    confined: bool
    """Whether it opens event files and models below its data roots alone."""
    versions: dict[str, str]
    fingerprint: dict[str, str]
    """Empty where it computes no jets."""
    clock: float | None
    """Seconds that the broker's clock is ahead of its own."""
    memory: int
    """Bytes of this host's memory."""
    gpus: list[Gpu]


@inspect_command(args=[("token", str)], signature="token", visible=False)
def lhcq_examine(state: Any, token: str) -> dict[str, Any]:
    """What this worker is, and whether it shares the asker's workspace: proved by a file that it commits there."""
    queues = sorted(state.app.amqp.queues.consume_from)
    shares, trouble = False, ""
    try:
        shares = _leave_mark(own_workspace(), token, state.hostname)
    except Exception as error:
        trouble = str(error)
    return Examined(
        host=socket.gethostname(),
        queues=queues,
        workspace=str(own_workspace().root),
        shares=shares,
        trouble=trouble,
        confined=own_workspace().confined,
        versions=versions_here(),
        fingerprint=_fingerprint() if "cpu" in queues else {},
        clock=clock_ahead(),
        memory=memory_here(),
        gpus=gpus_here() if "gpu" in queues else [],
    ).model_dump()


@inspect_command(args=[("token", str)], signature="token", visible=False)
def lhcq_seen(state: Any, token: str) -> list[str]:
    """The marks of the asker and of all workers that this worker sees."""
    return marks_in(meeting_place(own_workspace(), token))


def meeting_place(workspace: Workspace, token: str) -> Path:
    """Where the marks of one examination stand."""
    return workspace.probe(token)


def mark_of(node: str) -> str:
    """The name of a worker's mark."""
    return hashlib.sha256(node.encode()).hexdigest()[:16]


def marks_in(directory: Path) -> list[str]:
    """The marks that stand, without those that are being written."""
    return sorted(path.name for path in directory.glob("[!.]*"))


def _leave_mark(workspace: Workspace, token: str, node: str) -> bool:
    """Commit this worker's mark as a result is committed; False where the asker's is not there, or is another's."""
    directory = meeting_place(workspace, token)
    try:
        if (directory / ASKER).read_text("utf-8") != token:
            return False
    except FileNotFoundError:
        return False
    with staged_file(directory / mark_of(node)) as temporary:
        temporary.write_text(token, "utf-8")
    return True


def versions_here() -> dict[str, str]:
    """The versions of what decides whether workers understand each other; what is not installed is left out."""
    found = {"lhcq": own_version()}
    for package in (*_PACKAGES, *_TRAINING):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def clock_ahead() -> float | None:
    """Seconds that the broker's clock is ahead of this host's, to half of a round trip; None if it does not tell."""
    try:
        client = redis_client()
        client.ping()  # connects, which must not count as the trip
        before = time.time()
        seconds, microseconds = client.time()
        after = time.time()
    except redis.RedisError:
        return None
    return float(seconds) + float(microseconds) / 1e6 - (before + after) / 2


def memory_here() -> int:
    """Bytes of memory that this host has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _fingerprint() -> dict[str, str]:
    from lhcq.jets.parts import fingerprint

    return fingerprint()
