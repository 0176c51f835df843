"""A broker that answers PING and refuses the rest, and one that serves another workspace: told at the start."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from lhcq.workspace import Workspace
from tasks.broker.acceptance import _commands
from tests.integration.conftest import Inside
from tests.integration.server import Server
from tests.integration.test_configured_broker import refuse_soon

# What a connection says of itself before it is anybody's.
GREETING = ("hello", "auth", "ping", "select", "client|setinfo", "client|setname")
NEEDED = sorted(
    {
        *(words[0].lower().replace(" ", "|") for words in _commands("key", 0)),
        *("watch", "unwatch", "psubscribe", "punsubscribe"),
    }
)


class Guarded(Server):
    """A server with a user who may do what a test says."""

    def allow(self, *rules: str) -> str:
        """Give the user these rules and no others; gives the address."""
        with redis.Redis.from_url(self.url) as client:
            client.execute_command("ACL", "SETUSER", "guest", "reset", "on", ">w0rd", *rules)
        return self.url.replace("redis://", "redis://guest:w0rd@")

    def obey(self, line: str) -> None:
        """Run the command that a line advises."""
        words = line.partition("Run `")[2].partition("`")[0].split()
        assert words[:3] == ["ACL", "SETUSER", "guest"]
        with redis.Redis.from_url(self.url) as client:
            client.execute_command(*words)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Guarded]:
    place = tmp_path / "server"
    place.mkdir()
    server = Guarded(place)
    yield server
    server.kill()


LACKING = {
    "channels": (("+@all", "~*"), "its channels"),
    "keys": (("+@all", "&*"), "its keys"),
    "keys but its own": (("+@all", "~lhcq:*", "&*"), "its keys"),
    "one command": (("+@all", "-brpop", "~*", "&*"), "BRPOP"),
    "scripts": (("+@all", "-@scripting", "~*", "&*"), "EVALSHA"),
    "transactions": (("+@all", "-@transaction", "~*", "&*"), "MULTI"),
    "everything but ping": (("+ping",), "BRPOP"),
}


@pytest.mark.parametrize("what", LACKING)
def test_what_a_broker_refuses_is_one_line_with_the_rule_that_mends_it(
    inside, server: Guarded, event_file: Path, what: str
) -> None:
    rules, named = LACKING[what]
    url = server.allow(*rules)
    cluster = ("cluster", event_file, "--name", "made", "--detach")
    line = inside.refused(*cluster, LHCQ_BROKER_URL=url)
    assert f"the broker at {server.url} refuses its user guest what lhcq needs: " in line
    assert named in line
    assert "w0rd" not in line
    told = json.loads(inside.run("doctor", "--json", code=1, LHCQ_BROKER_URL=url).stdout)
    (found,) = [finding for finding in told["findings"] if finding["check"] == "broker"]
    assert (found["state"], "ACL SETUSER guest" in found["remedy"]) == ("error", True)
    assert inside.ask("status")["jobs"] == []
    for _ in range(3):  # a command is refused before its keys and channels are looked at
        server.obey(line)
        done = inside.inside(*cluster, LHCQ_BROKER_URL=url)
        if done.returncode == 0:
            break
        (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 0, done.stderr


def test_every_verb_that_needs_the_broker_is_refused_alike(lhcq, server: Guarded, event_file: Path) -> None:
    url = server.allow("+@all", "~*")
    cluster = ("cluster", event_file, "--name", "made", "--detach")
    lines = {
        refuse_soon(lhcq, *words, LHCQ_BROKER_URL=url)
        for words in (cluster, ("worker", "cpu"), ("up", "--no-gpu"))
    }
    (line,) = lines
    assert "its channels" in line


def test_a_worker_that_celery_starts_tells_it_as_well(lhcq, server: Guarded) -> None:
    url = server.allow("+@all", "~*")
    lhcq.workspace.mkdir(parents=True)
    for command in (("-m", "celery", "-A", "tasks.app"), ("-P", "-m", "tasks")):
        done = subprocess.run(
            [sys.executable, *command, "worker", "--queues", "validate", "--pool", "solo"],
            env={**_inherited(), "LHCQ_BROKER_URL": url, "LHCQ_WORKSPACE": str(lhcq.workspace)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.strip().splitlines()[-1].startswith("lhcq: the broker at ")
        assert "Traceback" not in done.stderr


def test_what_is_tried_is_all_that_is_needed(lhcq, server: Guarded, event_file: Path, until) -> None:
    """With these commands and no others: a job in many chunks from its start to its end, a page, an examination."""
    url = server.allow(*(f"+{name}" for name in (*GREETING, *NEEDED)), "~*", "&*")
    up = lhcq.start("up", "--workers", "2", "--no-gpu", LHCQ_BROKER_URL=url)
    while "Ctrl-C" not in (line := up.stdout.readline()):
        assert line, up.stderr.read()
    made = lhcq.ask("cluster", event_file, "--name", "made", "--events-per-chunk", "70", LHCQ_BROKER_URL=url)
    assert made["rows"] == 2100
    assert lhcq.ask("status", LHCQ_BROKER_URL=url)["jobs"][0]["state"] == "done"
    told = lhcq.ask("doctor", LHCQ_BROKER_URL=url)
    checks = {finding["check"]: finding["state"] for finding in told["findings"]}
    assert (checks["broker"], checks["workers"], checks["workspace"]) == ("ok", "warning", "ok"), told
    with redis.Redis.from_url(server.url) as client:
        denied = [entry["object"] for entry in client.acl_log()]
    assert set(denied) <= {b"config|get", b"info", "config|get", "info"}, denied
    up.send_signal(signal.SIGINT)
    assert lhcq.finish(up).returncode == 0


@pytest.mark.parametrize("name", NEEDED)
def test_each_command_is_missed_when_it_is_missing(server: Guarded, name: str, tmp_path: Path) -> None:
    from tasks.broker.acceptance import denials

    url = server.allow("+@all", f"-{name}", "~*", "&*")
    with redis.Redis.from_url(url, decode_responses=True) as client:
        assert denials(client) == [f"+{name}"]


def test_two_workspaces_do_not_share_a_database(
    running, tmp_path: Path, server: Guarded, event_file: Path
) -> None:
    with running(tmp_path / "one") as one, running(tmp_path / "two") as two:
        cluster = ("cluster", event_file, "--name", "made", "--detach")
        assert one.inside(*cluster, LHCQ_BROKER_URL=server.url).returncode == 0
        line = refuse_soon(two, *cluster, LHCQ_BROKER_URL=server.url)
        assert f"the broker at {server.url} serves another workspace (" in line
        assert f":{one.workspace}), and this is {two.workspace}. " in line
        assert f"a database of its own: {server.url[:-1]}1" in line
        told = json.loads(two.inside("doctor", "--json", LHCQ_BROKER_URL=server.url).stdout)
        assert any("another workspace" in finding["found"] for finding in told["findings"])
        assert two.ask("status")["jobs"] == []

        second = f"{server.url[:-1]}1"
        up = two.start("up", "--workers", "1", "--no-gpu", LHCQ_BROKER_URL=second)
        while "Ctrl-C" not in (line := up.stdout.readline()):
            assert line, up.stderr.read()
        made = two.ask("cluster", event_file, "--name", "made", LHCQ_BROKER_URL=second)
        assert made["rows"] == 2100
        assert one.ask("status", LHCQ_BROKER_URL=server.url)["jobs"][0]["state"] == "open"  # nobody took it
        up.send_signal(signal.SIGINT)
        two.finish(up)


def test_one_workspace_under_two_paths_is_one(tmp_path: Path, server: Guarded, event_file: Path) -> None:
    """As hosts do that mount it at different places."""

    def queue(place: Path, name: str) -> None:
        Inside(place).run("cluster", event_file, "--name", name, "--detach", LHCQ_BROKER_URL=server.url)

    (tmp_path / "one").mkdir()
    (tmp_path / "mounted").symlink_to(tmp_path / "one")
    queue(tmp_path / "one", "made")
    queue(tmp_path / "mounted", "more")
    shutil.move(tmp_path / "one", tmp_path / "moved")
    queue(tmp_path / "moved", "again")


def test_a_copy_of_a_workspace_is_another(tmp_path: Path, server: Guarded, event_file: Path) -> None:
    """The workers of the original have no record of its jobs, and would drop its messages without a word."""
    cluster = ("cluster", event_file, "--name", "made", "--detach")
    Inside(tmp_path / "one").run(*cluster, LHCQ_BROKER_URL=server.url)
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    refused = Inside(tmp_path / "copy").run(*cluster, code=1, LHCQ_BROKER_URL=server.url).stderr
    assert f":{tmp_path / 'one'}), and this is {tmp_path / 'copy'}. " in refused


def test_a_claim_is_laid_again_when_the_broker_forgot_it(
    running, tmp_path: Path, server: Guarded, event_file: Path, until
) -> None:
    with running(tmp_path / "one") as one, running(tmp_path / "two") as two:
        up = one.start("up", "--workers", "1", "--no-gpu", LHCQ_BROKER_URL=server.url)
        while "Ctrl-C" not in (line := up.stdout.readline()):
            assert line, up.stderr.read()
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
            until(lambda: client.exists("lhcq:workspace"), "the workers to lay claim again")
        line = refuse_soon(two, "cluster", event_file, "--name", "x", "--detach", LHCQ_BROKER_URL=server.url)
        assert "serves another workspace" in line
        up.send_signal(signal.SIGINT)
        one.finish(up)


def test_an_identity_is_made_once_however_many_ask(tmp_path: Path) -> None:
    code = "import sys, pathlib as p, lhcq.workspace as w; print(w.Workspace(p.Path(sys.argv[1])).identity())"
    (tmp_path / "place").mkdir()
    asked = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "place"], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    answers = {process.communicate(timeout=60)[0].strip() for process in asked}
    assert answers == {Workspace(tmp_path / "place").identity()}
    assert len(answers.pop()) == 32


def _inherited() -> dict[str, Any]:
    import os

    return {name: value for name, value in os.environ.items() if name != "LHCQ_BROKER_URL"}
