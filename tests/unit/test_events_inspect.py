"""What `inspect_file` says about files that are in order."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from lhcq.events import inspect
from lhcq.events.featurefile import LABEL, OF_JETS
from lhcq.events.inspect import Spread, inspect_file
from lhcq.events.pytables import write_frame


def make_values(labels, *, width=2101):
    """Event i has i + 1 particles; its hardest one has 100 (i + 1) GeV."""
    values = np.zeros((len(labels), width))
    for event in range(len(labels)):
        values[event, 0 : 3 * event + 3 : 3] = 1.5
        values[event, 3 * event] = 100.0 * (event + 1)
    if width % 3:
        values[:, -1] = labels
    return values


def write(path, values, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("df/block0_values", data=values, **options)
    return path


def test_a_labelled_file_is_described(tmp_path):
    path = write(tmp_path / "events.h5", make_values([0, 1, 0, 0]), chunks=(2, 2101))

    report = inspect_file(path)

    assert report.kind == "events with labels"
    assert (report.rows, report.width, report.dtype, report.storage_rows) == (4, 2101, "float64", 2)
    assert report.labels == {"background": 3, "signal": 1}
    assert report.particles == Spread(min=1, mean=2.5, max=4)
    assert report.leading_pt == Spread(min=100, mean=250, max=400)
    assert report.float32_exact is True
    assert report.sorted_by_label is False
    assert report.bytes == path.stat().st_size
    assert report.problems == []


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 0, 1, 1], True),
        ([1, 1, 0, 0], True),
        ([0, 0, 0], True),
        ([0, 1, 0], False),
        ([1, 0, 0, 1], False),
    ],
)
@pytest.mark.parametrize("range_rows", [1, 2, 512])
def test_the_order_of_labels_is_seen_across_ranges(tmp_path, monkeypatch, labels, expected, range_rows):
    monkeypatch.setattr(inspect, "RANGE_ROWS", range_rows)
    path = write(tmp_path / "events.h5", make_values(labels), chunks=(1, 2101))
    assert inspect_file(path).sorted_by_label is expected


@pytest.mark.parametrize("range_rows", [1, 3, 4, 512])
def test_the_report_does_not_depend_on_the_ranges(tmp_path, monkeypatch, range_rows):
    values = make_values([0, 1, 0, 0, 1, 1, 0])
    values[4, 0] = np.nan
    values[6, 0] = np.nan
    path = write(tmp_path / "events.h5", values, chunks=(2, 2101))
    whole = inspect_file(path)

    monkeypatch.setattr(inspect, "RANGE_ROWS", range_rows)

    assert inspect_file(path) == whole
    assert whole.problems == [
        "row 4, pt of particle 0: not a number (nan), 2 rows in all. If that marks places without a particle, "
        "`--padding nan` reads it so."
    ]


def test_a_black_box_has_no_labels_to_count(tmp_path):
    report = inspect_file(write(tmp_path / "box.h5", make_values([0, 0], width=2100)))
    assert report.kind == "black box"
    assert report.labels is None
    assert report.sorted_by_label is None


def test_values_that_float32_cannot_hold_are_noticed(tmp_path):
    values = make_values([0, 1])
    values[1, 0] += 1e-9
    assert inspect_file(write(tmp_path / "events.h5", values)).float32_exact is False


def test_an_event_without_particles_is_a_problem(tmp_path):
    values = make_values([0, 1, 0])
    values[1:, :2100] = 0
    report = inspect_file(write(tmp_path / "events.h5", values))
    assert report.problems == ["row 1: no particle at all (2 such rows)."]


def write_features(path, values):
    columns = (*OF_JETS, LABEL)[: values.shape[1]]
    write_frame(path, [values], rows=len(values), columns=columns)
    return path


def test_a_features_file_is_recognised(tmp_path):
    values = np.arange(60.0).reshape(4, 15)
    values[:, 14] = [1, 0, 0, 0]
    report = inspect_file(write_features(tmp_path / "features.h5", values))
    assert report.kind == "features"
    assert report.labels == {"background": 3, "signal": 1}
    assert report.particles is None
    assert report.problems == []


def test_a_features_file_without_labels_is_recognised(tmp_path):
    values = np.arange(56.0).reshape(4, 14)
    values[2, 6] = np.inf
    report = inspect_file(write_features(tmp_path / "features.h5", values))
    assert report.kind == "features"
    assert report.labels is None
    assert report.problems == ["row 2, column 6: not finite (inf), 1 row in all."]


def test_labels_in_a_block_of_their_own_are_counted(tmp_path):
    path = write_features(tmp_path / "features.h5", np.arange(56.0).reshape(4, 14))
    with h5py.File(path, "a") as file:
        del file["df/axis0"]
        file["df/axis0"] = np.array([name.encode() for name in (*OF_JETS, LABEL)])
        file["df/block1_items"] = np.array([LABEL.encode()])
        file["df/block1_values"] = np.array([[0], [1], [0], [0]])
    report = inspect_file(path)
    assert (report.kind, report.width, report.problems) == ("features", 15, [])
    assert report.labels == {"background": 3, "signal": 1}


def test_the_real_file_is_described_as_published():
    directory = os.environ.get("LHCQ_TEST_DATA")
    if not directory:
        pytest.skip("LHCQ_TEST_DATA does not name a directory with the real events.")
    report = inspect_file(Path(directory) / "events_anomalydetection_tiny.h5")
    assert report.labels == {"background": 907, "signal": 93}
    assert report.particles is not None
    assert (report.particles.min, report.particles.max) == (47, 482)
    assert (report.storage_rows, report.filter) == (7, "blosc level 5, shuffled")
    assert report.float32_exact is True
    assert report.sorted_by_label is False
    assert report.problems == []


def test_a_text_file_of_particles_is_not_ours():
    directory = os.environ.get("LHCQ_TEST_DATA")
    if not directory:
        pytest.skip("LHCQ_TEST_DATA does not name a directory with the real events.")
    assert inspect_file(Path(directory) / "single-event.dat").kind == "not lhcq"


def test_events_that_stand_there_again_are_counted_with_the_first_rows(tmp_path):
    values = make_values([0, 1, 0, 0, 1, 0])
    values[3, :2100] = values[1, :2100]
    values[5, :2100] = values[1, :2100].reshape(700, 3)[::-1].ravel()  # the same particles in another order
    values[4, :2100] = values[0, :2100]
    report = inspect_file(write(tmp_path / "events.h5", values, chunks=(2, 2101)))
    assert report.duplicates == 3
    assert report.problems == [
        "3 rows repeat 2 earlier events (row 3 is row 1, row 4 is row 0, row 5 is row 1); "
        "2 of these events with contradictory labels."
    ]


def test_jets_that_stand_there_again_are_counted_whatever_the_label(tmp_path):
    values = np.arange(60.0).reshape(4, 15)
    values[:, 14] = [0, 0, 1, 1]
    values[3, :14] = values[0, :14]
    report = inspect_file(write_features(tmp_path / "features.h5", values))
    assert report.duplicates == 1
    assert report.problems == [
        "1 row repeats 1 earlier event (row 3 is row 0); 1 of these events with contradictory labels."
    ]


def test_events_without_particles_are_nobodys_duplicates(tmp_path):
    values = make_values([0, 1, 0])
    values[1:, :2100] = 0
    assert inspect_file(write(tmp_path / "events.h5", values)).duplicates == 0
