"""Processes that use the embedded broker of a workspace."""

import contextlib
import os
import subprocess
import sys

import psutil
import redis

from lhcq.workspace import Workspace
from tasks.broker.embedded import answers, socket_path

USER = """
import sys
from pathlib import Path
from lhcq.workspace import Workspace
from tasks.broker.embedded import embedded_broker
with embedded_broker(Workspace(Path(sys.argv[1]))) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


class User:
    """A process that uses the broker of a workspace until told to leave."""

    def __init__(self, workspace: Workspace) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(workspace.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def url(self) -> str:
        """The broker's address, once it is up."""
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        """End in order."""
        _, err = self.process.communicate("", timeout=60)
        assert self.process.returncode == 0, err

    def kill(self) -> None:
        """Die."""
        self.process.kill()
        self.process.communicate()


def servers(workspace: Workspace) -> list[psutil.Process]:
    """The running servers of a workspace: Valkey works in its data directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_ours = process.cwd().removesuffix(" (deleted)") == os.path.realpath(workspace.broker)
            if is_ours and "valkey" in process.exe() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def client_of(workspace: Workspace) -> "redis.Redis":
    return redis.Redis(unix_socket_path=str(socket_path(workspace)), decode_responses=True)


def is_gone(workspace: Workspace) -> bool:
    return not servers(workspace) and not answers(socket_path(workspace))
