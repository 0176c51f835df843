"""The planner of requests and the reader of answers: bytes are built on only where they must be of one file."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhcq.errors import LhcqError
from lhcq.events.ranges import Ask, Body, Complete, Later, StartOver, Version, plan_request, read_answer

URL = "https://archive/file"
tags = st.sampled_from([None, '"a"', '"b"', 'W/"a"', '"md5:' + "0" * 32 + '"'])
dates = st.sampled_from([None, "Wed, 21 Oct 2020 07:28:00 GMT", "Thu, 22 Oct 2020 07:28:00 GMT"])
counts = st.integers(min_value=0, max_value=10**19)
versions = st.builds(
    Version,
    url=st.sampled_from([URL, "https://mirror/file"]),
    etag=tags,
    last_modified=dates,
    total=st.none() | counts,
)
junk = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)


@given(done=counts, known=st.none() | versions, guarded=st.booleans())
def test_what_is_here_is_built_on_only_with_a_validator_or_an_md5(done, known, guarded) -> None:
    ask = plan_request(done=done, known=known, url=URL, guarded=guarded)
    assert ask.start in (0, done)
    if ask.start:
        assert guarded or (ask.if_range is not None and known is not None and known.url == URL)
    if ask.if_range:
        assert ask.start
        assert ask.if_range in (known.etag, known.last_modified)
        assert not ask.if_range.startswith("W/")
    assert ("Range" in ask.headers) == bool(ask.start)


@given(
    ask=st.builds(Ask, start=counts),
    status=st.integers(min_value=200, max_value=999),
    headers=st.dictionaries(
        st.sampled_from(
            ["content-range", "content-length", "etag", "last-modified", "retry-after", "content-type"]
        ),
        junk
        | st.builds("bytes {}-{}/{}".format, counts, counts, counts)
        | counts.map(str)
        | counts.map("bytes */{}".format),
    ),
    known=st.none() | versions,
)
def test_any_answer_is_used_from_the_right_byte_or_not_at_all(ask, status, headers, known) -> None:
    answer = None
    with contextlib.suppress(LhcqError):  # a refusal is right in many cases; anything else raised is a fault
        answer = read_answer(ask, url=URL, status=status, headers=headers, known=known)
    match answer:
        case Body(start=start, version=version):
            assert start == (ask.start if status == 206 else 0)
            if start and known and known.url == URL and known.etag and version.etag:
                assert known.etag == version.etag
            if start and known and known.total is not None and version.total is not None:
                assert known.total == version.total
        case Complete():
            assert status == 416
            assert ask.start > 0
        case Later():
            assert answer.wait is None or answer.wait >= 0
        case StartOver():
            assert status in (206, 416)


@pytest.mark.parametrize(
    ("text", "wait"),
    [("120", 120.0), ("-1", None), ("soon", None), ("", None), ("٣", None), ("9" * 400, None)],
)
def test_retry_after_is_a_number_a_date_or_nothing(text: str, wait: float | None) -> None:
    assert read_answer(Ask(), url=URL, status=503, headers={"retry-after": text}, known=None) == Later(
        reason="the server answers 503 Service Unavailable", wait=wait
    )


def test_a_date_in_the_past_means_now() -> None:
    headers = {"retry-after": "Wed, 21 Oct 2020 07:28:00 GMT"}
    answer = read_answer(Ask(), url=URL, status=429, headers=headers, known=None)
    assert isinstance(answer, Later)
    assert answer.wait == 0


@pytest.mark.parametrize(
    ("etag", "md5"),
    [
        ('"md5:e0df4b883c2c36058577379468dec558"', "e0df4b883c2c36058577379468dec558"),
        ('W/"md5:e0df4b883c2c36058577379468dec558"', None),
        ('"e0df4b883c2c36058577379468dec558"', None),
        (None, None),
    ],
)
def test_an_md5_is_read_from_a_tag_of_zenodos_form_alone(etag: str | None, md5: str | None) -> None:
    assert Version(url=URL, etag=etag).stated_md5 == md5
