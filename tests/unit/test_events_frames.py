"""Event files as pandas writes them: whatever block a column went to, it is read in its place or refused."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lhcq.errors import BadInput
from lhcq.events.featurefile import LABEL
from lhcq.events.inspect import inspect_file
from lhcq.events.layout import N_PARTICLES, open_event_file, read_rows
from tests.made_particles import N_EVENTS, PARTICLES, TRUTH, check

NUMBERS = list(range(2100))
WORDS = [f"{quantity}_{number}" for number in range(N_PARTICLES) for quantity in ("pt", "eta", "phi")]
DTYPES = ("bool", "int8", "uint8", "int64", "uint64", "float16", "float32", "float64")


def columns_of(names: list[Any], values: np.ndarray) -> dict[Any, np.ndarray]:
    return {name: values[:, place] for place, name in enumerate(names)}


def write_pandas(
    path: Path, columns: dict[Any, np.ndarray], *, key: str = "df", first: str = "", storage_rows: int = 7
) -> Path:
    """The frame of these columns as `DataFrame.to_hdf` writes it (pandas 3.1, PyTables 3.11).

    Columns of one type are one block; the blocks come by the name of their type, `first` before all.
    """
    blocks: dict[str, list[Any]] = {}
    for name, values in columns.items():
        blocks.setdefault(values.dtype.name, []).append(name)
    n_rows = len(next(iter(columns.values())))
    with h5py.File(path, "w") as file:
        group = file.create_group(key)
        group.attrs.update({"pandas_type": "frame", "ndim": 2, "nblocks": len(blocks)})
        write_index(group, "axis0", list(columns))
        write_index(group, "axis1", list(range(n_rows)))
        for number, dtype in enumerate(sorted(blocks, key=lambda name: (name != first, name))):
            names = blocks[dtype]
            write_values(group, f"block{number}_values", [columns[name] for name in names], storage_rows)
            write_index(group, f"block{number}_items", names)
    return path


def write_values(group: h5py.Group, name: str, columns: list[np.ndarray], storage_rows: int) -> None:
    values = np.column_stack(columns)
    if values.dtype == object:  # text, pickled
        stored = group.create_dataset(name, (1,), dtype=h5py.vlen_dtype(np.uint8))
        stored[0] = np.frombuffer(pickle.dumps(values), np.uint8)
    elif not len(values):
        stored = group.create_dataset(name, data=np.ones((1, 1)))
        stored.attrs["shape"] = np.bytes_(f"(I{values.shape[1]}\nI0\ntp0\n.".encode())
        stored.attrs["value_type"] = np.bytes_(values.dtype.name.encode())
    else:
        values = values.astype(np.uint8) if values.dtype == bool else values
        chunks = (min(storage_rows, len(values)), values.shape[1]) if values.shape[1] > 1 else None
        stored = group.create_dataset(name, data=values, chunks=chunks)
    stored.attrs["transposed"] = bool(len(values)) and values.dtype != object


def write_index(group: h5py.Group, name: str, items: list[Any]) -> None:
    """Numbers, words of one length, or a pickle where there are both."""
    kinds = {type(item) for item in items}
    if len(kinds) > 1 or (name == "block0_items" and isinstance(items[0], tuple)):
        index = group.create_dataset(name, (1,), dtype=h5py.vlen_dtype(np.uint8))
        index[0] = np.frombuffer(pickle.dumps(np.array(items, object), protocol=5), np.uint8)
        index.attrs["kind"] = "object"
    elif not items:
        index = group.create_dataset(name, data=np.ones(1))
        index.attrs["shape"] = np.bytes_(b"(I0\ntp0\n.")
        index.attrs["kind"] = "integer"
    else:
        index = group.create_dataset(name, data=np.array(items, "S" if kinds == {str} else "i8"))
        index.attrs["kind"] = "string" if kinds == {str} else "integer"


def placed(names: list[Any], place: int, label: Any, dtype: str) -> dict[Any, np.ndarray]:
    """The particles under `names`, with the label before the column at `place`."""
    columns = columns_of(names, PARTICLES)
    order = [*names[:place], label, *names[place:]]
    columns[label] = TRUTH.astype(dtype)
    return {name: columns[name] for name in order}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("first", ["", "float64"])
def test_a_label_of_any_type_is_the_label_whichever_block_comes_first(
    tmp_path: Path, dtype: str, first: str
) -> None:
    path = write_pandas(tmp_path / "events.h5", placed(NUMBERS, 2100, 2100, dtype), first=first)
    check(path)
    report = inspect_file(path)
    assert (report.kind, report.problems) == ("events with labels", [])
    assert report.labels == {"background": 18, "signal": 6}


@pytest.mark.parametrize("dtype", ["bool", "int64", "float32", "float64"])
@pytest.mark.parametrize("place", [0, 1000, 2097, 2100])
@pytest.mark.parametrize("names", [NUMBERS, [str(n) for n in NUMBERS], [f"c{n}" for n in NUMBERS], WORDS])
def test_a_column_called_label_is_the_label_wherever_it_stands(
    tmp_path: Path, dtype: str, place: int, names: list[Any]
) -> None:
    check(write_pandas(tmp_path / "events.h5", placed(names, place, LABEL, dtype)))


def test_numbers_that_are_not_in_order_are_put_in_order(tmp_path: Path) -> None:
    columns = placed(NUMBERS, 2100, 2100, "float64")
    names = list(columns)
    np.random.default_rng(1).shuffle(names)
    check(write_pandas(tmp_path / "events.h5", {name: columns[name] for name in names}))


def test_quantities_that_stand_one_after_the_other_are_put_in_order(tmp_path: Path) -> None:
    columns = placed(WORDS, 2100, LABEL, "float64")
    names = sorted(columns)  # all eta, then all phi, then all pt, by the letters of their numbers
    check(write_pandas(tmp_path / "events.h5", {name: columns[name] for name in names}))
    renamed = {
        f"{q}{int(n) + 1}": columns[name] for name in WORDS for q, n in [name.split("_")]
    }  # counted from 1
    check(write_pandas(tmp_path / "black.h5", renamed), labels=None)


@pytest.mark.parametrize("column", [0, 500, 2099])
@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_a_particle_s_column_in_another_block_moves_no_other(tmp_path: Path, column: int, dtype: str) -> None:
    columns = placed(NUMBERS, 2100, 2100, "float64")
    columns[column] = np.ones(N_EVENTS, dtype) if dtype != "float32" else columns[column].astype(dtype)
    expected = PARTICLES.copy()
    expected[:, column] = columns[column]
    check(write_pandas(tmp_path / "events.h5", columns), expected)


def test_single_and_double_precision_side_by_side_are_read(tmp_path: Path) -> None:
    columns = {
        name: values.astype("float32" if name % 3 else "float64")
        for name, values in placed(NUMBERS, 2100, 2100, "float64").items()
    }
    check(write_pandas(tmp_path / "events.h5", columns))


def test_columns_that_are_neither_are_named_and_not_read(tmp_path: Path) -> None:
    columns = {"event": np.arange(N_EVENTS), **placed(WORDS, 2100, LABEL, "float64")}
    columns["weight"] = np.full(N_EVENTS, 0.5)
    columns["process"] = np.array(["qcd"] * N_EVENTS, object)
    path = write_pandas(tmp_path / "events.h5", columns)
    check(path)
    assert open_event_file(path).ignored == ("event", "weight", "process")


def test_a_frame_that_is_one_block_in_order_is_read_as_it_stands(tmp_path: Path) -> None:
    whole = write_pandas(tmp_path / "whole.h5", placed(NUMBERS, 2100, 2100, "float64"))
    cut = write_pandas(tmp_path / "cut.h5", placed(NUMBERS, 2100, 2100, "int64"))
    assert [piece.whole for piece in open_event_file(whole).pieces] == [True]
    assert [piece.whole for piece in open_event_file(cut).pieces] == [False, False]
    assert open_event_file(cut).storage_rows == 7


@pytest.mark.parametrize("key", ["events", "data/qcd/events"])
def test_the_key_of_the_frame_does_not_matter(tmp_path: Path, key: str) -> None:
    check(write_pandas(tmp_path / "events.h5", placed(NUMBERS, 2100, 2100, "int64"), key=key))


def test_a_complete_table_may_be_any_block(tmp_path: Path) -> None:
    path = write_pandas(tmp_path / "events.h5", placed(NUMBERS, 2100, 2100, "float64"))
    with h5py.File(path, "r+") as file:
        file["df"].move("block0_values", "block1_values")
        file["df"].move("block0_items", "block1_items")
    check(path)


def no_rows(path: Path) -> None:
    columns = placed(NUMBERS, 2100, 2100, "int64")
    write_pandas(path, {name: values[:0] for name, values in columns.items()})


def no_columns(path: Path) -> None:
    with h5py.File(path, "w") as file:
        write_index(file.create_group("df"), "axis0", [])


def cut_off(path: Path) -> None:
    write_pandas(path, placed(NUMBERS, 2100, 2100, "int64"), first="float64")
    with h5py.File(path, "r+") as file:
        del file["df/block1_values"], file["df/block1_items"]


def labels_in_words(path: Path) -> None:
    columns = placed(WORDS, 2100, LABEL, "int64")
    columns[LABEL] = np.array(["signal"] * N_EVENTS, object)
    write_pandas(path, columns)


def two_frames(path: Path) -> None:
    write_pandas(path, placed(NUMBERS, 2100, 2100, "float64"), key="train")
    with h5py.File(path, "r+") as file:
        file.copy("train", "test")


def without(*gone: int) -> Any:
    columns = placed(NUMBERS, 2100, 2100, "float64")
    return lambda path: write_pandas(path, {n: values for n, values in columns.items() if n not in gone})


def more(**added: Any) -> Any:
    columns = {name: added.get(str(name), values) for name, values in columns_of(WORDS, PARTICLES).items()}
    return lambda path: write_pandas(path, columns | added)


REFUSED: dict[str, tuple[Any, str]] = {
    "no rows": (no_rows, "holds no events"),
    "no columns": (no_columns, "holds no events"),
    "written in part": (cut_off, "column '2100' is in none of its blocks"),
    "labels in words": (labels_in_words, "column 'label' holds text"),
    "two frames": (two_frames, r"several tables \(test, train\), none called df"),
    "a column of the particles missing": (without(7), "do not run from 0 to 2099"),
    "the last of the particles missing": (without(2099), "do not run from 0 to 2099"),
    "a weight before the label": (
        lambda path: write_pandas(path, columns_of(list(range(2102)), np.ones((3, 2102)))),
        r"2102 columns, not 2101 .*: columns 2100, 2101 are too many\. Save it again",
    ),
    "momenta": (
        lambda path: write_pandas(
            path, columns_of([f"{q}_{n}" for n in range(700) for q in ("px", "py", "pz")], PARTICLES)
        ),
        r"its columns are called px_0, py_0, pz_0, \.\.\., pz_699, which does not say",
    ),
    "a label by another name": (more(is_signal=TRUTH), r"no column is called 'label', and one 'is_signal'"),
    "a label in capitals": (more(Label=TRUTH.astype(float)), r"rename\(columns=\{'Label': 'label'\}\)"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_say_where_its_particles_or_labels_are_is_refused_in_one_line(
    tmp_path: Path, make: Any, message: str
) -> None:
    path = tmp_path / "events.h5"
    make(path)
    with pytest.raises(BadInput, match=message) as caught:
        open_event_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert inspect_file(path).problems == [str(caught.value)]


class Program:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def test_names_that_are_pickled_are_read_and_never_unpickled(tmp_path: Path) -> None:
    path, mark = (
        write_pandas(tmp_path / "events.h5", placed(NUMBERS, 0, LABEL, "float64")),
        tmp_path / "owned",
    )
    check(path)
    with h5py.File(path, "r+") as file:
        program = np.array([Program(mark), *NUMBERS], object)
        file["df/block0_items"][0] = np.frombuffer(pickle.dumps(program), np.uint8)
    with pytest.raises(BadInput, match="block0_values has no plain column names"):
        open_event_file(path)
    assert not mark.exists()


def test_a_second_signal_is_refused_with_what_to_do(tmp_path: Path) -> None:
    columns = placed(NUMBERS, 2100, 2100, "int64")
    columns[2100] = columns[2100] * 2
    path = write_pandas(tmp_path / "events.h5", columns)
    remedy = "If 2 is a second signal, `--label-map 2=1` reads it so"
    with pytest.raises(BadInput, match=rf"row 1, column 2100: .* \(2\)\. {remedy}"):
        read_rows(open_event_file(path), 0, N_EVENTS)
    (problem,) = inspect_file(path).problems
    assert "6 rows in all. If 2 is a second signal" in problem
