"""The broker that lhcq brings: one a workspace, persistent, private, gone with its last user."""

import os
import shutil
import signal
import stat
from typing import Any

import psutil
import pytest

from lhcq.errors import TransientError
from lhcq.workspace import Workspace
from tasks.broker import embedded
from tasks.broker.embedded import answers, embedded_broker, running_broker, socket_path
from tasks.jobs.leases import lease_key
from tests.integration.broker_users import client_of, is_gone, servers


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
