"""Files that are not what lhcq can work with: one clear line each, from the reader and from `inspect_file`."""

import os
import re

import h5py
import numpy as np
import pytest

from lhcq.errors import BadInput
from lhcq.events.inspect import inspect_file
from lhcq.events.layout import open_event_file, read_rows, write_event_file

N_EVENTS = 8


def good_values(width=2101):
    values = np.zeros((N_EVENTS, width))
    values[:, 0:90:3] = 25.0 + np.arange(N_EVENTS)[:, None]
    values[:, 1:90:3] = -0.5
    values[::2, 2100:] = 1.0
    return values


def write_table(path, values, *, name="df/block0_values"):
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=values, chunks=True if values.size else None, maxshape=values.shape)


def write_text(path):
    path.write_text("1.0 2.0 3.0\n" * 1000)


def write_truncated(path):
    write_table(path, good_values())
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size // 2)


def write_group(path):
    with h5py.File(path, "w") as file:
        file.create_group("df/block0_values")


NOT_EVENTS = {
    "a directory": (lambda path: path.mkdir(), "a directory or a device"),
    "no bytes": (lambda path: path.touch(), "an empty file"),
    "text": (write_text, "not an HDF5 file"),
    "truncated": (write_truncated, "truncated"),
    "another table": (
        lambda path: write_table(path, np.ones((8, 1001)), name="events/values"),
        "It holds events/values float64 (8, 1001).",
    ),
    "a group for a table": (write_group, "df/block0_values is no table of numbers"),
    "one dimension": (lambda path: write_table(path, np.zeros(2101)), "no table of numbers"),
    "integers": (lambda path: write_table(path, np.zeros((3, 2101), dtype=np.int64)), "are int64"),
    "long doubles": (lambda path: write_table(path, np.zeros((3, 2101), np.longdouble)), "are float128, not"),
    "no events": (lambda path: write_table(path, np.zeros((0, 2101))), "holds no events"),
    "too narrow": (lambda path: write_table(path, np.zeros((3, 2099))), "2099 columns"),
    "too wide": (lambda path: write_table(path, np.zeros((3, 2102))), "2102 columns"),
}


@pytest.mark.parametrize(("make", "message"), NOT_EVENTS.values(), ids=NOT_EVENTS)
def test_a_file_that_holds_no_events_is_refused_in_one_line_that_names_it(tmp_path, make, message):
    path = tmp_path / "events.h5"
    make(path)

    with pytest.raises(BadInput) as caught:
        open_event_file(path)

    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("make", "message"), NOT_EVENTS.values(), ids=NOT_EVENTS)
def test_a_file_that_holds_no_events_is_reported_by_inspect(tmp_path, make, message):
    path = tmp_path / "events.h5"
    make(path)

    report = inspect_file(path)

    assert report.kind == "not lhcq"
    assert len(report.problems) == 1
    assert message in report.problems[0]


def test_a_missing_file_is_refused_by_both(tmp_path):
    for look in (open_event_file, inspect_file):
        with pytest.raises(BadInput, match="there is no such file"):
            look(tmp_path / "absent.h5")


def test_a_file_in_place_of_a_directory_is_a_missing_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="there is no such file"):
        open_event_file(tmp_path / "file" / "events.h5")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = tmp_path / "events.h5"
    write_table(path, good_values())
    path.chmod(0)
    with pytest.raises(BadInput, match="permission denied"):
        open_event_file(path)


@pytest.mark.parametrize("width", [14, 15])
def test_a_features_file_is_refused_as_such(tmp_path, width):
    write_table(tmp_path / "features.h5", np.ones((5, width)))
    with pytest.raises(BadInput, match="a features file"):
        open_event_file(tmp_path / "features.h5")


BAD_VALUES = {
    "NaN pt": (3, 0, np.nan, r"row 3, pt of particle 0: not a number \(nan\)"),
    "NaN phi": (7, 2099, np.nan, r"row 7, phi of particle 699: not a number"),
    "infinite eta": (2, 16, np.inf, r"row 2, eta of particle 5: infinite \(inf\)"),
    "minus infinity": (2, 17, -np.inf, r"row 2, phi of particle 5: infinite \(-inf\)"),
    "negative pt": (5, 300, -1e-5, r"row 5, pt of particle 100: negative pt \(-1e-05\)"),
    "pt beyond reach": (5, 300, 1e12, r"row 5, pt of particle 100: pt above 1e\+09 GeV \(1e\+12\)"),
    "eta beyond reach": (4, 1, -1000.0, r"row 4, eta of particle 0: \|eta\| above 15 \(-1000\)"),
    "label 2": (6, 2100, 2.0, r"row 6, column 2100: a label that is neither 0 nor 1 \(2\)"),
    "label 0.5": (1, 2100, 0.5, r"row 1, column 2100: a label that is neither 0 nor 1 \(0.5\)"),
    "NaN label": (1, 2100, np.nan, r"row 1, column 2100: a label that is neither 0 nor 1 \(nan\)"),
}


@pytest.mark.parametrize(("row", "column", "value", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_bad_value_is_refused_with_its_row_and_place(tmp_path, row, column, value, message):
    values = good_values()
    values[row, column] = value
    write_table(tmp_path / "events.h5", values)
    file = open_event_file(tmp_path / "events.h5")

    with pytest.raises(BadInput, match=message) as caught:
        read_rows(file, 1, N_EVENTS)

    assert str(file.path) in str(caught.value)
    assert read_rows(file, 0, row).rows.tolist() == list(range(row)), "the rows before it are good"


@pytest.mark.parametrize(("row", "column", "value", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_bad_value_is_reported_by_inspect(tmp_path, row, column, value, message):
    values = good_values()
    values[row, column] = value
    write_table(tmp_path / "events.h5", values)

    report = inspect_file(tmp_path / "events.h5")

    assert report.kind == "events with labels"
    assert report.rows == N_EVENTS
    (problem,) = report.problems
    assert re.match(message, problem)
    assert ", 1 row in all." in problem


def test_a_negative_eta_or_phi_is_no_fault(tmp_path):
    values = good_values()
    values[:, 1:90:3] = -4.9
    values[:, 2:90:3] = -3.1
    write_table(tmp_path / "events.h5", values)
    assert len(read_rows(open_event_file(tmp_path / "events.h5"), 0, N_EVENTS).rows) == N_EVENTS


@pytest.fixture
def damaged_file(tmp_path):
    """Twelve events in storage chunks of four, of which the second holds rubbish."""
    path = tmp_path / "damaged.h5"
    particles = np.random.default_rng(1).random((12, 700, 3))
    write_event_file(path, [(particles, np.zeros(12))], 12, storage_rows=4)
    with h5py.File(path, "r") as file:
        stored = file["df/block0_values"].id.get_chunk_info(1)
    with path.open("r+b") as stream:
        stream.seek(stored.byte_offset)
        stream.write(b"\xff" * stored.size)
    return path


def test_damaged_storage_is_refused_with_the_rows_asked_for(damaged_file):
    file = open_event_file(damaged_file)
    with pytest.raises(BadInput, match="rows 3 to 5 cannot be read, the file is damaged there"):
        read_rows(file, 3, 6)
    assert read_rows(file, 0, 4).rows.tolist() == [0, 1, 2, 3]
    assert read_rows(file, 8, 12).rows.tolist() == [8, 9, 10, 11]


def test_damaged_storage_is_reported_by_inspect(damaged_file):
    report = inspect_file(damaged_file)
    assert report.kind == "events with labels"
    (problem,) = report.problems
    assert "rows 4 to 7 cannot be read" in problem
    assert report.labels == {"background": 8, "signal": 0}  # what can be read is counted
