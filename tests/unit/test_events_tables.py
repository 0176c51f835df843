"""Event files of plain HDF5 tables, which no pandas wrote: what says which table is which is read, else refused."""

from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from lhcq.errors import BadInput
from lhcq.events.inspect import inspect_file
from lhcq.events.layout import open_event_file, read_rows
from tests.made_particles import N_EVENTS, PARTICLES, TRUTH, check


def write_plain(path: Path, **tables: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in tables.items():
            file.create_dataset(name, data=values, chunks=True)
    return path


@pytest.mark.parametrize("n_slots", [700, 40, 1])
@pytest.mark.parametrize("name", ["labels", "label", "is_signal"])
def test_a_plain_table_of_particles_and_labels_is_read(tmp_path: Path, n_slots: int, name: str) -> None:
    particles = PARTICLES.reshape(-1, 700, 3)[:, :n_slots]
    tables = {"jets/particles": particles, name: TRUTH.astype(np.int64), "weight": np.ones(N_EVENTS)}
    path = write_plain(tmp_path / "events.h5", **tables)
    expected = np.zeros((N_EVENTS, 700, 3))
    expected[:, :n_slots] = particles
    check(path, expected.reshape(N_EVENTS, 2100))
    assert open_event_file(path).ignored == ("weight",)
    assert inspect_file(path).labels == {"background": 18, "signal": 6}
    check(
        write_plain(tmp_path / "black.h5", p=particles.astype(np.float32)),
        expected.reshape(N_EVENTS, 2100),
        labels=None,
    )


def test_the_columns_of_the_released_files_are_read_under_any_name(tmp_path: Path) -> None:
    rows = np.column_stack([PARTICLES, TRUTH])
    check(write_plain(tmp_path / "events.h5", data=rows))
    check(write_plain(tmp_path / "apart.h5", data=PARTICLES, labels=TRUTH))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"x": np.ones((3, 701, 3))}, "x has 701 particles an event, and 700 are read. Keep the hardest"),
        ({"x": np.ones((3, 9, 4))}, r"It holds x float64 \(3, 9, 4\)\."),
        ({"x": np.ones((3, 9, 3)), "y": np.ones((3, 9, 3))}, r"several tables of particles \(/x, /y\)"),
        ({"x": np.ones((3, 9, 3)), "y": np.ones(3), "labels": np.ones(3)}, r"several labels \(labels, y\)"),
        ({"x": np.ones((3, 2101)), "label": np.ones(3)}, "several labels"),
        ({"x": np.zeros((0, 700, 3))}, "holds no events"),
        ({"x": np.ones((3, 9, 3)), "y": np.eye(3)[:, :2]}, r"y, float64 \(3, 2\), is called as labels are"),
        ({"x": np.ones((3, 9, 3)), "y": np.ones(2)}, "number for each of the 3 events, 1 for signal"),
        ({"x": np.ones((3, 9, 3)), "labels": np.array([b"sig"] * 3)}, r"labels, \|S3 \(3,\), is called"),
        (
            {"pt": np.ones((3, 2)), "eta": np.ones((3, 2)), "phi": np.ones((3, 2))},
            r"It holds eta float64 \(3, 2\)",
        ),
        (
            {f"a_{q}": np.ones((3, 30)) for q in ("pt", "eta", "phi")} | {"x": np.ones((3, 9, 3))},
            "several tables",
        ),
        ({"a/b/c/d/e": np.ones((3, 9, 3))}, "It holds no data set near its top"),
    ],
)
def test_plain_tables_that_do_not_say_which_is_which_are_refused(
    tmp_path: Path, tables: dict[str, np.ndarray], message: str
) -> None:
    with h5py.File(tmp_path / "events.h5", "w") as file:
        for name, values in tables.items():
            file[name] = values
    with pytest.raises(BadInput, match=message) as caught:
        open_event_file(tmp_path / "events.h5")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float16", ">f4", ">f8"])
@pytest.mark.parametrize(
    "packed", [{}, {"compression": "gzip", "shuffle": True, "fletcher32": True}, hdf5plugin.Zstd()]
)
def test_numbers_of_any_order_and_size_however_they_are_packed(
    tmp_path: Path, dtype: str, packed: Any
) -> None:
    with h5py.File(tmp_path / "events.h5", "w") as file:
        file.create_dataset("x", data=PARTICLES.astype(dtype), **packed)
        file["labels"] = TRUTH.astype(">i4")[:, None]  # a column, as numpy's users have it
    check(tmp_path / "events.h5", PARTICLES.astype(dtype).astype(float))


@pytest.mark.parametrize("prefix", ["", "event_PF_", "particles/"])
def test_three_tables_of_pt_eta_and_phi_are_the_particles(tmp_path: Path, prefix: str) -> None:
    particles = PARTICLES.reshape(-1, 700, 3)[:, :41]
    tables = {
        f"{prefix}{quantity}": particles[:, :, place] for place, quantity in enumerate(("pt", "eta", "phi"))
    }
    expected = np.zeros((N_EVENTS, 700, 3))
    expected[:, :41] = particles
    path = write_plain(tmp_path / "events.h5", **tables, labels=TRUTH, mask=particles[:, :, 0] > 0)
    check(path, expected.reshape(N_EVENTS, 2100))
    assert open_event_file(path).ignored == ("mask",)


def test_a_table_that_is_called_y_beside_labels_is_no_label(tmp_path: Path) -> None:
    particles = PARTICLES.reshape(-1, 700, 3)
    path = write_plain(tmp_path / "events.h5", x=particles, labels=TRUTH, y=np.ones((N_EVENTS, 2)))
    check(path)
    path = write_plain(tmp_path / "black.h5", x=particles, y=np.ones((N_EVENTS, 11)))
    check(path, labels=None)


def test_a_pt_below_zero_that_marks_nothing_is_not_taken_for_padding(tmp_path: Path) -> None:
    particles = PARTICLES.copy()
    particles[3, 30] = -0.000112534
    (problem,) = inspect_file(write_plain(tmp_path / "events.h5", x=particles)).problems
    assert problem == "row 3, pt of particle 10: negative pt (-0.000112534), 1 row in all."


def test_a_plain_table_in_another_order_of_quantities_fails_by_its_values(tmp_path: Path) -> None:
    turned = PARTICLES.reshape(-1, 700, 3)[:, :, ::-1]
    with pytest.raises(BadInput, match=r"row 0, pt of particle \d+: negative pt"):
        read_rows(open_event_file(write_plain(tmp_path / "events.h5", particles=turned)), 0, 3)
