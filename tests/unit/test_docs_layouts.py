"""The table of layouts in docs/dataset.md, row by row: files of each are made, and taken or refused as it says.

Above 400 lines, and a table itself: the files of all rows stand together, as the rows do.
"""

import bz2
import gzip
import lzma
import pickle
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import hdf5plugin
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from lhcq.config import Conventions
from lhcq.errors import BadInput
from lhcq.events.featurefile import OF_JETS, open_feature_file, read_features
from lhcq.events.inspect import inspect_file
from lhcq.events.layout import open_event_file, read_rows
from lhcq.events.names import LABEL
from tests.deployed import ROOT
from tests.feature_files import make_values, write_frame
from tests.unit.test_events_frames import NUMBERS, PARTICLES, TRUTH, WORDS, columns_of, write_pandas
from tests.unit.test_import_reduced import reduce_features

N = len(PARTICLES)
LABELS = TRUTH.astype(int)
FEW = PARTICLES[:, :90]
FEATURES = make_values(N)
FEATURES[:, 14] = TRUTH
NAMES = [f"{quantity}_{number}" for number in range(30) for quantity in ("pt", "eta", "phi")]


class Made(NamedTuple):
    """A file of a layout."""

    name: str
    write: Callable[[Path], object]
    labelled: bool = True
    says: str = "`.*`"
    """What stands in the line about it, where it is not read."""


def plain(**tables: Any) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, values in tables.items():
                file[name] = values

    return write


def frame(columns: dict[Any, np.ndarray], **options: Any) -> Callable[[Path], object]:
    return lambda path: write_pandas(path, columns, **options)


def released(particles: np.ndarray = PARTICLES, labels: np.ndarray = TRUTH) -> Callable[[Path], object]:
    return frame({**columns_of(NUMBERS, particles), 2100: labels.astype(float)})


def packed(dtype: str, **options: Any) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("particles", data=FEW.reshape(N, 30, 3).astype(dtype), **options)
            file["labels"] = LABELS

    return write


def two_frames(path: Path) -> None:
    write_pandas(path, columns_of(NUMBERS, PARTICLES), key="background")
    with h5py.File(path, "r+") as file:
        file.copy("background", "signal")


def events_table() -> pa.Table:
    return pa.table({**dict(zip(NAMES, FEW.T, strict=True)), "label": LABELS})


def features_table() -> pa.Table:
    return pa.table(dict(zip((*OF_JETS, LABEL), FEATURES.T, strict=True)))


def with_index(name: str) -> pa.Table:
    """As pandas writes it, the numbers of the rows first."""
    return events_table().add_column(0, name, [np.arange(N)])


def ragged() -> pa.Table:
    """As awkward writes it, a list of each quantity an event."""
    lists = {
        q: [list(FEW[row, place::3]) for row in range(N)] for place, q in enumerate(("pt", "eta", "phi"))
    }
    return pa.table({**lists, "label": LABELS})


def of_lhcq() -> pa.Table:
    places = {f"j{rank}_{name}": f"{name}j{rank}" for rank in (1, 2) for name in ("px", "py", "pz", "m")}
    values = features_table()
    return pa.table({**{ours: values[theirs] for ours, theirs in places.items()}, "label": LABELS})


def text(
    values: np.ndarray, separator: str, names: str = "", *, comments: str = ""
) -> Callable[[Path], object]:
    return lambda path: np.savetxt(path, values, "%.17g", separator, header=names, comments=comments)


def decimal_commas(path: Path) -> None:
    text(FEATURES, ";", ";".join((*OF_JETS, LABEL)))(path)
    path.write_text(path.read_text().replace(".", ","))


def records(values: np.ndarray, names: list[str]) -> np.ndarray:
    return np.array([tuple(row) for row in values], dtype=[(name, "f8") for name in names])


def wrapped(pack: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        inside = path.with_name("inside.h5")
        released()(inside)
        path.write_bytes(pack(inside.read_bytes()))
        inside.unlink()

    return write


def archived(kind: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        released()(path.with_name("inside.h5"))
        shutil.make_archive(str(path.with_suffix("")), kind, path.parent, "inside.h5")
        path.with_name("inside.h5").unlink()

    return write


def starts_with(head: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(head + bytes(100))


def _px(name: str) -> str:
    return name.replace("pt_", "px").replace("eta_", "py").replace("phi_", "pz")


FEATURE_COLUMNS = columns_of([*OF_JETS], FEATURES)
PADDED = np.where(np.repeat(np.arange(700) % 2 == 1, 3), np.nan, PARTICLES)
THREE = FEW.reshape(N, 30, 3)
NAMED, LABELLED_FEW = ",".join((*OF_JETS, LABEL)), np.column_stack([FEW, TRUTH])
BETAS = {f"{n}_1" if n.startswith("tau") else n: v for n, v in FEATURE_COLUMNS.items()}
BETAS |= {f"{n}_2": v * 2 for n, v in FEATURE_COLUMNS.items() if n.startswith("tau")}
EVENTS_AND_FEATURES = np.column_stack([PARTICLES, FEATURES[:, :14]])

LAYOUTS: dict[str, list[Made]] = {
    'the released event files: pandas "fixed"': [Made("a.h5", released())],
    "the same with columns of any number types": [
        Made("a.h5", frame({2100: LABELS, **columns_of(NUMBERS, PARTICLES)}, key="events")),
        Made("b.h5", frame({**columns_of(NUMBERS, PARTICLES.astype("f4")), 2100: TRUTH})),
    ],
    "columns called `pt_0`, `eta_0`": [
        Made("a.h5", frame({**columns_of(WORDS, PARTICLES), "weight": np.ones(N), "label": LABELS})),
        Made("b.h5", frame({"label": TRUTH, **columns_of([f"c{n}" for n in NUMBERS], PARTICLES)})),
    ],
    "particles, then 14 or 15 columns of features": [
        Made("a.h5", frame(columns_of(list(range(2114)), EVENTS_AND_FEATURES)), labelled=False),
        Made("b.h5", frame(columns_of(list(range(2115)), np.column_stack([PARTICLES, FEATURES])))),
    ],
    "`*.features.h5`, named or numbered": [
        Made("a.features.h5", frame({**FEATURE_COLUMNS, LABEL: LABELS})),
        Made("b.features.h5", lambda path: write_frame(path, [(range(15), FEATURES)])),
        Made("extratau.features.h5", frame({**BETAS, LABEL: LABELS})),
    ],
    "plain HDF5: one data set (n, M, 3)": [
        Made("a.h5", plain(particles=THREE, labels=LABELS)),
        Made("b.h5", plain(particles=FEW, labels=LABELS[:, None])),
        Made("c.h5", plain(particles=LABELLED_FEW)),
        Made("d.h5", plain(particles=THREE), labelled=False),
    ],
    "plain HDF5: three data sets (n, M)": [
        Made("a.h5", plain(pt=THREE[:, :, 0], eta=THREE[:, :, 1], phi=THREE[:, :, 2], labels=LABELS)),
    ],
    "any of these in float16, float32 or float64": [
        Made("a.h5", packed("f4", compression="gzip")),
        Made("b.h5", packed(">f8", **hdf5plugin.Zstd())),
        Made("c.h5", packed("f8", **hdf5plugin.Bitshuffle())),
        Made("d.h5", packed("f8", **hdf5plugin.LZ4())),
        Made("e.features.h5", frame({**columns_of([*OF_JETS], FEATURES.astype("f4")), LABEL: LABELS})),
    ],
    "any of these with another pt than 0": [Made("a.h5", released(PADDED))],
    "any of these with another label than 0 and 1": [
        Made("a.h5", released(labels=LABELS * 2)),
        Made("b.features.h5", frame({**FEATURE_COLUMNS, LABEL: LABELS * 2})),
    ],
    "`.npy` and `.npz` (by `np.savez`": [
        Made("a.npy", lambda path: np.save(path, LABELLED_FEW)),
        Made("b.npy", lambda path: np.save(path, THREE), labelled=False),
        Made("c.npz", lambda path: np.savez(path, x=THREE, y=LABELS)),
    ],
    "features as one array (n, 14), or (n, 15)": [
        Made("a.npy", lambda path: np.save(path, FEATURES)),
        Made("b.npy", lambda path: np.save(path, FEATURES[:, :14].astype("f4")), labelled=False),
        Made("c.npz", lambda path: np.savez(path, X=FEATURES[:, :14], y=LABELS)),
        Made("d.npz", lambda path: np.savez(path, FEATURES)),
        Made("e.h5", plain(features=FEATURES)),
        Made("f.h5", plain(**{"jets/features": FEATURES[:, :14], "jets/labels": LABELS[:, None]})),
    ],
    "features as a data set (n,) for each column": [
        Made("a.h5", plain(**FEATURE_COLUMNS, label=LABELS)),
    ],
    "an array (n, 6) or (n, 7) as CATHODE": [
        Made("a.npy", lambda path: np.save(path, reduce_features(FEATURES))),
        Made("b.h5", plain(data=np.insert(reduce_features(FEATURES), 5, 3.0, axis=1))),
    ],
    "the extra QCD events": [
        Made(
            "a.h5", frame({**columns_of([_px(n) for n in WORDS], PARTICLES), **FEATURE_COLUMNS}), labelled=False
        ),
    ],
    "arrays of particles and of features in one file": [
        Made("a.h5", plain(particles=THREE, features=FEATURES[:, :14], labels=LABELS)),
    ],
    "`.npz` that is compressed, or Fortran's order": [
        Made("a.npz", lambda path: np.savez_compressed(path, particles=FEW, labels=TRUTH, other=np.zeros(3))),
        Made("b.npz", lambda path: np.savez_compressed(path, FEATURES)),
        Made("c.npy", lambda path: np.save(path, np.asfortranarray(LABELLED_FEW))),
        Made("d.npy", lambda path: np.save(path, np.asfortranarray(FEATURES))),
    ],
    "parquet and csv of events": [
        Made("a.parquet", lambda path: pq.write_table(events_table(), path)),
        Made("b.parquet", lambda path: pq.write_table(with_index("__index_level_0__"), path)),
        Made("c.parquet", lambda path: pq.write_table(ragged(), path)),
        Made("d.csv", lambda path: pyarrow.csv.write_csv(events_table(), path)),
        Made("e.csv", lambda path: pyarrow.csv.write_csv(with_index(""), path)),
    ],
    "parquet and csv of features, lhcq's own tables": [
        Made("a.parquet", lambda path: pq.write_table(features_table(), path)),
        Made("b.csv", lambda path: pyarrow.csv.write_csv(features_table(), path)),
        Made("c.csv", text(FEATURES, ",", ",".join(map(str, range(15))))),
        Made("d.parquet", lambda path: pq.write_table(of_lhcq(), path)),
    ],
    "either in a text separated by tabs": [
        Made("a.tsv", text(LABELLED_FEW, "\t", "\t".join([*NAMES, "label"]))),
        Made("b.txt", text(FEATURES, "\t")),
        Made("c.csv", text(FEATURES, ";", ";".join((*OF_JETS, LABEL)))),
        Made("d.csv", decimal_commas),
        Made("e.csv", text(LABELLED_FEW, ",")),
        Made("f.csv", text(FEATURES, ",")),
        Made("g.csv", text(FEATURES[:, :14], ", "), labelled=False),
        Made("h.csv", text(FEATURES, ",", NAMED, comments="# ")),
        Made("i.txt", text(FEATURES, " ", NAMED.replace(",", " "), comments="# ")),
        Made("j.txt", text(LABELLED_FEW, "  ", "  ".join([*NAMES, "label"]))),
        Made("k.dat", text(FEATURES, " ")),
        Made("l.csv", text(reduce_features(FEATURES), ",")),
    ],
    "records with named fields": [
        Made("a.npy", lambda path: np.save(path, records(FEATURES, [*OF_JETS, LABEL]))),
        Made("b.h5", plain(events=records(FEATURES, [*OF_JETS, LABEL]))),
        Made("c.npy", lambda path: np.save(path, records(LABELLED_FEW, [*NAMES, LABEL]))),
    ],
    "several tables in one file, none called `df`": [
        Made("a.h5", two_frames, labelled=False, says=r"tables \(background, signal\).*`.*`"),
        Made("b.h5", plain(**{"a/x": THREE, "a/y": LABELS, "b/x": THREE}), says=r"\(/a/x, /b/x\).*`.*`"),
        Made("c.h5", plain(a=LABELLED_FEW, b=THREE), says=r"tables of particles \(/a, /b\).*`.*`"),
        Made("d.h5", plain(a=FEATURES, b=FEATURES), says=r"tables of features \(/a, /b\).*`.*`"),
        Made("e.npz", lambda path: np.savez(path, a=LABELLED_FEW, b=LABELLED_FEW)),
    ],
    # What it makes is `pandas`' own, which lhcq does not need and tests/unit/test_import_refused.py looks at.
    "pandas' table format": [
        Made("a.h5", plain(**{"df/table": np.zeros(3, [("values_block_0", "f8", 15)])}), says="format='fixed'"),
    ],
    "`.gz`, `.bz2`, `.xz`, `.zst`, `.zip`, `.tar` around any": [
        Made("a.h5.gz", wrapped(gzip.compress)),
        Made("an unusual name.packed", wrapped(gzip.compress)),
        Made("c.h5.bz2", wrapped(bz2.compress)),
        Made("d.h5.xz", wrapped(lzma.compress)),
        Made("e.packed", wrapped(lzma.compress)),
        Made("f.zip", archived("zip")),
        Made("g.tar", archived("tar")),
        Made("h.zst", starts_with(b"\x28\xb5\x2f\xfd"), says="unzstd --keep"),
    ],
    "ROOT, HepMC, LHE, Feather, TFRecord, pickle": [
        Made("a.root", starts_with(b"root\0\0\xf3\x08"), says="uproot"),
        Made("a.hepmc", starts_with(b"HepMC::Version 3.02.05\n"), says="pyhepmc"),
        Made("a.lhe", starts_with(b'<LesHouchesEvents version="3.0">\n'), says="Shower them"),
        Made("a.feather", lambda path: pyarrow.feather.write_feather(events_table(), path), says="pyarrow.feather"),
        Made("a.tfrecord", starts_with(b"\x14" + bytes(7) + b"sums\n\x12features"), says="tf.data"),
        Made("a.pkl", lambda path: path.write_bytes(pickle.dumps([1.0])), says="which is a program"),
        Made("page.h5", starts_with(b"<!DOCTYPE html>"), says="a web page"),
        Made("a.h5", starts_with(b"version https://git-lfs.github.com/spec/v1\n"), says="git lfs pull"),
    ],
}  # fmt: skip


def rows() -> Iterator[list[str]]:
    """The cells of each row of the table."""
    page = (ROOT / "docs/dataset.md").read_text("utf-8")
    for line in page.partition("\n## Files that are read\n")[2].splitlines():
        if line.startswith("| ") and not line.startswith("| layout"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_each_row_of_the_table_has_a_file_and_each_file_a_row() -> None:
    found = {what: [key for key in LAYOUTS if what.startswith(key)] for what, *_ in rows()}
    assert found
    assert all(len(keys) == 1 for keys in found.values()), found
    assert sorted(key for (key,) in found.values()) == sorted(LAYOUTS)


def conventions_in(cell: str) -> Conventions:
    """What an option that stands in a cell makes of the numbers of a file."""
    if option := re.fullmatch(r"`--padding (.*)`", cell):
        return Conventions(padding=option[1])
    if option := re.fullmatch(r"`--label-map (.*)=(.*)`", cell):
        return Conventions(label_map={option[1]: int(option[2])})
    return Conventions()


def check_events(path: Path, made: Made, conventions: Conventions) -> None:
    file = open_event_file(path, conventions)
    block = read_rows(file, 0, N)
    read = block.particles.reshape(N, 2100)
    expected = np.nan_to_num(PADDED) if conventions.padding == "nan" else PARTICLES
    width = 90 if not read[:, 90:].any() else 2100
    np.testing.assert_allclose(read[:, :width], expected[:, :width], rtol=1e-6)
    assert (block.labels is not None) == made.labelled
    assert block.labels is None or block.labels.tolist() == LABELS.tolist()


def check_features(path: Path, made: Made, conventions: Conventions) -> None:
    file = open_feature_file(path, conventions)
    (block,) = read_features(file, rows=100)
    if "mjj" in block.values:
        np.testing.assert_allclose(block.values["mjj"], 1000 * reduce_features(FEATURES)[:, 0], rtol=1e-6)
    else:
        assert {"pxj1", "mj2"} <= set(block.values)
        for name, values in block.values.items():
            np.testing.assert_allclose(values, FEATURES[:, OF_JETS.index(name)], rtol=1e-6)
    assert (block.labels is not None) == made.labelled
    assert block.labels is None or block.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("key", LAYOUTS)
def test_a_file_of_each_layout_is_taken_by_what_the_row_says(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((_, *cells),) = [row for row in rows() if row[0].startswith(key)]
    for number, made in enumerate(LAYOUTS[key]):
        directory = tmp_path / str(number)
        directory.mkdir()
        monkeypatch.chdir(directory)
        made.write(directory / made.name)
        if cells[0].startswith(("says", "names")):
            check_told(directory / made.name, made, commanded="command" in cells[0])
        else:
            check_read(directory / made.name, made, *cells)


def check_read(path: Path, made: Made, inspect: str, cluster: str, imports: str) -> None:
    conventions = conventions_in(inspect)
    if "`" in inspect:  # without the option, it is named
        assert any(inspect in problem for problem in inspect_file(path).problems)
    report = inspect_file(path, conventions)
    assert report.problems == []
    features = report.kind == "features"
    assert inspect != "as events" or not features
    takes_both = inspect == "as events" or (cluster, imports) == ("yes", "yes")
    for says, check, mine in ((cluster, check_events, not features), (imports, check_features, features)):
        if says not in ("no", "") and (mine or inspect == "as events"):
            assert report.next
            check(path, made, conventions)
        else:
            assert says in ("no", "") or takes_both or "`" in says
            with pytest.raises(
                BadInput, match=r"lhcq (import|cluster)|not a features file|no table|none of which"
            ):
                check(path, made, conventions)


def check_told(path: Path, made: Made, *, commanded: bool) -> None:
    (problem,) = inspect_file(path).problems
    assert "\n" not in problem
    assert re.search(made.says, problem)
    with pytest.raises(BadInput) as raised:
        open_event_file(path)
    assert str(raised.value) == problem
    if commanded and made.says.endswith("`.*`"):
        there = set(path.parent.iterdir())
        run(re.findall(r"`(.*?)`(?:[.,]|$)", problem)[0])
        (new,) = set(path.parent.iterdir()) - there
        check = check_features if inspect_file(new).kind == "features" else check_events
        check(new, made, Conventions())


def run(command: str) -> None:
    """Run a command that was told: a program of Python in this process, since there are many."""
    words = shlex.split(command)
    if words[:2] == ["python", "-c"]:
        namespace: dict[str, Any] = {}
        exec(words[2], namespace)  # noqa: S102
        namespace.clear()  # which closes the file
    elif shutil.which(words[0]):
        subprocess.run(command, shell=True, check=True)  # noqa: S602  what is there to be pasted
    else:
        pytest.skip(f"without {words[0]}")
