"""A workspace that may only be read: whoever looks at it is answered, and whoever would write is told so."""

import os
import subprocess
import sys

import pytest

from lhcq.workspace import Workspace
from tasks.broker.embedded import embedded_broker
from tasks.broker.server_record import is_locked
from tasks.client import is_up, staying_up
from tests.search_events import write_events

_READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def read_only(place: Workspace, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """A command, to which the workspace is a filesystem that may only be read."""
    enter = ["unshare", "--mount", "sh", "-c", _READ_ONLY, str(place.root)]
    if os.geteuid() != 0 or subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        pytest.skip("only who may mount can see a read-only filesystem")
    return subprocess.run(
        [*enter, sys.executable, "-m", "lhcq", *arguments],
        env={**os.environ, "LHCQ_WORKSPACE": str(place.root), "LHCQ_BROKER_URL": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_jobs_are_listed_though_a_broker_ran_there_once(place: Workspace) -> None:
    with embedded_broker(place):
        pass
    listed = read_only(place, "status")
    assert (listed.returncode, listed.stderr) == (0, "")


def test_what_would_write_says_so_in_one_line(place: Workspace) -> None:
    with embedded_broker(place):
        pass
    refused = read_only(place, "import", __file__, "--name", "new")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"lhcq: {place.root}: the workspace cannot be written to.")
    assert len(refused.stderr.splitlines()) == 1


def test_a_verb_that_begins_with_a_question_says_so_where_it_would_begin_to_work(place: Workspace) -> None:
    write_events(place.dataset("mixed"), 6000, 200)
    refused = read_only(place, "search", "mixed", "--regions", "3300..3900..400", "--folds", "2")
    assert refused.returncode == 1
    assert refused.stderr == (
        f"lhcq: {place.root}: the workspace cannot be written to. Set LHCQ_WORKSPACE to one that can.\n"
    )


def test_a_question_makes_no_files(place: Workspace) -> None:
    assert not is_up(place)
    assert not is_locked(place.broker)
    assert not place.root.exists()
    place.root.mkdir()
    with staying_up(place):
        assert is_up(place)
    assert not is_up(place)
