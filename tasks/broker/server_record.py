"""Where the embedded broker's server is, as a record beside its lock says and the lock proves.

The socket's path follows from things that change: the workspace's place, TMPDIR. So it is noted by whoever starts the
server, and believed only of a process that has the lock open.
"""

import contextlib
import os
import socket
import subprocess
from pathlib import Path

from lhcq.errors import LhcqError
from lhcq.frozen import Kept
from lhcq.storage import lock_file, read_json

PROCESSES = Path("/proc")
"""Which processes there are and what they have open, where the kernel tells it."""
BOOT = PROCESSES / "sys/kernel/random/boot_id"
"""What tells this start of this machine from all others, where the kernel tells it: a laptop's name may change."""


class ServerRecord(Kept):
    """The server that holds the data directory, as noted by whoever started it."""

    pid: int
    host: str
    boot: str = ""
    """Of the machine; empty where the kernel does not tell it."""
    socket: str
    started: str = ""
    """When, by `ps`; where the kernel does not tell which files a process has open."""


def listening(data: Path) -> Path | None:
    """The socket at which the server of a data directory takes connections; None where there is none."""
    if not is_locked(data):
        return None
    record = read_record(data)
    if record is None or not is_server(record, data) or not _takes_connections(Path(record.socket)):
        return None
    return Path(record.socket)


def read_record(data: Path) -> ServerRecord | None:
    """What is noted of the server of a data directory; None where nothing is that could be believed."""
    try:
        return ServerRecord.checked(**read_json(data / "server.json"))
    except (OSError, ValueError, TypeError, LhcqError):
        return None


def is_server(record: ServerRecord, data: Path) -> bool:
    """Whether the process of the record is of this host and has the data directory's lock open, as no other can."""
    if not is_of_this_host(record):
        return False
    if not PROCESSES.joinpath("self", "fd").exists():
        return bool(record.started) and start_time(record.pid) == record.started
    try:
        lock = (data / "server.lock").stat()
        for name in os.listdir(PROCESSES / str(record.pid) / "fd"):  # noqa: PTH208
            with contextlib.suppress(FileNotFoundError):
                opened = (PROCESSES / str(record.pid) / "fd" / name).stat()
                if (opened.st_dev, opened.st_ino) == (lock.st_dev, lock.st_ino):
                    return record.pid != os.getpid()
    except OSError:
        return False
    return False


def is_of_this_host(record: ServerRecord) -> bool:
    """Whether the server was started here, whatever this machine was called then."""
    return record.host == socket.gethostname() or (bool(record.boot) and record.boot == this_boot())


def this_boot() -> str:
    """What this start of the machine is told by; empty where nothing tells it."""
    try:
        return BOOT.read_text("ascii").strip()
    except OSError:
        return ""


def start_time(pid: int) -> str:
    """When a process began, as `ps` says it; empty where there is none."""
    asked = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def _takes_connections(address: Path) -> bool:
    """Whether somebody listens at a socket, even if too busy to answer."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(1.0)
        try:
            line.connect(str(address))
        except BlockingIOError:  # more wait than it can hold, so somebody does
            return True
        except OSError as error:
            return isinstance(error, TimeoutError)
    return True


def is_locked(data: Path) -> bool:
    """Whether a server holds the data directory, which may be one that can only be read."""
    try:
        with (data / "server.lock").open() as lock:
            return not lock_file(lock, shared=True, wait=False)
    except FileNotFoundError:
        return False
