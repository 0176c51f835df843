"""What a finished prediction, search or scan says is what it said when it was finished, or it is refused."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from lhcq.errors import BadInput, NotThere
from lhcq.records import predictions, scans, searches
from lhcq.results import Prediction, Scan, Search
from lhcq.workspace import Workspace

SCORES = pa.table({"row": [0, 1, 2], "p_signal": [0.25, 0.5, 0.75]})


def predicted(place: Workspace) -> Path:
    final = place.prediction("made")
    predictions.commit_prediction(
        final, SCORES, SCORES, of="0123", summary={"n_events": 3}, page="<p>", fields={}
    )
    return final


def searched(place: Workspace) -> Path:
    final = place.search("made")
    searches.commit_search(
        final, {"global": {"p_value": 0.25}}, SCORES, SCORES, of="0", page="<p>", fields={}
    )
    return final


def scanned(place: Workspace) -> Path:
    final = place.scan("made")
    scans.commit_scan(final, {"points": [25]}, of="0", page="<p>", fields={})
    return final


READERS: dict[str, tuple[Callable[[Workspace], Path], str, Callable[[Workspace], object]]] = {
    "a prediction's summary": (predicted, "summary.json", lambda place: Prediction("made", place).summary),
    "a prediction's scores": (predicted, "scores.parquet", lambda place: Prediction("made", place).p_signal),
    "a search's numbers": (searched, "search.json", lambda place: Search("made", place).p_value),
    "a search's scores": (searched, "scores.parquet", lambda place: Search("made", place).to_arrow()),
    "a scan's numbers": (scanned, "scan.json", lambda place: Scan("made", place).found),
}


@pytest.mark.parametrize(("make", "name", "read"), READERS.values(), ids=READERS)
def test_a_result_that_was_changed_is_refused_and_not_told(
    place: Workspace, make: Callable[[Workspace], Path], name: str, read: Callable[[Workspace], object]
) -> None:
    with pytest.raises(NotThere):
        read(place)
    path = make(place) / name
    assert read(place) is not None
    content = bytearray(path.read_bytes())
    content[content.index(b"25") if name.endswith("json") and b"25" in content else len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match=rf"{name}: differs from its manifest"):
        read(place)
