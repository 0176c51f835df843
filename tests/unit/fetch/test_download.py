"""Downloads from a real web server: what arrives, what stands there already, disks that fill up, two at once."""

import dataclasses
import hashlib
import os
import shutil
import threading
from pathlib import Path

import pytest

from lhcq.errors import BadInput, DiskFull, NameTaken
from lhcq.events.download import Fetched
from lhcq.events.partial import open_partial
from lhcq.version import RELEASE
from tests.unit.fetch.fetching import leave, names

DISK_SIZE = "150k"


# What goes well


def test_a_file_arrives_whole_and_alone_under_its_own_name(site, entry, fetch, tmp_path) -> None:
    seen: list[tuple[int, int | None]] = []
    fetched = fetch(entry, watch=lambda done, total: seen.append((done, total)))
    assert (tmp_path / entry.file).read_bytes() == site.content
    assert names(tmp_path) == [entry.file]
    assert fetched == Fetched(
        path=tmp_path / entry.file,
        url=f"{site.url}/{entry.file}",
        bytes=len(site.content),
        md5=site.md5,
        verified_by="catalogue",
    )
    assert seen[0] == (0, len(site.content))
    assert seen[-1] == (len(site.content), len(site.content))
    assert seen == sorted(seen)


def test_the_request_names_lhcq_because_zenodo_turns_pythons_own_name_away(site, entry, fetch) -> None:
    fetch(entry)
    assert site.asked[0].agent == f"lhcq/{RELEASE}"


def test_a_missing_directory_is_made(site, entry, fetch, tmp_path) -> None:
    assert fetch(entry, tmp_path / "a" / "b").path.read_bytes() == site.content


def test_a_name_in_the_servers_headers_decides_nothing(site, entry, fetch, tmp_path) -> None:
    site.then(headers={"Content-Disposition": 'attachment; filename="../../evil.h5"'})
    fetch(entry, tmp_path / "here")
    assert names(tmp_path) == ["here"]
    assert names(tmp_path / "here") == [entry.file]


def test_a_redirect_within_the_web_is_followed_with_the_range(site, entry, fetch) -> None:
    leave(site, fetch, entry, 70_000)
    site.then(status=302, headers={"Location": "/elsewhere/file"})
    assert fetch(entry).path.read_bytes() == site.content
    assert [asked.path for asked in site.asked] == [f"/{entry.file}", "/elsewhere/file"]
    assert site.ranges == ["bytes=70000-"] * 2


# What is there already


def test_a_right_file_is_recognised_without_a_request(site, entry, fetch) -> None:
    fetch(entry)
    again = fetch(entry)
    assert (again.already_there, again.verified_by, len(site.asked)) == (True, "catalogue", 1)


@pytest.mark.parametrize("content", [b"short", bytes(200_000)], ids=["size", "md5"])
def test_a_wrong_file_is_refused_and_left_as_it_is(site, entry, fetch, tmp_path, content: bytes) -> None:
    (tmp_path / entry.file).write_bytes(content)
    with pytest.raises(NameTaken, match=r"published file .* left as it is: move it away"):
        fetch(entry)
    assert (tmp_path / entry.file).read_bytes() == content
    assert names(tmp_path) == [entry.file]
    assert site.asked == []


def test_a_file_of_which_nothing_is_known_is_left_and_its_md5_told(site, unknown, fetch, tmp_path) -> None:
    (tmp_path / unknown.file).write_bytes(b"mine")
    found = fetch(unknown)
    assert (found.already_there, found.verified_by) == (True, None)
    assert found.md5 == hashlib.md5(b"mine").hexdigest()  # noqa: S324
    assert site.asked == []


def test_a_directory_and_a_dangling_link_under_the_name_are_refused(site, entry, fetch, tmp_path) -> None:
    (tmp_path / entry.file).symlink_to(tmp_path / "nowhere")
    with pytest.raises(NameTaken, match="exists and is no file"):
        fetch(entry)
    (tmp_path / entry.file).unlink()
    (tmp_path / entry.file).mkdir()
    with pytest.raises(NameTaken, match="exists and is no file"):
        fetch(entry)
    assert site.asked == []


def test_a_file_where_the_directory_should_be_is_one_clear_line(entry, fetch, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be written"):
        fetch(entry, tmp_path / "file")


def test_a_name_that_appears_during_the_download_is_not_overwritten(site, entry, fetch, tmp_path) -> None:
    site.then(before=lambda: (tmp_path / entry.file).write_bytes(b"theirs"))
    with pytest.raises(NameTaken, match="appeared during the download"):
        fetch(entry)
    assert (tmp_path / entry.file).read_bytes() == b"theirs"
    assert (tmp_path / f"{entry.file}.part").read_bytes() == site.content


# Disks


def test_a_disk_that_is_too_small_is_told_before_anything_is_asked(
    site, entry, fetch, small_disk: Path
) -> None:
    with pytest.raises(DiskFull, match=r"0\.00 GB needed, 0\.00 GB free\. .*--to"):
        fetch(entry, small_disk)
    assert site.asked == []


def test_a_disk_that_is_too_small_is_told_when_the_server_says_the_length(
    site, unknown, fetch, small_disk
) -> None:
    with pytest.raises(DiskFull, match="no room"):
        fetch(unknown, small_disk)
    assert names(small_disk) == []


def test_a_disk_that_fills_up_in_the_middle_keeps_what_fitted(
    site, entry, fetch, small_disk: Path, tmp_path
) -> None:
    known = entry.model_copy(update={"size": None})
    site.then(
        headers={"Content-Length": "", "Connection": "close"}, cut_after=200_000
    )  # so that nobody is warned
    with pytest.raises(DiskFull, match="no space left"):
        fetch(known, small_disk)
    part = small_disk / f"{known.file}.part"
    kept = part.stat().st_size
    assert 0 < kept < 200_000
    assert part.read_bytes() == site.content[:kept]
    for path in small_disk.iterdir():
        shutil.copy(path, tmp_path)
    fetched = fetch(known)
    assert (site.ranges[-1], fetched.resumed_from) == (f"bytes={kept}-", kept)
    assert fetched.path.read_bytes() == site.content


# Two at once


def test_two_at_once_do_not_write_into_one_file(site, entry, fetch) -> None:
    site.then(hold_after=50_000)
    first: list[Fetched] = []
    loading = threading.Thread(target=lambda: first.append(fetch(entry)))
    started = threading.Event()
    site.steps[0] = dataclasses.replace(site.steps[0], before=started.set)
    loading.start()
    assert started.wait(10)
    with pytest.raises(NameTaken, match="another `lhcq fetch` is loading this file"):
        fetch(entry)
    site.release.set()
    loading.join()
    assert first[0].path.read_bytes() == site.content


def test_a_second_name_of_a_finished_file_is_never_written_to(site, entry, fetch, tmp_path) -> None:
    done = fetch(entry).path
    os.link(done, tmp_path / f"{entry.file}.part")  # what kill -9 between the two halves of a commit leaves
    done.rename(tmp_path / "kept.h5")
    fetch(entry.model_copy(update={"md5": None, "size": None}))
    assert (tmp_path / "kept.h5").read_bytes() == site.content
    assert not (tmp_path / "kept.h5").samefile(done)
    os.link(done, tmp_path / f"{entry.file}.part")
    assert fetch(entry).already_there
    assert names(tmp_path) == [entry.file, "kept.h5"]


def test_a_link_in_the_place_of_the_partial_file_is_not_followed(site, entry, fetch, tmp_path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / f"{entry.file}.part").symlink_to(tmp_path / "victim")
    with pytest.raises(BadInput, match="cannot be written"):
        fetch(entry)
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_the_lock_ends_with_its_holder(entry, tmp_path) -> None:
    with open_partial(tmp_path / entry.file), pytest.raises(NameTaken), open_partial(tmp_path / entry.file):
        pass
    with open_partial(tmp_path / entry.file) as partial:
        assert partial.done == 0
    assert names(tmp_path) == []
