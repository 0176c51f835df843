"""`lhcq fetch` as people and scripts run it."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lhcq.events.archive import CATALOGUE, find_file
from tests.inside import ended

LHCQ = [sys.executable, "-m", "lhcq.cli.main", "fetch"]
BOX = find_file("black-box-1")  # neither its size nor its md5 is known


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return ended("fetch", *arguments)


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def halfway(site: Any, tmp_path: Path) -> subprocess.Popen[str]:
    """A command that has 77,777 bytes of black box 1 and waits for more."""
    site.then(hold_after=77_777)
    command = [*LHCQ, BOX.name, "--from", site.url, "--to", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    part = tmp_path / f"{BOX.file}.part"
    wait_for(lambda: part.exists() and part.stat().st_size == 77_777)
    return process


@pytest.mark.parametrize("arguments", [(), ("--list",), ("tiny", "--list")])
def test_the_list_names_every_file_with_what_it_is_and_whether_it_can_be_verified(
    arguments: tuple[str],
) -> None:
    text = run(*arguments).stdout
    for entry in CATALOGUE:
        assert entry.name in text
        assert f"{entry.file}" in text
        assert entry.what in text
    assert text.count("md5 known") == sum(entry.md5 is not None for entry in CATALOGUE)
    assert text.count("md5 not known") == sum(entry.md5 is None for entry in CATALOGUE)
    assert "doi:10.5281/zenodo.6466204 (CC-BY-4.0)" in text
    assert "doi:10.5281/zenodo.4536624 (CC-BY-4.0)" in text


def test_the_list_as_json_holds_the_facts() -> None:
    files = {entry["name"]: entry for entry in json.loads(run("--json").stdout)["files"]}
    assert list(files) == [entry.name for entry in CATALOGUE]
    assert files["rnd"]["published_bytes"] == 2_908_260_409
    assert files["rnd"]["published_md5"] == "629789d55813be3860781b084ae7f1de"
    assert files["black-box-2"]["published_md5"] is None
    assert files["rnd"]["doi"] == "10.5281/zenodo.6466204"


def test_real_events_arrive_verified_in_spite_of_cuts_and_are_not_loaded_twice(
    site: Any, tmp_path: Path, test_data: Path
) -> None:
    tiny = find_file("tiny")
    site.content = (test_data / tiny.file).read_bytes()
    site.then(cut_after=1_000_000).then(status=503, headers={"Retry-After": "0"})
    first = run("tiny", "--from", site.url, "--to", tmp_path, "--json")
    assert first.returncode == 0, first.stderr
    answer = json.loads(first.stdout)
    assert first.stdout.count("\n") == 1
    assert answer["path"] == str(tmp_path / tiny.file)
    assert (answer["md5"], answer["verified_by"]) == (tiny.md5, "catalogue")
    assert (answer["bytes"], answer["already_there"], answer["resumed_from"]) == (tiny.size, False, 0)
    assert (tmp_path / tiny.file).read_bytes() == site.content
    assert site.ranges == [None, "bytes=1000000-", "bytes=1000000-"]
    assert "trying again" in first.stderr
    assert str(tmp_path) in first.stderr
    again = run(tiny.file, "--to", tmp_path)
    assert "already there, 2,587,490 bytes" in again.stdout
    assert "agrees with the published one" in again.stdout
    assert f"Next: lhcq inspect {tmp_path / tiny.file}" in again.stdout
    assert len(site.asked) == 3


@pytest.mark.parametrize("variable", ["https_proxy", "ALL_PROXY"])
def test_a_socks_proxy_is_refused_in_one_line_with_what_to_do(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "socks5h://me:s3cret@127.0.0.1:9")
    done = run("tiny", "--to", tmp_path)
    assert done.returncode == 1
    told = done.stderr.splitlines()[-1]
    assert "the environment names a SOCKS proxy (127.0.0.1:9)" in told
    assert "curl --location --output FILE https://raw.githubusercontent.com/" in told
    assert "s3cret" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_current_directory_is_where_files_go_by_themselves(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("black-box-1-key", "--from", site.url)
    assert done.stdout.splitlines()[0] == str(tmp_path / "events_LHCO2020_BlackBox1.masterkey")
    box = tmp_path / "events_LHCO2020_BlackBox1.h5"
    assert (
        f"Next: lhcq cluster {box} --labels {tmp_path / 'events_LHCO2020_BlackBox1.masterkey'}" in done.stdout
    )


def test_kill_9_halfway_costs_nothing_but_the_rest(
    site: Any, tmp_path: Path, halfway: subprocess.Popen[str]
) -> None:
    halfway.send_signal(signal.SIGKILL)
    halfway.communicate()
    assert not (tmp_path / BOX.file).exists()
    done = run(BOX.name, "--from", site.url, "--to", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / BOX.file).read_bytes() == site.content
    assert [path.name for path in tmp_path.iterdir()] == [BOX.file]
    assert site.ranges == [None, "bytes=77777-"]
    assert site.asked[1].if_range == site.etag
    assert json.loads(done.stdout)["resumed_from"] == 77_777


def test_ctrl_c_keeps_what_came_and_says_so(
    site: Any, tmp_path: Path, halfway: subprocess.Popen[str]
) -> None:
    halfway.send_signal(signal.SIGINT)
    error = halfway.communicate(timeout=30)[1]
    assert halfway.returncode == 130
    assert "interrupted at byte 77,777: run the same command again" in error
    assert "Traceback" not in error
    assert (tmp_path / f"{BOX.file}.part").read_bytes() == site.content[:77_777]


def test_a_second_command_for_the_same_file_is_refused_and_harms_nothing(
    site: Any, tmp_path: Path, halfway: subprocess.Popen[str]
) -> None:
    second = run(BOX.name, "--from", site.url, "--to", tmp_path)
    assert second.returncode == 1
    assert "another `lhcq fetch` is loading this file" in second.stderr
    site.release.set()
    halfway.communicate(timeout=30)
    assert halfway.returncode == 0
    assert (tmp_path / BOX.file).read_bytes() == site.content


def test_a_file_that_cannot_be_verified_is_said_to_be_so_with_its_md5(site: Any, tmp_path: Path) -> None:
    done = run(BOX.name, "--from", site.url, "--to", tmp_path)
    assert done.returncode == 0
    assert f"200,000 bytes, md5 {site.md5}" in done.stdout
    assert "The md5 cannot be verified, because none is known for this file" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("black-box-4",), "no such file in the catalogue"),
        (("tiny", "--from", "file:///etc"), "not the address of a directory on the web"),
        (("tiny", "--from", "http://127.0.0.1:1", "--attempts", "1"), "connection refused (1 attempt)"),
        (("tiny", "--from", "SITE"), "the published one has 2,587,490"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_1(
    site: Any, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    done = run(*(site.url if word == "SITE" else word for word in arguments), "--to", tmp_path, "--json")
    assert (done.returncode, done.stdout) == (1, "")
    told = [text for text in done.stderr.splitlines() if not text.startswith("lhcq: loading")]
    assert len(told) == 1
    assert told[0].startswith("lhcq: ")
    assert line in told[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [("tiny", "--attempts", "0"), ("tiny", "--stall", "0"), ("tiny", "rnd")]
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).returncode == 2


def test_a_terminal_shows_how_far_it_is(site: Any, tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    command = [*LHCQ, BOX.name, "--from", site.url, "--to", str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, check=True, timeout=60)
    os.close(terminal)
    shown = b""
    try:
        while block := os.read(master, 4096):
            shown += block
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(master)
    assert b"200/200 kB" in shown
    assert done.stdout.splitlines()[0] == str(tmp_path / BOX.file).encode()
