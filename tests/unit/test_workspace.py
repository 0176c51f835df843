"""The workspace: what stands under its final name is whole, and the first to put it there."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lhcq.errors import BadInput, DiskFull, NotThere
from lhcq.manifests import read_manifest, verify_files, write_manifest
from lhcq.records.commits import steps_under
from lhcq.storage import (
    MANIFEST,
    append_line,
    explained_os_errors,
    read_json,
    sha256_of_json,
    staged_directory,
    staged_file,
    to_json,
    write_json,
    write_text,
)
from lhcq.workspace import Workspace

RACES = 1000


def commit_file(final: Path, text: str) -> None:
    with staged_file(final) as path:
        path.write_text(text)


def commit_directory(final: Path, text: str) -> None:
    with staged_directory(final) as directory:
        (directory / "data").write_text(text)
        write_manifest(directory, by=text)


def everything_in(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*")}


def test_a_file_stands_only_once_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "part"
    with staged_file(final) as path:
        path.write_text("half")
        assert not final.exists()
        path.write_text("whole")
    assert final.read_text() == "whole"
    assert everything_in(tmp_path) == {"deep", "part"}


def test_a_directory_stands_only_once_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "checkpoint"
    with staged_directory(final) as directory:
        (directory / "inner").mkdir()
        (directory / "inner" / "data").write_text("data")
        assert not final.exists()
        write_manifest(directory)
    assert everything_in(final) == {"inner", "data", MANIFEST}
    assert everything_in(final.parent) == {"checkpoint", "inner", "data", MANIFEST}


@pytest.mark.parametrize("commit", [commit_file, commit_directory])
def test_the_first_commit_stays_and_a_late_one_leaves_nothing(tmp_path: Path, commit: Any) -> None:
    commit(tmp_path / "final", "first")
    before = everything_in(tmp_path)
    commit(tmp_path / "final", "second")
    assert everything_in(tmp_path) == before
    final = tmp_path / "final"
    assert (final / "data" if final.is_dir() else final).read_text() == "first"


def test_an_empty_directory_is_nobodys_commit_and_makes_way(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    commit_directory(tmp_path / "final", "first")
    assert (tmp_path / "final" / "data").read_text() == "first"


def test_something_else_in_the_way_of_a_directory_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "notes").write_text("mine")
    with pytest.raises(BadInput, match=r"final: is no result of lhcq .* Move it elsewhere\."):
        commit_directory(tmp_path / "final", "first")
    assert everything_in(tmp_path) == {"final", "notes"}


@pytest.mark.parametrize("staged", [staged_file, staged_directory])
def test_an_error_on_the_way_leaves_nothing(tmp_path: Path, staged: Any) -> None:
    def write_half() -> None:
        with staged(tmp_path / "final") as path:
            (path / "data" if path.is_dir() else path).write_text("half")
            raise KeyError("half-way")

    with pytest.raises(KeyError):
        write_half()
    assert everything_in(tmp_path) == set()


def test_a_killed_writer_leaves_no_final_name(tmp_path: Path) -> None:
    program = (
        "import os, signal; from pathlib import Path; from lhcq.storage import staged_directory\n"
        f"with staged_directory(Path({str(tmp_path)!r}) / '00000004') as d:\n"
        " (d / 'manifest.json').write_text('{}'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.call([sys.executable, "-c", program], timeout=60) == -signal.SIGKILL
    assert not (tmp_path / "00000004").exists()
    assert steps_under(tmp_path) == []  # though a temporary directory with a manifest is left
    assert MANIFEST in everything_in(tmp_path)


def race(root: str, commit: Any, me: str, barrier: Any) -> None:
    for number in range(RACES):
        barrier.wait(60)
        commit(Path(root) / f"{number}", me)


@pytest.fixture(params=["memory", "nfs"])
def arena(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Where processes race: in memory, where nothing waits for a disk and the race is close, and on NFS."""
    where = "/dev/shm" if request.param == "memory" else os.environ.get("LHCQ_TEST_NFS")  # noqa: S108
    if where is None:
        pytest.skip("LHCQ_TEST_NFS names no directory on NFS")
    with tempfile.TemporaryDirectory(dir=where if Path(where).is_dir() else tmp_path) as directory:
        yield Path(directory)


@pytest.mark.parametrize("commit", [commit_file, commit_directory])
def test_of_two_processes_that_race_exactly_one_commits(arena: Path, commit: Any) -> None:
    context = get_context("spawn")
    barrier = context.Barrier(2)
    racers = [
        context.Process(target=race, args=(str(arena), commit, me, barrier), daemon=True) for me in "ab"
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(100)
        assert racer.exitcode == 0
    if commit is commit_directory:
        assert everything_in(arena) == {*map(str, range(RACES)), "data", MANIFEST}
        for number in range(RACES):
            manifest = read_json(arena / f"{number}" / MANIFEST)
            verify_files(arena / f"{number}", manifest)
            assert (arena / f"{number}" / "data").read_text() == manifest["by"]
    else:
        assert everything_in(arena) == set(map(str, range(RACES)))
        assert all((arena / f"{number}").read_text() in "ab" for number in range(RACES))


def fill(disk: Path, *, leaving: int = 0) -> None:
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(2 << 20))
    os.truncate(filler, filler.stat().st_size - leaving)


def test_a_full_disk_is_reported_and_leaves_nothing(small_disk: Path) -> None:
    fill(small_disk)
    final = small_disk / "final"
    with pytest.raises(DiskFull, match="final: no space left on the device"), staged_file(final) as path:
        path.write_bytes(bytes(10_000))
    with pytest.raises(DiskFull, match="no space left"), staged_directory(final) as directory:
        (directory / "data").write_bytes(bytes(10_000))
    for write in (write_json, write_text):
        with pytest.raises(DiskFull, match="no space left"):
            write(final, "x" * 10_000)
    assert everything_in(small_disk) == {"filler"}


def test_a_full_disk_is_known_by_the_words_of_a_library_too(small_disk: Path) -> None:
    """A checkpoint's tensors: five attempts were made, and the run was given up."""
    from safetensors.numpy import save_file

    with (
        pytest.raises(DiskFull, match="final: no space left on the device"),
        staged_directory(small_disk / "final") as directory,
    ):
        save_file({"weight": np.zeros(200_000)}, directory / "tensors")
    assert everything_in(small_disk) == set()


def test_a_full_disk_keeps_what_was_there(small_disk: Path) -> None:
    path = small_disk / "outcome.json"
    write_json(path, {"state": "before"})
    fill(small_disk)
    with pytest.raises(DiskFull):
        write_json(path, "x" * 10_000)
    assert read_json(path) == {"state": "before"}


def test_a_full_disk_cuts_no_line_of_a_log(small_disk: Path) -> None:
    log = small_disk / "events.jsonl"
    append_line(log, {"step": 1})
    fill(small_disk, leaving=4096)
    with pytest.raises(DiskFull, match=r"events\.jsonl"):
        append_line(log, {"step": 2, "text": "x" * 12_000})  # a page of it fits
    (small_disk / "filler").unlink()
    append_line(log, {"step": 3})
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 3]


def test_a_line_cut_by_a_limit_is_taken_back(tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys; from pathlib import Path; from lhcq.storage import append_line\n"
        "from lhcq.errors import DiskFull\n"
        f"log = Path({str(tmp_path)!r}) / 'log'; append_line(log, 'x' * 50)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n append_line(log, 'y' * 80)\nexcept DiskFull:\n sys.exit(7)"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert subprocess.call([sys.executable, "-c", program], timeout=60) == 7
    assert (tmp_path / "log").read_text() == f'"{"x" * 50}"\n'


def append_many(path: str, writer: int) -> None:
    for number in range(300):
        append_line(Path(path), {"writer": writer, "number": number, "text": "x" * (37 * number % 5000)})


def test_lines_of_several_writers_do_not_mix(tmp_path: Path) -> None:
    context = get_context("spawn")
    log = tmp_path / "logs" / "events.jsonl"
    writers = [context.Process(target=append_many, args=(str(log), n), daemon=True) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(100)
        assert writer.exitcode == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for number in range(3):
        mine = [line["number"] for line in lines if line["writer"] == number]
        assert mine == list(range(300))


def test_a_manifest_names_every_file_and_finds_a_changed_or_missing_one(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with staged_directory(made) as directory:
        (directory / "a").write_text("a")
        (directory / "inner").mkdir()
        (directory / "inner" / "b").write_text("bb")
        write_manifest(directory, step=4)
    manifest = read_manifest(made, what="it", remedy="Make it.")
    assert manifest["step"] == 4
    assert {name: facts["bytes"] for name, facts in manifest["files"].items()} == {"a": 1, "inner/b": 2}
    verify_files(made, manifest)

    (made / "inner" / "b").write_text("xx")  # as long as before
    with pytest.raises(BadInput, match=r"inner/b: differs"):
        verify_files(made, manifest)
    (made / "inner" / "b").unlink()
    with pytest.raises(BadInput, match=r"inner/b: missing"):
        verify_files(made, manifest)


def test_without_its_manifest_a_directory_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with pytest.raises(NotThere, match=r"dataset 'made' does not exist in .*\. Make it\."):
        read_manifest(tmp_path / "made", what="dataset 'made'", remedy="Make it.")


def test_a_damaged_json_file_is_named(tmp_path: Path) -> None:
    for content in (b'{"half": ', b"\xff\xfe", b""):
        (tmp_path / "job.json").write_bytes(content)
        with pytest.raises(BadInput, match=r"job\.json: not readable as JSON"):
            read_json(tmp_path / "job.json")


def test_equal_values_are_equal_bytes_and_nan_is_refused() -> None:
    assert to_json({"a": 1, "b": [1.5, None]}) == to_json({"b": [1.5, None], "a": 1})
    assert sha256_of_json({"a": 1, "b": 2}) == sha256_of_json({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        to_json({"loss": float("nan")})


def test_only_directories_with_a_manifest_and_a_step_are_steps_under(tmp_path: Path) -> None:
    for name in ("00000010", "00000002", "other", ".00000003.1-ab.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_text("{}")
    (tmp_path / "00000007").mkdir()
    assert steps_under(tmp_path) == [2, 10]
    assert steps_under(tmp_path / "nowhere") == []


BAD_NAMES = ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "-x", "a b", "a\n", "é", "a\0b", "x" * 65]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_leave_its_directory_is_refused(place: Workspace, name: str) -> None:
    for where in (place.dataset, place.split, place.baseline, place.run):
        with pytest.raises(BadInput, match="cannot name a"):
            where(name)
    with pytest.raises(BadInput, match="cannot name a run"):
        place.job("train", name)


@pytest.mark.parametrize("name", ["../x", "a/b", "a b", "a\n", "x" * 129])
def test_a_job_cannot_leave_its_directory_either(place: Workspace, name: str) -> None:
    with pytest.raises(BadInput, match="cannot name a job"):
        place.job("cluster", name)


def test_the_longest_name_of_a_dataset_has_room_for_its_job(place: Workspace) -> None:
    name = "x" * 64
    assert place.dataset(name).name == name
    assert place.job("generate", name).parent == place.root / "jobs"
    assert place.job("train", name) == place.run(name)


def test_a_model_of_the_hub_has_one_directory(place: Workspace) -> None:
    assert place.model("org/name") == place.root / "models" / "org--name"
    with pytest.raises(BadInput, match="cannot name a model"):
        place.model("../name")


def test_a_workspace_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match="has to be a directory"):
        Workspace(tmp_path / "file").create()
    with pytest.raises(BadInput, match="cannot be written"):
        Workspace(tmp_path / "file" / "workspace").create()
    with pytest.raises(BadInput, match="cannot be written"):
        Workspace(tmp_path / ("x" * 300)).create()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BadInput, match="cannot be written"):
        Workspace(tmp_path / "loop" / "workspace").create()
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("staged", [staged_file, staged_directory])
def test_a_file_where_a_directory_has_to_be_is_named(tmp_path: Path, staged: Any) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match=r"final: cannot be written"), staged(tmp_path / "file" / "final"):
        pytest.fail("there is nothing to write into")


@pytest.mark.parametrize("staged", [staged_file, staged_directory])
def test_a_directory_that_takes_no_files_is_named_and_another_missing_file_is_not(
    tmp_path: Path, staged: Any
) -> None:
    with (
        pytest.raises(BadInput, match=r"^/proc/final: cannot be written"),
        staged(Path("/proc/final")) as place,
    ):
        place.write_text("x")
    with pytest.raises(FileNotFoundError, match="missing"), staged(tmp_path / "final"):
        (tmp_path / "elsewhere" / "missing").read_text()


def test_other_errors_of_the_system_keep_their_traceback(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="hiccup") as caught, explained_os_errors(tmp_path):
        raise OSError(errno.EIO, "hiccup")
    assert type(caught.value) is OSError
