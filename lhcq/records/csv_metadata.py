"""What a CSV file has no place for, in a file beside it: about which axes its tau_N are.

`FILE.csv-metadata.json` is where W3C's "Metadata Vocabulary for Tabular Data" (CSV on the Web) looks for what is to
be said of `FILE.csv`, and `notes` are its place for what it has no word for. A comment in the table itself would be
taken for the names of its columns by whoever is not told to skip it: pandas, Arrow, spreadsheets.
"""

import json
from pathlib import Path

from lhcq.records.events import AXES_KEY
from lhcq.storage import to_json

_LONGEST = 1 << 20  # bytes


def beside(path: Path) -> Path:
    """Where the metadata of a CSV file stand."""
    return path.with_name(f"{path.name}-metadata.json")


def describe_csv(path: Path, axes: str) -> str:
    """The metadata of the CSV file `path`, whose tau_N are about `axes`."""
    return to_json({"@context": "http://www.w3.org/ns/csvw", "url": path.name, "notes": [{AXES_KEY: axes}]})


def axes_beside(path: Path) -> str | None:
    """About which axes the tau_N of a CSV file are, by what stands beside it; None where nothing says so."""
    try:
        with beside(path).open(encoding="utf-8") as stream:
            notes = json.loads(stream.read(_LONGEST))["notes"]
        return next((str(note[AXES_KEY]) for note in notes if AXES_KEY in note), None)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        RecursionError,
    ):  # of whatever it is that stands there
        return None
