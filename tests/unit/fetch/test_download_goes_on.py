"""Downloads from a real web server that cuts, stalls and changes its mind: they go on, or begin anew."""

import json

import pytest

from lhcq.events.download import ArchiveAway
from tests.unit.fetch.fetching import PATIENCE, leave, names

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
