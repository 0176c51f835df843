"""The catalogue of published files."""

import re
from pathlib import Path

import pytest

from lhcq.errors import BadInput, NotThere
from lhcq.events.archive import CATALOGUE, ArchiveFile, file_address, find_file
from lhcq.events.partial import md5_of

BASE = "https://zenodo.org/records"


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_every_file_is_found_by_both_names_and_lies_behind_https(entry: ArchiveFile) -> None:
    assert find_file(entry.name) is find_file(entry.file) is entry
    assert re.fullmatch(r"[a-z0-9-]+", entry.name)
    assert Path(entry.file).name == entry.file
    assert file_address(entry).startswith("https://")
    assert entry.file in file_address(entry)
    assert (entry.size is None) == (entry.md5 is None)


def test_names_files_and_md5s_are_unique() -> None:
    for field in ("name", "file", "md5"):
        values = [value for entry in CATALOGUE if (value := getattr(entry, field))]
        assert len(set(values)) == len(values)


def test_addresses_have_the_archives_form() -> None:
    assert file_address(find_file("rnd")) == f"{BASE}/6466204/files/events_anomalydetection_v2.h5?download=1"
    key = "events_LHCO2020_BlackBox3.masterkey"
    assert file_address(find_file("black-box-3-key")) == f"{BASE}/4536624/files/{key}?download=1"


def test_the_example_file_is_the_one_that_tests_use(test_data: Path) -> None:
    entry = find_file("tiny")
    path = test_data / entry.file
    assert (path.stat().st_size, md5_of(path)) == (entry.size, entry.md5)


@pytest.mark.parametrize(
    ("name", "guess"), [("blackbox1", "black-box-1"), ("Tiny", "tiny"), ("rnd-feature", "rnd")]
)
def test_a_mistyped_name_is_answered_with_the_nearest(name: str, guess: str) -> None:
    with pytest.raises(NotThere, match=rf"Did you mean [^?]*{guess}.*fetch --list"):
        find_file(name)


def test_a_name_like_none_is_answered_with_the_list() -> None:
    with pytest.raises(NotThere, match=r"no such file in the catalogue\. `lhcq fetch --list`"):
        find_file("../../etc/passwd")


@pytest.mark.parametrize(
    "mirror", ["https://group.example/lhco", "http://127.0.0.1:8000/", "https://[::1]:8443/a/b//"]
)
def test_a_mirror_is_a_directory_on_the_web(mirror: str) -> None:
    assert file_address(find_file("tiny"), mirror) == f"{mirror.rstrip('/')}/events_anomalydetection_tiny.h5"


@pytest.mark.parametrize(
    "mirror",
    [
        "",
        "group.example/lhco",
        "file:///data",
        "ftp://group.example/",
        "https://",
        "https://:8000/",
        "https://host:port/",
        "https://host:99999/",
        "https://user:word@host/",
        "https://host/?file=",
        "https://host/#",
        "https://host/a b",
        "https://host/\r\nX: y",
        "https://[::1/",
        "https://höst/",
    ],
)
def test_what_is_no_such_directory_is_refused_in_one_line(mirror: str) -> None:
    with pytest.raises(BadInput, match="is not the address of a directory on the web") as error:
        file_address(find_file("tiny"), mirror)
    assert "\n" not in str(error.value)
