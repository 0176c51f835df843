"""The broker that lhcq brings: one a workspace, persistent, private, gone with its last user."""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from lhcq.errors import BadInput, TransientError
from lhcq.storage import write_json
from lhcq.workspace import Workspace
from tasks.broker import embedded
from tasks.broker.embedded import answers, embedded_broker, running_broker, socket_path
from tasks.jobs.leases import lease_key

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


@pytest.fixture
def use() -> Iterator[Callable[[Workspace], User]]:
    """Start users; none is left behind, nor the servers of their workspaces."""
    users: list[User] = []
    places: list[Workspace] = []

    def start(workspace: Workspace) -> User:
        places.append(workspace)
        users.append(User(workspace))
        return users[-1]

    yield start
    for user in users:
        user.kill()
    for place in places:
        for server in servers(place):
            server.kill()


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


def test_commands_that_start_at_once_share_one_server(place: Workspace, use: Any) -> None:
    users = [use(place) for _ in range(4)]
    assert {user.url() for user in users} == {f"redis+socket://{socket_path(place)}"}
    assert len(servers(place)) == 1
    assert running_broker(place) == f"redis+socket://{socket_path(place)}"
    for user in users[:3]:
        user.leave()
        assert answers(socket_path(place))
    users[3].leave()
    assert is_gone(place)
    assert running_broker(place) is None
    assert not socket_path(place).exists()


def test_users_that_come_and_go_at_once_never_meet_a_stopped_server(place: Workspace, use: Any) -> None:
    for _ in range(3):
        leaving = [use(place), use(place)]
        assert all(user.url() for user in leaving)
        coming = use(place)
        for user in leaving:
            user.process.send_signal(signal.SIGINT)  # without waiting for it
        assert coming.url()
        for user in leaving:
            user.process.communicate(timeout=60)
        assert answers(socket_path(place))
        coming.leave()
    assert is_gone(place)


def test_a_server_whose_command_was_killed_is_taken_over(place: Workspace, use: Any) -> None:
    first = use(place)
    first.url()
    (server,) = servers(place)
    with client_of(place) as client:
        client.rpush("cpu", "message")
        client.set(lease_key("work"), "a worker that died with its command")
    first.kill()
    assert answers(socket_path(place))
    second = use(place)
    second.url()
    assert servers(place) == [server]
    with client_of(place) as client:
        assert client.lrange("cpu", 0, -1) == ["message"]
        assert not client.exists(lease_key("work"))
        client.set(lease_key("work"), "a worker of the second command")
        third = use(place)
        third.url()
        assert client.exists(lease_key("work"))
    second.leave()
    third.leave()
    assert is_gone(place)


def test_a_killed_server_is_started_again_from_its_file(place: Workspace, use: Any, until: Any) -> None:
    first = use(place)
    first.url()
    (server,) = servers(place)
    with client_of(place) as client:
        client.rpush("cpu", "one", "two")
    server.kill()
    until(lambda: not servers(place), "the server to die")
    second = use(place)
    second.url()
    (again,) = servers(place)
    assert again.pid != server.pid
    with client_of(place) as client:
        assert client.lrange("cpu", 0, -1) == ["one", "two"]
    first.leave()
    second.leave()
    assert is_gone(place)


def test_what_is_queued_is_there_after_everybody_left(place: Workspace) -> None:
    with embedded_broker(place), client_of(place) as client:
        client.rpush("cpu", "message")
    assert is_gone(place)
    with embedded_broker(place), client_of(place) as client:
        assert client.lrange("cpu", 0, -1) == ["message"]


def test_the_configuration_is_in_force_and_nothing_listens_on_the_network(place: Workspace) -> None:
    with embedded_broker(place), client_of(place) as client:
        expected = {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
            "port": "0",
            "dir": os.path.realpath(place.broker),
        }
        assert {name: client.config_get(name)[name] for name in expected} == expected
        (server,) = servers(place)
        assert server.net_connections("inet") == []


def test_only_the_owner_can_reach_it(place: Workspace) -> None:
    with embedded_broker(place):
        address = socket_path(place)
        assert stat.S_ISSOCK(address.stat().st_mode)
        assert stat.S_IMODE(address.stat().st_mode) == 0o700
        assert stat.S_IMODE(address.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(place.broker.stat().st_mode) == 0o700


@pytest.mark.parametrize("trap", ["open to others", "a link", "a file"])
def test_a_socket_directory_that_is_not_private_is_refused(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    directory = socket_path(place).parent
    if trap == "a file":
        directory.touch(0o700)
    elif trap == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        directory.symlink_to(tmp_path / "elsewhere")
    else:
        directory.mkdir()
        directory.chmod(0o755)
    with pytest.raises(BadInput, match="mode 0700"), embedded_broker(place):
        pytest.fail("used all the same")
    assert is_gone(place)


@pytest.mark.parametrize(
    "name", ["x" * 200, "my events", 'it\'s "quoted" \\ and new\nline', "événements", "#5"]
)
def test_a_workspace_may_have_any_path(tmp_path: Path, name: str) -> None:
    place = Workspace(tmp_path / name / "workspace")
    with embedded_broker(place), client_of(place) as client:
        assert client.ping()
        assert (place.broker / "valkey.log").exists()
        assert len(servers(place)) == 1
    assert is_gone(place)


def test_one_workspace_has_one_broker_however_its_path_is_spelt(place: Workspace, tmp_path: Path) -> None:
    place.create()
    (tmp_path / "link").symlink_to(place.root)
    with embedded_broker(place) as url:
        for spelling in (tmp_path / "link", tmp_path / "x" / ".." / "workspace"):
            assert running_broker(Workspace(spelling)) == url
            with embedded_broker(Workspace(spelling)) as same:
                assert same == url
        assert len(servers(place)) == 1


def test_a_server_under_another_tmpdir_is_used_by_whoever_comes_and_stays_one(
    place: Workspace, use: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = use(place).url()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert running_broker(place) == url
    with embedded_broker(place) as same:
        assert same == url
    assert len(servers(place)) == 1


def test_a_server_of_another_host_is_told_as_that(
    place: Workspace, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(place).url()
    (server,) = servers(place)
    monkeypatch.setattr(embedded, "_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(socket, "gethostname", lambda: "other")
    who = rf"cannot be reached from here: process {server.pid} of \S+, at {socket_path(place)}\. Run this command"
    with pytest.raises(TransientError, match=who), embedded_broker(place):
        pytest.fail("there are two servers on one data directory")
    assert servers(place) == [server]


def test_a_process_that_has_the_number_of_a_server_is_not_ended(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held lock and a record that names somebody else: nothing is proved, so nothing is ended."""
    monkeypatch.setattr(embedded, "_GRACE_SECONDS", 0.5)
    place.broker.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        record = embedded.Record(pid=bystander.pid, host=socket.gethostname(), socket="/tmp/none.sock")  # noqa: S108
        write_json(place.broker / "server.json", record.model_dump())
        with (place.broker / "server.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(TransientError, match="cannot be reached from here"), embedded_broker(place):
                pytest.fail("used all the same")
        assert bystander.poll() is None
        bystander.kill()


def test_a_moved_workspace_keeps_what_was_queued_and_has_one_server(
    place: Workspace, use: Any, tmp_path: Path
) -> None:
    first = use(place)
    first.url()
    with client_of(place) as client:
        client.rpush("cpu", "message")
    first.kill()  # its server stays
    assert len(servers(place)) == 1
    moved = Workspace(tmp_path / "moved")
    place.root.rename(moved.root)
    with embedded_broker(moved), client_of(moved) as client:
        assert client.lrange("cpu", 0, -1) == ["message"]
        assert len(servers(moved)) == 1
        assert not answers(socket_path(place))
    assert is_gone(moved)


def test_a_server_whose_socket_was_removed_is_ended_and_started_again(place: Workspace, use: Any) -> None:
    first = use(place)
    first.url()
    (server,) = servers(place)
    with client_of(place) as client:
        client.rpush("cpu", "message")
    first.kill()
    socket_path(place).unlink()
    with embedded_broker(place), client_of(place) as client:
        assert client.lrange("cpu", 0, -1) == ["message"]
        assert server not in servers(place)
        assert len(servers(place)) == 1
    assert is_gone(place)


@pytest.mark.torture  # a minute; a server whose socket is gone is found and ended above
def test_a_command_at_work_finds_its_broker_again_when_the_socket_was_removed(
    place: Workspace, use: Any, until: Any
) -> None:
    first = use(place)
    url = first.url()
    with client_of(place) as client:
        client.rpush("cpu", "message")
    shutil.rmtree(socket_path(place).parent)
    second = use(place)
    assert second.url() == url
    with client_of(place) as client:
        assert client.lrange("cpu", 0, -1) == ["message"]
    socket_path(place).unlink()  # and by itself
    until(lambda: answers(socket_path(place)), "the broker to be found again")
    assert len(servers(place)) == 1
    first.leave()
    second.leave()
    assert is_gone(place)


def test_the_last_to_leave_stops_a_server_that_cannot_be_reached(place: Workspace, use: Any) -> None:
    first = use(place)
    first.url()
    socket_path(place).unlink()
    first.leave()
    assert is_gone(place)


def test_a_temporary_directory_too_long_for_a_socket_is_not_used_for_one(
    place: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with embedded_broker(place), client_of(place) as client:
        assert client.ping()
    assert is_gone(place)


def test_a_server_that_cannot_start_says_why(place: Workspace) -> None:
    with embedded_broker(place), client_of(place) as client:
        client.rpush("cpu", "message")
    for path in place.broker.glob("appendonlydir/*.incr.aof"):
        path.write_bytes(b"*1\r\nnonsense" * 20)
    with pytest.raises(TransientError, match=r"did not start; .*valkey\.log says: "), embedded_broker(place):
        pytest.fail("started from nonsense")


def test_the_server_of_a_workspace_that_was_removed_is_not_used_again(place: Workspace, use: Any) -> None:
    first = use(place)
    first.url()
    (server,) = servers(place)
    with client_of(place) as client:
        client.rpush("cpu", "a message of the removed workspace")
    first.kill()
    shutil.rmtree(place.root)
    with embedded_broker(place), client_of(place) as client:
        assert client.lrange("cpu", 0, -1) == []
        assert server not in servers(place)
    assert is_gone(place)


def test_ctrl_c_does_not_reach_the_server(place: Workspace, use: Any, until: Any) -> None:
    use(place).url()
    (server,) = servers(place)
    assert os.getpgid(server.pid) == server.pid
    assert os.getsid(server.pid) == server.pid
    server.send_signal(signal.SIGTERM)  # but an administrator's signal does, in order
    until(lambda: is_gone(place), "the server to stop")


def test_who_started_the_server_does_not_wait_for_its_end_when_others_use_it(
    place: Workspace, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        embedded, "_reap", lambda server: pytest.fail(f"{server.pid} stays, and was waited for")
    )
    with embedded_broker(place):
        other = use(place)
        other.url()
    assert len(servers(place)) == 1
    other.leave()
    assert is_gone(place)


@pytest.mark.parametrize("place_of_ctrl_c", ["write_json", "answers", "_forget_leases", "_agreed_address"])
def test_ctrl_c_while_the_server_starts_leaves_none(
    place: Workspace, monkeypatch: pytest.MonkeyPatch, place_of_ctrl_c: str
) -> None:
    came = iter([True])
    real = getattr(embedded, place_of_ctrl_c)

    def interrupted(*arguments: Any) -> Any:
        if next(came, False):
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(embedded, place_of_ctrl_c, interrupted)
    with pytest.raises(KeyboardInterrupt), embedded_broker(place):
        raise AssertionError("it was not interrupted")
    assert [one for one in psutil.process_iter(["name", "cmdline", "cwd"]) if _is_of(place, one)] == []


def _is_of(place: Workspace, process: psutil.Process) -> bool:
    return process.info["name"] == "valkey-server" and str(place.broker) in str(process.info["cwd"])
