"""numpy's own files are read in place, by ranges of rows, or it is said why they cannot be."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from lhcq.errors import BadInput
from lhcq.events.arrays import as_hdf5
from lhcq.events.inspect import inspect_file
from lhcq.events.layout import open_event_file, read_rows
from tests.unit.test_events_frames import PARTICLES, TRUTH

FEW = PARTICLES[:, :90]
LABELS = TRUTH.astype(int)
WRITERS = {
    "3d.npy": lambda path: np.save(path, FEW.reshape(24, 30, 3)),
    "2d.npy": lambda path: np.save(path, np.column_stack([FEW, TRUTH])),
    "single.npy": lambda path: np.save(path, np.column_stack([FEW, TRUTH]).astype("f4")),
    "other end.npy": lambda path: np.save(path, np.column_stack([FEW, TRUTH]).astype(">f8")),
    "version 2.npy": lambda path: save_as(path, np.column_stack([FEW, TRUTH]), (2, 0)),
    "several.npz": lambda path: np.savez(path, x=FEW.reshape(24, 30, 3), y=LABELS, weights=np.ones(24)),
    "numpy's names.npz": lambda path: np.savez(path, FEW, labels=TRUTH),
}


def save_as(path: Path, values: np.ndarray, version: tuple[int, int]) -> None:
    with path.open("wb") as stream:
        np.lib.format.write_array(stream, values, version=version)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_arrays_are_read_where_they_stand(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    before = path.read_bytes()
    file = open_event_file(path)
    assert file.n_events == 24
    for start, stop in ((0, 24), (5, 6), (17, 24)):
        block = read_rows(file, start, stop)
        read = block.particles.reshape(-1, 2100)
        np.testing.assert_array_equal(read[:, :90], FEW[start:stop])
        assert not read[:, 90:].any()
        assert (block.labels is None) == (name == "3d.npy")
        assert block.labels is None or block.labels.tolist() == LABELS[start:stop].tolist()
    report = inspect_file(path)
    assert (report.problems, report.rows, report.filter) == ([], 24, "none, an array of numpy")
    assert report.ignored == (["weights"] if name == "several.npz" else [])
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["3d.npy", "several.npz"])
def test_an_array_that_is_cut_off_is_refused(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-2000])
    with pytest.raises(BadInput, match=r"truncated|damaged"):
        open_event_file(tmp_path / name)


def test_python_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    np.save(tmp_path / "a.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(BadInput, match="It holds no numbers"):
        open_event_file(tmp_path / "a.npy")
    assert not (tmp_path / "ran").exists()


def test_an_hdf5_file_may_still_not_take_its_values_from_others(tmp_path: Path) -> None:
    np.save(tmp_path / "secret.npy", FEW)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        outside = [(str(tmp_path / "secret.npy"), 128, FEW.nbytes)]
        file.create_dataset("particles", shape=FEW.shape, dtype=FEW.dtype, external=outside)
    with pytest.raises(BadInput, match="from other files"):
        open_event_file(tmp_path / "a.h5")


def test_reading_holds_no_more_of_an_array_than_the_rows_asked_for(tmp_path: Path) -> None:
    values = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", "f8", (100_000, 2100))  # 1.7 GB, sparse
    values[99_999, :3] = 50.0, 0.5, 0.5
    del values
    with as_hdf5(tmp_path / "a.npy") as file:
        assert file["array"].external
        assert file.id.get_filesize() < 1 << 20
    block = read_rows(open_event_file(tmp_path / "a.npy"), 99_990, 100_000)
    assert block.n_particles.tolist() == [0] * 9 + [1]
