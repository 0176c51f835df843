"""Events in other formats: what was found is said, and the command that is given makes a file that is read."""

import gzip
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from lhcq.errors import BadInput
from lhcq.events.inspect import inspect_file
from lhcq.events.layout import open_event_file, read_rows
from tests.deployed import ROOT
from tests.unit.test_events_frames import PARTICLES, TRUTH

FEW = PARTICLES[:, :90]
NAMES = [f"{quantity}_{number}" for number in range(30) for quantity in ("pt", "eta", "phi")]


def table() -> pa.Table:
    return pa.table({**dict(zip(NAMES, FEW.T, strict=True)), "label": TRUTH.astype(int)})


WRITERS: dict[str, Callable[[Path], object]] = {
    "3d.npz": lambda path: np.savez(path, x=FEW.reshape(24, 30, 3), y=TRUTH.astype(int)),
    "packed.npz": lambda path: np.savez_compressed(path, particles=FEW, labels=TRUTH, other=np.zeros(3)),
    "3d.npy": lambda path: np.save(path, FEW.reshape(24, 30, 3)),
    "2d.npy": lambda path: np.save(path, np.column_stack([FEW, TRUTH])),
    "events.parquet": lambda path: pq.write_table(table(), path),
    "events.csv": lambda path: pyarrow.csv.write_csv(table(), path),
}


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_the_command_that_is_given_makes_a_file_that_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    (problem,) = inspect_file(path).problems
    command = shlex.split(re.findall(r"`(.*)`", problem)[0])
    assert command[0] == "python"
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True)
    file = open_event_file(tmp_path / "events.h5")
    events = read_rows(file, 0, 24)
    np.testing.assert_array_equal(events.particles.reshape(24, 2100)[:, :90], FEW)
    assert not events.particles[:, 30:].any()
    assert (events.labels is None) == (name == "3d.npy")
    assert events.labels is None or events.labels.tolist() == TRUTH.astype(int).tolist()


def test_what_is_packed_by_gzip_is_unpacked_by_the_command_that_is_given(tmp_path: Path) -> None:
    path = tmp_path / "a file.h5.gz"
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["particles"] = FEW.reshape(24, 30, 3)
    path.write_bytes(gzip.compress((tmp_path / "plain.h5").read_bytes()))
    with pytest.raises(BadInput, match="but packed by gzip") as raised:
        open_event_file(path)
    subprocess.run(shlex.split(re.findall(r"`(.*?)`", str(raised.value))[0]), check=True)
    assert open_event_file(tmp_path / "a file.h5").n_events == 24


def test_features_in_parquet_become_a_features_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    names = [f"{name}j{rank}" for rank in (1, 2) for name in ("px", "py", "pz", "m")]
    pq.write_table(pa.table({name: np.ones(3) for name in names}), path)
    with pytest.raises(BadInput, match="Make a features file of it: ") as raised:
        open_event_file(path)
    (command,) = re.findall(r"`(.*)`", str(raised.value))
    python, option, code = shlex.split(command)
    assert (python, option) == ("python", "-c")
    assert re.search(r"read_parquet\(.*\)\.to_hdf\('events\.features\.h5', key='df'\)", code)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (
            lambda path: np.savez(path, a=np.zeros(4)),
            r"\.npz archive\. It holds a \(4,\)\. Write its particles",
        ),
        (
            lambda path: np.save(path, np.zeros(4)),
            r"a \.npy file\. It holds an array \(4,\)\. Write its particles",
        ),
        (
            lambda path: path.write_bytes(b"PK\x03\x04" + bytes(1000)),
            "looks like another format, and is damaged",
        ),
        (lambda path: path.write_bytes(b"PAR1" + bytes(1000)), "looks like another format, and is damaged"),
        (
            lambda path: path.write_bytes(b"\x93NUMPY" + bytes(1000)),
            "looks like another format, and is damaged",
        ),
        (lambda path: path.write_text("not a table, of anything\n"), r"not an HDF5 file\.$"),
        (lambda path: path.write_bytes(bytes(range(256))), r"not an HDF5 file\.$"),
    ],
)
def test_what_has_no_plain_meaning_is_said_to_be_what_it_is(tmp_path: Path, write, said: str) -> None:
    path = tmp_path / "events.npz" if "npz" in said else tmp_path / "events.npy"
    write(path)
    with pytest.raises(BadInput, match=said):
        open_event_file(path)


@pytest.mark.parametrize(("width", "labelled"), [(90, False), (91, True), (2097, False), (2098, True)])
def test_columns_of_any_number_of_particles_are_read_from_plain_hdf5(
    tmp_path: Path, width: int, labelled: bool
) -> None:
    values = PARTICLES[:, :width].copy()
    if labelled:
        values[:, -1] = TRUTH
    with h5py.File(tmp_path / "events.h5", "w") as file:
        file["data"] = values
    events = read_rows(open_event_file(tmp_path / "events.h5"), 0, 24)
    np.testing.assert_array_equal(
        events.particles.reshape(24, 2100)[:, : width - labelled], values[:, : width - labelled]
    )
    assert (events.labels is not None) == labelled
    assert not labelled or events.labels.tolist() == TRUTH.astype(int).tolist()


def test_a_shell_reads_nothing_of_a_name_that_stands_in_a_command(tmp_path: Path) -> None:
    """Whoever made the archive chose it, and the command is there to be pasted."""
    path = tmp_path / "of others.npz"
    np.savez(path, **{"$(touch ran)": FEW.reshape(24, 30, 3), "labels": TRUTH})
    (problem,) = inspect_file(path).problems
    (command,) = re.findall(r"`(.*)`", problem)
    python = f'python() {{ {shlex.quote(sys.executable)} "$@"; }}'
    subprocess.run(["sh", "-c", f"{python}; {command}"], cwd=tmp_path, check=True)
    assert not (tmp_path / "ran").exists()
    assert open_event_file(tmp_path / "events.h5").n_events == 24


def test_the_program_of_the_pages_makes_a_file_of_momenta_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (program,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/howto/own-files.md").read_text("utf-8"), re.S
    )
    rng = np.random.default_rng(1)
    particles, labels = rng.normal(0.0, 30.0, (40, 20, 3)), rng.integers(0, 2, 40)
    particles[:, 15:] = 0.0
    monkeypatch.chdir(tmp_path)
    exec(program, {"particles": particles, "labels": labels})  # noqa: S102
    block = read_rows(open_event_file(tmp_path / "mine.h5"), 0, 40)
    pt, eta, phi = np.moveaxis(block.particles[:, :20], 2, 0)
    back = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], axis=2)
    np.testing.assert_allclose(back, particles, atol=1e-9)
    np.testing.assert_array_equal(block.labels, labels)
