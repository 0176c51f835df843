"""Events in other formats: what was found is said. The commands that are given are run by test_docs_layouts.py."""

import pickle
import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
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


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (
            lambda path: np.savez(path, a=np.zeros(4)),
            r"arrays of numpy, none of which is a table of particles\. It holds a float64 \(4,\)\. Write its",
        ),
        (
            lambda path: np.save(path, np.zeros(4)),
            r"arrays of numpy, none of which is a table of particles\. It holds array float64 \(4,\)\. Write its",
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
        (
            lambda path: path.write_text("not a table, of anything\n"),
            r"a format that is known here\. Write its",
        ),
        (lambda path: path.write_bytes(bytes(range(256))), r"a format that is known here\. Write its"),
        (
            lambda path: path.write_bytes(b"root\0\0\xf3\x08" + bytes(90)),
            "a ROOT file. Read its branches by uproot",
        ),
        (lambda path: path.write_text("root:x:0:0:root:/root\n"), r"a format that is known here\. Write its"),
        (lambda path: path.write_text("\nHepMC::Version 2.06.09\n"), "HepMC's format. Read them by pyhepmc"),
        (lambda path: path.write_text("HepMC::Version 3.02.05\n"), "HepMC's format. Read them by pyhepmc"),
        (lambda path: path.write_text('<LesHouchesEvents version="3.0">\n'), "partons .* Shower them"),
        (lambda path: pyarrow.feather.write_feather(table(), path), "Feather file. Read it by pyarrow"),
        (lambda path: path.write_bytes(pickle.dumps([1.0])), "a Python pickle, which is a program"),
        (
            lambda path: path.write_bytes(struct.pack("<Q", 20) + b"sums\n\x12features" + bytes(30)),
            "records of TensorFlow. Read them by tf.data.TFRecordDataset",
        ),
        (lambda path: path.write_text("\n<!DOCTYPE html>\n<html>"), "a web page, .* download the file again"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "`git lfs pull`"),
        (
            lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(90)),
            "packed by zstd. Unpack it: `unzstd ",
        ),
        (
            lambda path: pq.write_table(pa.table({"jets": [[{"pt": 1.0}]]}), path),
            "It has lists or records in jets. Read it by ak.from_parquet",
        ),
    ],
)
def test_what_has_no_plain_meaning_is_said_to_be_what_it_is(tmp_path: Path, write, said: str) -> None:
    path = tmp_path / ("events.npz" if "holds a float64" in said else "events.npy")
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
    np.savez_compressed(path, **{"$(touch ran)": FEW.reshape(24, 30, 3), "labels": TRUTH})
    (problem,) = inspect_file(path).problems
    (command,) = re.findall(r"`(.*)`", problem)
    python = f'python() {{ {shlex.quote(sys.executable)} "$@"; }}'
    subprocess.run(["sh", "-c", f"{python}; {command}"], cwd=tmp_path, check=True)
    assert not (tmp_path / "ran").exists()
    assert open_event_file(tmp_path / "events.npz").n_events == 24


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
