"""What is no features file, or holds what cannot be, is refused in one line."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from lhcq.errors import BadInput
from lhcq.events.featurefile import LABEL, OF_JETS, open_feature_file, read_features
from lhcq.events.inspect import inspect_file
from lhcq.events.layout import write_event_file
from tests.feature_files import BLOSC, COLUMNS, import_file, make_values, write_frame


def test_a_mass_that_rounding_made_negative_is_zero_and_another_is_refused(tmp_path: Path):
    values = make_values(3)
    values[1, 3] = -4e-5
    import_file(write_frame(tmp_path / "features.h5", [(COLUMNS, values)]), tmp_path / "made")
    jets = pq.read_table(tmp_path / "made" / "events.parquet")["jets"].to_pylist()
    assert jets[1][0]["m"] == 0.0
    values[1, 3] = -40.0
    path = write_frame(tmp_path / "other.h5", [(COLUMNS, values)])
    with pytest.raises(BadInput, match=r"other\.h5: row 1, mj1: negative \(-40\)"):
        import_file(path, tmp_path / "other")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (3, np.nan, r"row 7, mj1: not finite \(nan\)"),
        (4, np.inf, r"row 7, tau1j1: not finite \(inf\)"),
        (12, -np.inf, r"row 7, tau2j2: not finite \(-inf\)"),
        (8, 1e12, r"row 7, pyj2: beyond 1e\+09 GeV"),
        (5, -1.0, r"row 7, tau2j1: negative \(-1\)"),
        (14, 2.0, r"row 7, label: a label that is neither 0 nor 1 \(2\)"),
        (14, np.nan, r"row 7, label: a label that is neither 0 nor 1 \(nan\)"),
    ],
)
def test_a_wrong_value_is_refused_with_its_row_and_nothing_is_left(
    tmp_path: Path, column: int, value: float, message: str
):
    values = make_values(12)
    values[7, column] = value
    path = write_frame(tmp_path / "features.h5", [(COLUMNS, values)])
    with pytest.raises(BadInput, match=message):
        import_file(path, tmp_path / "datasets" / "made", rows=5)
    assert list((tmp_path / "datasets").iterdir()) == []


def test_a_jet_along_the_beam_is_refused(tmp_path: Path):
    values = make_values(3)
    values[2, 7:9] = 0
    with pytest.raises(BadInput, match="row 2, pzj2: along the beam, without pt"):
        import_file(write_frame(tmp_path / "features.h5", [(COLUMNS, values)]), tmp_path / "made")


def as_angles(values: np.ndarray) -> None:
    for first in (0, 7):
        px, py, pz = values[:, first : first + 3].T.copy()
        pt = np.hypot(px, py)
        values[:, first : first + 3] = np.stack([pt, np.arcsinh(pz / pt), np.arctan2(py, px)], axis=1)


def as_energies(values: np.ndarray) -> None:
    for first in (0, 7):
        values[:, first + 3] = np.sqrt((values[:, first : first + 4] ** 2).sum(axis=1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (as_angles, "rows 0 to 19, j1: its first three columns are like pt, eta and phi, not px, py and pz"),
        (as_energies, "rows 0 to 19, j1: its fourth column is never below the momentum, like an energy"),
    ],
)
def test_other_quantities_in_an_array_without_names_are_told_by_their_values(
    tmp_path: Path, change, said: str
) -> None:
    path, values = tmp_path / "features.npy", make_values(20)
    change(values)
    np.save(path, values)
    with pytest.raises(BadInput, match=said):
        list(read_features(open_feature_file(path), rows=100))
    (problem,) = inspect_file(path).problems
    assert said in problem


def test_a_few_slow_and_heavy_jets_at_the_end_of_a_file_are_jets(tmp_path: Path) -> None:
    path, values = tmp_path / "features.npy", make_values(20)
    values[-3:, 3] = 2 * np.sqrt((values[-3:, 0:3] ** 2).sum(axis=1))
    np.save(path, values)
    blocks = list(read_features(open_feature_file(path), rows=17))
    assert [len(block.values["mj1"]) for block in blocks] == [17, 3]


def no_table(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["something"] = np.arange(3)


def table_format(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["df/table"] = np.zeros(3, dtype=[("index", "i8"), ("values_block_0", "f8", 15)])


def pickled_names(path: Path) -> None:
    write_frame(path, [(COLUMNS, make_values(3))])
    with h5py.File(path, "r+") as file:
        del file["df/block0_items"]
        items = file["df"].create_dataset("block0_items", (1,), dtype=h5py.vlen_dtype(np.uint8))
        items[0] = np.frombuffer(b"\x80\x04]\x94.", np.uint8)


def not_transposed(path: Path) -> None:
    write_frame(path, [(COLUMNS, make_values(3).T)])


def two_lengths(path: Path) -> None:
    write_frame(path, [(OF_JETS, make_values(3)[:, :14]), ([LABEL], np.zeros((4, 1)))])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_table, "no table df/block0_values, and no pandas table of another name"),
        (table_format, "in pandas' table format. Save it again with .*fixed"),
        (pickled_names, "block0_values has no plain column names"),
        (not_transposed, r"block0_values is float64 of shape \(15, 3\), no table of numbers"),
        (two_lengths, "its columns are not equally long"),
        (lambda path: path.write_text("pxj1,pyj1\n"), "not an HDF5 file"),
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), "a directory or a device"),
        (lambda path: write_frame(path, [(COLUMNS, np.zeros((0, 15)))]), "holds no events"),
        (
            lambda path: write_frame(path, [(COLUMNS[:9], make_values(3)[:, :9])]),
            "without pzj2, mj2; its columns are pxj1, pyj1, .*, pyj2. It is not",
        ),
        (
            lambda path: write_frame(path, [((*OF_JETS, "mj1"), make_values(3))]),
            "has two columns of one name",
        ),
        (
            lambda path: write_event_file(path, [(np.zeros((2, 700, 3)), np.zeros(2))], 2),
            r"an event file \(2101 columns\). Use `lhcq cluster`",
        ),
    ],
)
def test_what_is_no_features_file_is_refused_in_one_line(tmp_path: Path, make: Any, message: str):
    path = tmp_path / "bad.h5"
    make(path)
    with pytest.raises(BadInput, match=message) as caught:
        open_feature_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_storage_chunk_is_named_by_its_rows(tmp_path: Path):
    path = write_frame(tmp_path / "features.h5", [(COLUMNS, make_values(64))], chunks=(16, 15), **BLOSC)
    with h5py.File(path) as file:
        chunk = file["df/block0_values"].id.get_chunk_info(2)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    with pytest.raises(BadInput, match="rows 32 to 47 cannot be read, the file is damaged there"):
        list(read_features(open_feature_file(path), rows=16))
