"""Downloads from a real web server that lies, refuses and redirects."""

import hashlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from lhcq.errors import BadInput, LhcqError, NotThere
from lhcq.events.download import ArchiveAway
from tests.unit.fetch.fetching import leave, names

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
