"""Text from outside: master keys, answers of a web server."""

import shutil
from pathlib import Path
from random import Random

from lhcq.events.masterkey import read_master_key
from lhcq.events.partial import open_partial
from lhcq.events.ranges import Version, check_version, plan_again, plan_request, read_answer
from tests.fuzz.mutation import mutate_bytes, mutate_json


def make_key(random: Random) -> tuple[bytes, int]:
    n_events = random.randrange(1, 40)
    text = b"".join(random.choice((b"0\n", b"1\n", b"2\n", b"0.0\r\n", b"1e0\n")) for _ in range(n_events))
    return (mutate_bytes(text, random) if random.random() < 0.9 else random.randbytes(200)), n_events


def attack_key(data: tuple[bytes, int], place: Path) -> None:
    text, n_events = data
    (place / "key").write_bytes(text)
    labels = read_master_key(place / "key", n_events)
    assert labels.shape == (n_events,)
    assert set(labels.tolist()) <= {0, 1}


_HEADERS = (
    "content-range",
    "content-length",
    "etag",
    "last-modified",
    "retry-after",
    "location",
    "content-type",
)
_VALUES = (
    "bytes 5-9/10", "bytes */10", "bytes 5-99999999999999999999/1", "10", "-1", "9" * 30, '"md5:' + "a" * 32 + '"',
    'W/"x"', "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 99 Foo 9999", "0", "1e9", "text/html", "gzip", "", "\0", "é" * 9,
)  # fmt: skip
URL = "https://example.org/file"


def make_download(random: Random) -> tuple[bytes, int, dict[str, str], int]:
    note = Version(url=URL, etag='"abc"', last_modified="Thu, 01 Jan 1970 00:00:00 GMT", total=10)
    spoilt = (
        mutate_json(note.model_dump(), random) if random.random() < 0.7 else note.model_dump_json().encode()
    )
    headers = {name: random.choice(_VALUES) for name in _HEADERS if random.random() < 0.5}
    return (
        spoilt,
        random.choice((200, 206, 206, 301, 403, 404, 416, 429, 500, 799)),
        headers,
        random.randrange(12),
    )


def attack_download(data: tuple[bytes, int, dict[str, str], int], place: Path) -> None:
    note, status, headers, done = data
    shutil.rmtree(place / "download", ignore_errors=True)
    final = place / "download" / "file"
    final.parent.mkdir()
    (final.parent / "file.part").write_bytes(b"x" * done)
    (final.parent / "file.part.json").write_bytes(note)
    with open_partial(final) as partial:
        ask = plan_request(done=partial.done, known=partial.version, url=URL, guarded=done % 2 == 0)
        answer = read_answer(ask, url=URL, status=status, headers=headers, known=partial.version)
        plan_again(ask, answer, partial.version)
        if version := getattr(answer, "version", None):
            check_version(version, size=10 if done % 3 else None, md5=None)
