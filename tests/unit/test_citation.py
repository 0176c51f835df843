"""CITATION.cff is of this version, and cites the records that `lhcq fetch` loads from."""

import yaml

from lhcq.events.archive import CATALOGUE
from lhcq.version import RELEASE
from tests.deployed import ROOT

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))


def test_it_has_what_version_1_2_0_of_the_format_asks_for() -> None:
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["message"]
    assert CITATION["title"] == "lhcq"
    assert CITATION["authors"] == [{"name": "The lhcq developers"}]
    assert all({"type", "title", "authors"} <= one.keys() for one in CITATION["references"])


def test_it_is_of_this_version() -> None:
    assert CITATION["version"] == RELEASE


def test_it_cites_fastjet_and_each_published_record_of_events_whose_authors_are_known() -> None:
    dois = {one["doi"] for one in CITATION["references"] if one["type"] == "data"}
    assert dois == {file.record.doi for file in CATALOGUE if file.record.citation}
    values = {each["value"] for one in CITATION["references"] for each in one.get("identifiers", [])}
    assert "arXiv:1111.6097" in values
