"""The embedded broker of a workspace that moves, and of sockets that are elsewhere or gone."""

import fcntl
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from lhcq.errors import BadInput, TransientError
from lhcq.storage import read_json, write_json
from lhcq.workspace import Workspace
from tasks.broker import embedded, server_record
from tasks.broker.embedded import answers, embedded_broker, running_broker, socket_path
from tasks.broker.server_record import ServerRecord
from tests.integration.broker_users import client_of, is_gone, servers


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
    monkeypatch.setattr(server_record, "this_boot", lambda: "other")
    who = rf"cannot be reached from here: process {server.pid} of \S+, at {socket_path(place)}\. Run this command"
    with pytest.raises(TransientError, match=who), embedded_broker(place):
        pytest.fail("there are two servers on one data directory")
    assert servers(place) == [server]


def test_a_server_is_found_again_when_its_host_is_called_otherwise(
    place: Workspace, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a laptop is in another network."""
    url = use(place).url()
    monkeypatch.setattr(socket, "gethostname", lambda: "renamed")
    assert running_broker(place) == url
    with embedded_broker(place) as same:
        assert same == url
    assert len(servers(place)) == 1


def test_a_broker_is_found_that_a_later_lhcq_noted_more_of(place: Workspace, use: Any) -> None:
    url = use(place).url()
    noted = place.broker / "server.json"
    write_json(noted, {**read_json(noted), "noted_later": 1})
    assert running_broker(place) == url


def test_a_process_that_has_the_number_of_a_server_is_not_ended(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held lock and a record that names somebody else: nothing is proved, so nothing is ended."""
    monkeypatch.setattr(embedded, "_GRACE_SECONDS", 0.5)
    place.broker.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        record = ServerRecord(pid=bystander.pid, host=socket.gethostname(), socket="/tmp/none.sock")  # noqa: S108
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


def test_a_server_whose_workspace_was_moved_meanwhile_ends_with_the_command_that_started_it(
    place: Workspace, tmp_path: Path
) -> None:
    with embedded_broker(place):
        moved = place.root.rename(tmp_path / "moved")
        assert len(servers(Workspace(moved))) == 1
    assert is_gone(Workspace(moved))
    assert not place.root.exists()


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
