"""Another user on the same machine: the embedded broker, its files, and the login of Flower."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lhcq.errors import BadInput
from lhcq.workspace import Workspace
from tasks.broker.embedded import embedded_broker, running_broker, socket_path

Stranger = Callable[..., "subprocess.CompletedProcess[str]"]
KNOCK = """
import socket, sys
line = socket.socket(socket.AF_UNIX)
line.connect(sys.argv[1])
line.sendall(b"PING\\r\\n")
print(line.recv(99))
"""


def test_another_user_reaches_neither_the_socket_nor_the_files(
    place: Workspace, tmp_path: Path, stranger: Stranger
) -> None:
    for directory in (tmp_path, *tmp_path.parents):  # up to the broker's own nothing keeps the other user out
        if directory.owner() == "root" and directory != Path("/tmp"):  # noqa: S108
            directory.chmod(directory.stat().st_mode | 0o055)
    with embedded_broker(place):
        own = subprocess.run(
            [sys.executable, "-c", KNOCK, socket_path(place)], capture_output=True, text=True, check=True
        )
        assert "PONG" in own.stdout
        knocked = stranger("/usr/bin/python3", "-c", KNOCK, socket_path(place))
        assert knocked.returncode != 0
        assert "PermissionError" in knocked.stderr
        assert stranger("ls", place.root).returncode == 0
        for path in (place.broker, place.broker / "valkey.conf", socket_path(place).parent):
            assert stranger("ls", path).returncode != 0
        assert running_broker(place)


def test_the_modes_are_private_whatever_the_umask(place: Workspace) -> None:
    before = os.umask(0)
    try:
        with embedded_broker(place):
            for path in (place.broker, socket_path(place).parent, socket_path(place)):
                assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    finally:
        os.umask(before)


def test_a_directory_that_others_could_write_to_is_made_private_before_the_server_reads_its_configuration(
    place: Workspace,
) -> None:
    place.broker.mkdir(parents=True)
    place.broker.chmod(0o777)
    with embedded_broker(place):
        assert stat.S_IMODE(place.broker.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's directory")
def test_a_broker_directory_of_another_user_is_refused(place: Workspace) -> None:
    place.broker.mkdir(parents=True)
    os.chown(place.broker, 65534, 65534)
    with pytest.raises(BadInput, match="belongs to another user"), embedded_broker(place):
        pytest.fail("was used")
    assert not (place.broker / "valkey.conf").exists()


@pytest.mark.parametrize("trap", ["open to others", "a link", "of another user"])
def test_a_login_for_flower_that_others_may_know_makes_way_for_a_new_one(
    place: Workspace, tmp_path: Path, trap: str
) -> None:
    from tasks.workers.login import kept_login

    path = place.root / "flower-login"
    place.root.mkdir()
    made = kept_login(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kept_login(path) == made
    if trap == "open to others":
        path.chmod(0o644)
    elif trap == "a link":
        path.rename(tmp_path / "known")
        path.symlink_to(tmp_path / "known")
    elif os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:
        pytest.skip("only root can make another user's file")
    assert kept_login(path) != made
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
