"""`lhcq inspect` says which published file one is, and what can be done with it."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from lhcq.config import Conventions
from lhcq.errors import BadInput, NotThere
from lhcq.events.archive import COMPANIONS, file_address, find_file
from lhcq.events.featurefile import OF_JETS, open_feature_file
from lhcq.events.inspect import inspect_file
from lhcq.events.known import published_as
from lhcq.events.layout import open_event_file, read_rows
from tests.unit.test_events_frames import NUMBERS, PARTICLES, TRUTH, columns_of, write_pandas

DATA = os.environ.get("LHCQ_TEST_DATA")
needs_data = pytest.mark.skipif(
    not DATA, reason="LHCQ_TEST_DATA does not name the directory of the real events"
)


@needs_data
def test_a_published_file_is_known_by_its_hash_whatever_its_name(tmp_path: Path) -> None:
    path = Path(shutil.copy(Path(str(DATA)) / "events_anomalydetection_tiny.h5", tmp_path / "mine.h5"))
    report = inspect_file(path)
    assert report.published == f"tiny, by its md5: {find_file('tiny').what}"
    assert report.next == [f"lhcq cluster {path} --name NAME"]


@needs_data
def test_a_published_file_that_was_written_again_is_known_by_what_it_holds(tmp_path: Path) -> None:
    with h5py.File(Path(str(DATA)) / "events_anomalydetection_tiny.h5") as file:
        values = file["df/block0_values"][:]
    path = write_pandas(tmp_path / "a.h5", columns_of([*NUMBERS, 2100], values))
    assert str(inspect_file(path).published).startswith(
        "perhaps tiny, by its rows, columns and labels (the md5 is"
    )


def test_what_looks_like_a_black_box_may_be_any_of_them(tmp_path: Path) -> None:
    path = tmp_path / "box.h5"
    path.write_bytes(b"")
    said = str(published_as(path, rows=1_000_000, width=2100, labels=None))
    for name in ("black-box-1", "black-box-2", "black-box-3", "background-mc"):
        assert name in said
    assert published_as(path, rows=999_999, width=2100, labels=None) is None


def test_what_is_next_depends_on_what_the_file_holds(tmp_path: Path) -> None:
    events = columns_of(NUMBERS, PARTICLES)
    box = write_pandas(tmp_path / "box.h5", events)
    assert inspect_file(box).next == [f"lhcq cluster {box} --name NAME [--labels KEY]"]
    features = {name: np.random.default_rng(1).uniform(1, 2, 24) for name in OF_JETS}
    table = write_pandas(tmp_path / "a.features.h5", features)
    assert inspect_file(table).next == [f"lhcq import {table} --name NAME"]
    both = {**events, **{2100 + place: column for place, column in enumerate(features.values())}}
    path = write_pandas(tmp_path / "both.h5", {**both, 2114: TRUTH.astype(float)})
    assert inspect_file(path).next == [f"lhcq cluster {path} --name NAME", f"lhcq import {path} --name NAME"]


def test_what_is_next_repeats_how_the_file_was_understood(tmp_path: Path) -> None:
    columns = {**columns_of(NUMBERS, PARTICLES), 2100: np.where(TRUTH, 2.0, 0.0)}
    path = write_pandas(tmp_path / "a.h5", columns)
    asked = Conventions(label_map={"2": 1}, padding="nan")
    assert inspect_file(path, asked).next == [
        f"lhcq cluster {path} --name NAME --label-map 2=1 --padding nan"
    ]


@pytest.mark.parametrize("companion", COMPANIONS, ids=lambda companion: companion.file)
def test_a_companion_is_not_loaded_and_where_it_lies_is_said(companion) -> None:
    with pytest.raises(NotThere, match=companion.page):
        find_file(companion.file)


MISNAMED = [f"{axis}{number}" for number in range(700) for axis in ("px", "py", "pz")]


def test_the_extra_qcd_events_are_read_although_their_columns_are_called_after_momenta(
    tmp_path: Path,
) -> None:
    """Record 8370758 has pt, eta, phi under px0, py0, pz0, ..., then the columns of a features file."""
    features = dict.fromkeys(OF_JETS, np.linspace(1.0, 2.0, len(PARTICLES)))
    path = write_pandas(tmp_path / "extra.h5", {**columns_of(MISNAMED, PARTICLES), **features})
    np.testing.assert_array_equal(
        read_rows(open_event_file(path), 0, 24).particles.reshape(-1, 2100), PARTICLES
    )
    file = open_feature_file(path)
    assert (file.columns, file.ignored) == (OF_JETS, ())


def test_momenta_are_still_refused(tmp_path: Path) -> None:
    path = write_pandas(tmp_path / "momenta.h5", columns_of(MISNAMED, PARTICLES))
    with pytest.raises(BadInput, match="called px0, py0, pz0"):
        open_event_file(path)


def test_the_extra_qcd_events_can_be_fetched_by_name() -> None:
    entry = find_file("extra-qcd")
    assert file_address(entry) == f"https://zenodo.org/records/8370758/files/{entry.file}?download=1"
    assert find_file(find_file("extra-qcd-features").file).name == "extra-qcd-features"
