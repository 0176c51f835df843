"""A scan: what every learner found of so many signal events, and its page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lhcq.manifests import write_manifest
from lhcq.records.commits import OF, read_verified
from lhcq.storage import read_json, staged_directory, write_json, write_text

_FOUND, _PAGE = "scan.json", "report.html"


def commit_scan(
    final: Path, found: Mapping[str, Any], *, of: str, page: str, fields: Mapping[str, Any]
) -> None:
    """Commit the directory `final`, with `fields` and the identity `of` its spec in its manifest; if it stands, it
    stays."""
    with staged_directory(final) as directory:
        write_json(directory / _FOUND, dict(found))
        write_text(directory / _PAGE, page)
        write_manifest(directory, **{OF: of, **fields})


def read_found(scan: Path) -> dict[str, Any]:
    """What a scan found; raises `NotThere` without it, `BadInput` where a file of it was changed."""
    read_verified(scan, what=f"scan {scan.name!r}", remedy="Scan again.")
    return read_json(scan / _FOUND)


def page_file(scan: Path) -> Path:
    """The page."""
    return scan / _PAGE
