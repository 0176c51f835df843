"""`Dataset.hist`: what a histogram of a dataset's column holds, and what becomes of it outside lhcq."""

from pathlib import Path

import numpy as np
import pytest

from lhcq.results import Dataset
from lhcq.workspace import Workspace
from tests.search_events import write_events


def test_a_histogram_keeps_the_errors_of_its_counts_when_it_is_scaled(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    write_events(place.dataset("mixed"), 400, 50)
    events = Dataset("mixed", place)
    made = events.hist("mjj", bins=10)
    counts = made["signal", :].values()
    assert counts.sum() == np.sum(events.to_arrow(["label"])["label"].to_numpy() == 1) == 50
    assert made.variances() == pytest.approx(made.values())
    halved = (made * 0.5)["signal", :]
    assert halved.values() == pytest.approx(0.5 * counts)
    assert halved.variances() is not None
    assert halved.variances() == pytest.approx(0.25 * counts)
