"""Downloads from a real web server that cuts, lies, stalls, changes its mind and redirects."""

import dataclasses
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from lhcq.errors import BadInput, DiskFull, LhcqError, NameTaken, NotThere
from lhcq.events.archive import ArchiveFile
from lhcq.events.download import ArchiveAway, Fetched, Patience, fetch_file
from lhcq.events.partial import open_partial
from lhcq.version import RELEASE

DISK_SIZE = "150k"
PATIENCE = Patience(attempts=3, stall_seconds=5, first_delay_seconds=0)
Fetch = Callable[..., Fetched]


@pytest.fixture
def fetch(site: Any, tmp_path: Path) -> Fetch:
    def fetch(entry: ArchiveFile, directory: Path = tmp_path, **options: Any) -> Fetched:
        return fetch_file(entry, directory, **{"mirror": site.url, "patience": PATIENCE, **options})

    return fetch


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def leave(site: Any, fetch: Fetch, entry: ArchiveFile, n_bytes: int) -> None:
    """Make a command that ends with `n_bytes` of the file here."""
    site.then(cut_after=n_bytes)
    with pytest.raises(ArchiveAway, match="was cut"):
        fetch(entry, patience=PATIENCE.model_copy(update={"attempts": 1}))
    site.asked.clear()


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


# Cuts


def test_cuts_are_mended_within_one_command_each_from_where_it_came(site, entry, fetch) -> None:
    for n_bytes in (1_000, 50_000, 1, 30_000):  # more cuts than attempts in a row, each with new bytes
        site.then(cut_after=n_bytes)
    said: list[str] = []
    fetched = fetch(entry, say=said.append)
    assert fetched.path.read_bytes() == site.content
    assert fetched.resumed_from == 0
    assert site.ranges == [None, "bytes=1000-", "bytes=51000-", "bytes=51001-", "bytes=81001-"]
    assert [asked.if_range for asked in site.asked] == [None] + ['"v1"'] * 4
    assert "the connection was cut after 1,000 of 200,000 bytes: trying again in 0 s (attempt 2 of 3)" in said


def test_a_later_command_asks_for_the_rest_alone(site, entry, fetch, tmp_path) -> None:
    leave(site, fetch, entry, 123_456)
    assert names(tmp_path) == [f"{entry.file}.part", f"{entry.file}.part.json"]
    fetched = fetch(entry)
    assert site.ranges == ["bytes=123456-"]
    assert fetched.resumed_from == 123_456
    assert fetched.path.read_bytes() == site.content
    assert names(tmp_path) == [entry.file]


def test_giving_up_says_what_is_kept(site, entry, fetch, tmp_path) -> None:
    site.then(cut_after=100_000)
    site.always = {"status": 503}
    with pytest.raises(
        ArchiveAway, match=r"503 Service Unavailable \(3 attempts in a row\)\. 100,000 bytes are kept"
    ):
        fetch(entry)
    assert len(site.asked) == 3
    assert (tmp_path / f"{entry.file}.part").read_bytes() == site.content[:100_000]


def test_a_cut_before_the_first_byte_leaves_nothing_behind(site, entry, fetch, tmp_path) -> None:
    site.always = {"cut_after": 0}
    with pytest.raises(ArchiveAway, match=r"cut after 0 of 200,000 bytes .* Check the connection"):
        fetch(entry)
    assert names(tmp_path) == []


def test_a_connection_that_stalls_counts_as_dead_and_its_bytes_count(site, entry, fetch) -> None:
    site.then(hold_after=60_000)
    fetched = fetch(entry, patience=PATIENCE.model_copy(update={"stall_seconds": 0.3}))
    assert site.ranges == [None, "bytes=60000-"]
    assert fetched.path.read_bytes() == site.content


def test_a_whole_file_that_had_not_got_its_name_needs_no_request(site, entry, fetch, tmp_path) -> None:
    leave(site, fetch, entry, 150_000)
    with (tmp_path / f"{entry.file}.part").open("ab") as part:
        part.write(site.content[150_000:])
    fetched = fetch(entry)
    assert (fetched.resumed_from, site.asked) == (200_000, [])
    assert fetched.path.read_bytes() == site.content


# Files that change


def test_a_file_that_changed_between_two_commands_is_not_glued_together(site, unknown, fetch) -> None:
    leave(site, fetch, unknown, 90_000)
    site.content, site.etag = bytes(reversed(site.content)), '"v2"'
    said: list[str] = []
    fetched = fetch(unknown, say=said.append)
    assert (site.ranges, site.asked[0].if_range) == (["bytes=90000-"], '"v1"')
    assert fetched.path.read_bytes() == site.content
    assert fetched.resumed_from == 0
    assert any(line.startswith("starting again") for line in said)


def test_a_date_serves_where_there_is_no_tag_or_only_a_weak_one(site, unknown, fetch) -> None:
    site.etag, site.last_modified = 'W/"v1"', "Wed, 21 Oct 2020 07:28:00 GMT"
    leave(site, fetch, unknown, 90_000)
    assert fetch(unknown).path.read_bytes() == site.content
    assert site.asked[0].if_range == site.last_modified


def test_a_server_that_ignores_if_range_is_caught_by_its_new_tag(site, unknown, fetch) -> None:
    leave(site, fetch, unknown, 90_000)
    site.then(
        status=206,
        headers={"ETag": '"v2"', "Content-Range": "bytes 90000-199999/200000"},
        body=bytes(110_000),
    )
    assert fetch(unknown).path.read_bytes() == site.content
    assert site.ranges == ["bytes=90000-", None]


def test_without_tag_date_and_md5_nothing_is_built_on(site, unknown, fetch) -> None:
    site.etag = None
    site.then(cut_after=90_000).then(cut_after=90_000).always = {"status": 500}
    with pytest.raises(ArchiveAway) as error:
        fetch(unknown)
    assert "kept" not in str(error.value)
    site.always = {}
    assert fetch(unknown).resumed_from == 0
    assert site.ranges == [None] * 4


def test_with_the_md5_known_a_mirror_goes_on_where_the_archive_stopped(site, entry, fetch, tmp_path) -> None:
    leave(site, fetch, entry, 90_000)
    fetched = fetch(entry, mirror=f"{site.url}/mirror")
    assert (site.ranges, site.asked[0].if_range) == (["bytes=90000-"], None)
    assert fetched.path.read_bytes() == site.content


def test_a_damaged_note_costs_at_most_a_new_start(site, entry, unknown, fetch, tmp_path) -> None:
    for known, ranges in ((entry, ["bytes=90000-"]), (unknown, [None])):
        leave(site, fetch, known, 90_000)
        (tmp_path / f"{known.file}.part.json").write_text('{"url": 3')
        fetched = fetch(known)
        assert site.ranges == ranges
        assert fetched.path.read_bytes() == site.content
        fetched.path.unlink()


def test_a_server_that_knows_no_ranges_is_asked_in_vain_and_sends_the_whole(site, entry, fetch) -> None:
    leave(site, fetch, entry, 90_000)
    site.knows_ranges = False
    fetched = fetch(entry)
    assert (site.ranges, fetched.resumed_from) == (["bytes=90000-"] * 2, 0)
    assert fetched.path.read_bytes() == site.content


def test_a_server_that_knows_ranges_but_no_if_range_is_asked_without(site, unknown, fetch) -> None:
    leave(site, fetch, unknown, 90_000)
    site.knows_if_range = False
    fetched = fetch(unknown)
    assert [(asked.range, asked.if_range) for asked in site.asked] == [
        ("bytes=90000-", '"v1"'),
        ("bytes=90000-", None),
    ]
    assert fetched.resumed_from == 90_000
    assert fetched.path.read_bytes() == site.content


def test_a_server_that_knows_no_ranges_and_always_cuts_is_given_up(site, entry, fetch) -> None:
    site.knows_ranges = False
    site.always = {"cut_after": 90_000}
    with pytest.raises(ArchiveAway, match="cut after 90,000"):
        fetch(entry)
    assert (
        site.ranges == [None] + ["bytes=90000-"] * 4
    )  # each of the further attempts with and without If-Range


def test_bytes_that_had_been_here_before_are_no_progress(site, entry, fetch) -> None:
    site.knows_ranges, site.etag = False, None
    site.then(cut_after=90_000).then(cut_after=50_000).then(cut_after=80_000)
    with pytest.raises(ArchiveAway, match="cut after 80,000"):
        fetch(entry)


def test_a_file_that_became_shorter_is_loaded_again(site, unknown, fetch) -> None:
    leave(site, fetch, unknown, 90_000)
    site.content = site.content[:80_000]  # under the same tag, so that the answer is 416
    assert fetch(unknown).path.read_bytes() == site.content
    assert site.ranges == ["bytes=90000-", None]


def test_416_at_the_very_end_means_that_nothing_is_missing(site, unknown, fetch, tmp_path) -> None:
    leave(site, fetch, unknown, 90_000)
    part = tmp_path / f"{unknown.file}.part"
    note = part.with_name(f"{part.name}.json")
    part.write_bytes(site.content)
    note.write_text(json.dumps({**json.loads(note.read_text()), "total": None}))
    assert fetch(unknown).path.read_bytes() == site.content
    assert site.ranges == ["bytes=200000-"]


# Lies


@pytest.mark.parametrize("claim", [199_999, 200_001, 1_000_000])
def test_a_length_that_is_not_the_published_one_is_refused_at_once(
    site, entry, fetch, tmp_path, claim: int
) -> None:
    site.then(claim=claim)
    with pytest.raises(BadInput, match=rf"has a file of {claim:,} bytes, the published one has 200,000"):
        fetch(entry)
    assert names(tmp_path) == []


def test_a_length_beyond_the_file_is_given_up_in_the_end(site, unknown, fetch, tmp_path) -> None:
    site.always = {"claim": 300_000, "headers": {"ETag": ""}}
    with pytest.raises(ArchiveAway, match="cut after 200,000 of 300,000 bytes"):
        fetch(unknown)
    assert not (tmp_path / unknown.file).exists()


def test_a_length_short_of_the_file_shows_in_the_md5(site, entry, fetch, tmp_path) -> None:
    site.then(claim=150_000)
    with pytest.raises(BadInput, match="what came has the md5"):
        fetch(entry.model_copy(update={"size": None}))
    assert names(tmp_path) == []


def test_a_wrong_file_is_removed_so_that_nobody_builds_on_it(site, entry, fetch, tmp_path) -> None:
    site.then(body=bytes(200_000))
    wrong = hashlib.md5(bytes(200_000)).hexdigest()  # noqa: S324
    with pytest.raises(
        BadInput, match=rf"has the md5 {wrong}, it should have {site.md5}\. It was removed"
    ) as error:
        fetch(entry)
    assert "\n" not in str(error.value)
    assert names(tmp_path) == []
    assert fetch(entry).path.read_bytes() == site.content
    assert site.ranges == [None, None]


def test_another_range_than_the_one_asked_for_is_not_used(site, entry, fetch) -> None:
    leave(site, fetch, entry, 90_000)
    site.then(status=206, headers={"Content-Range": "bytes 10-199999/200000"}, body=bytes(199_990))
    assert fetch(entry).path.read_bytes() == site.content
    assert site.ranges == ["bytes=90000-", None]


@pytest.mark.parametrize(
    "encoding", [{"Content-Encoding": "gzip"}, {"Content-Type": "text/html; charset=utf-8"}]
)
def test_something_else_than_the_plain_file_is_refused(
    site, unknown, fetch, tmp_path, encoding: dict
) -> None:
    site.then(headers=encoding)
    with pytest.raises(BadInput, match=r"compressed|web page"):
        fetch(unknown)
    assert names(tmp_path) == []


def test_an_empty_file_is_refused(site, unknown, fetch, tmp_path) -> None:
    site.content = b""
    with pytest.raises(BadInput, match="empty"):
        fetch(unknown)
    assert names(tmp_path) == []


def test_a_file_of_which_nobody_says_the_length_is_refused_and_taken_with_an_md5(
    site, entry, unknown, fetch
) -> None:
    for known in (unknown, entry):
        site.then(headers={"Content-Length": "", "Connection": "close"}, cut_after=200_000)
        if known is unknown:
            with pytest.raises(BadInput, match="neither the server nor the catalogue says how long"):
                fetch(known)
        else:
            assert fetch(known.model_copy(update={"size": None})).path.read_bytes() == site.content


# The md5 that Zenodo states in its tags


def test_an_md5_that_the_server_states_verifies_where_the_catalogue_cannot(
    site, unknown, fetch, tmp_path
) -> None:
    site.etag = f'"md5:{site.md5}"'
    assert fetch(unknown).verified_by == "server"
    (tmp_path / unknown.file).unlink()
    site.then(body=bytes(200_000), headers={"ETag": site.etag})
    with pytest.raises(BadInput, match=f"it should have {site.md5}"):
        fetch(unknown)


def test_an_md5_that_the_server_states_saves_the_download_of_a_wrong_file(
    site, entry, fetch, tmp_path
) -> None:
    site.etag = f'"md5:{"0" * 32}"'
    with pytest.raises(BadInput, match="the server states the md5 0000"):
        fetch(entry)
    assert names(tmp_path) == []


def test_no_md5_anywhere_is_said_in_the_result(site, unknown, fetch) -> None:
    fetched = fetch(unknown)
    assert (fetched.verified_by, fetched.md5) == (None, site.md5)


# Servers that refuse


@pytest.mark.parametrize(
    ("status", "error", "line"),
    [
        (404, NotThere, "no such file"),
        (410, NotThere, "no such file"),
        (401, BadInput, "refuses"),
        (403, BadInput, "refuses .*try later or from elsewhere"),
        (418, BadInput, "418"),
        (600, BadInput, "600"),
    ],
)
def test_a_refusal_is_final(
    site, entry, fetch, tmp_path, status: int, error: type[LhcqError], line: str
) -> None:
    site.always = {"status": status}
    with pytest.raises(error, match=line):
        fetch(entry)
    assert len(site.asked) == 1
    assert names(tmp_path) == []


def test_a_busy_server_is_asked_again(site, entry, fetch) -> None:
    site.then(status=429, headers={"Retry-After": "0"}).then(status=503)
    said: list[str] = []
    assert fetch(entry, say=said.append).path.read_bytes() == site.content
    assert len(site.asked) == 3
    assert any("429 Too Many Requests: trying again in 0 s" in line for line in said)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_that_asks_for_a_long_rest_ends_the_command(site, entry, fetch, form: str) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=3600), usegmt=True)
    site.then(status=429, headers={"Retry-After": "3600" if form == "seconds" else later})
    with pytest.raises(
        ArchiveAway, match=r"429 Too Many Requests, and asks to wait 3,(600|59\d) s \(1 attempt\)"
    ):
        fetch(entry)
    assert len(site.asked) == 1


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "http://[::1", "//"]
)
def test_a_redirect_out_of_the_web_is_refused(site, entry, fetch, tmp_path, location: str) -> None:
    site.always = {"status": 302, "headers": {"Location": location}}
    with pytest.raises(BadInput, match="redirects to"):
        fetch(entry)
    assert names(tmp_path) == []


def test_redirects_in_a_circle_end(site, entry, fetch) -> None:
    site.always = {"status": 301, "headers": {"Location": "/again"}}
    with pytest.raises(BadInput, match="redirects to '/again', which lhcq does not follow"):
        fetch(entry)


def test_nobody_at_the_address_is_a_clear_line(site, entry, fetch, tmp_path) -> None:
    with pytest.raises(
        ArchiveAway, match=r"connection refused \(3 attempts in a row\)\. Check the connection"
    ):
        fetch(entry, mirror="http://127.0.0.1:1")
    assert names(tmp_path) == []


# TLS


def test_a_certificate_that_nobody_signed_is_refused_with_the_remedy(secure_site, entry, fetch) -> None:
    with pytest.raises(
        BadInput, match=r"certificate is not trusted \(self.signed certificate\).*SSL_CERT_FILE"
    ):
        fetch(entry, mirror=secure_site.url)
    assert secure_site.asked == []


def test_a_certificate_that_the_user_names_is_trusted(
    secure_site, entry, fetch, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    secure_site.then(cut_after=80_000)
    assert fetch(entry, mirror=secure_site.url).path.read_bytes() == secure_site.content
    assert secure_site.ranges == [None, "bytes=80000-"]


def test_https_is_not_left_for_http(
    secure_site, site, entry, fetch, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    secure_site.then(status=302, headers={"Location": f"{site.url}/file"})
    with pytest.raises(BadInput, match="only https"):
        fetch(entry, mirror=secure_site.url)
    assert site.asked == []


def test_https_to_a_server_without_it_is_a_clear_line(site, entry, fetch) -> None:
    with pytest.raises(BadInput, match="no secure connection"):
        fetch(entry, mirror=site.url.replace("http:", "https:"))


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
