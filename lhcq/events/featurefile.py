"""The `*.features.h5` files: a pandas "fixed" HDF5 table with the two leading jets of one event a row.

Columns pxj1 pyj1 pzj1 mj1 tau1j1 tau2j1 tau3j1, the same for j2, all in GeV, then the label (1 is signal), which not
all files have; the names may also be the numbers from 0. An event with one jet has zeros for the other. pandas keeps
columns of one type together as a block: `block0_values` (n_rows, n_columns), whose names are `block0_items`.
Source: the released files, Zenodo record 6466204, and pandas' own writer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from lhcq.errors import BadInput
from lhcq.events.layout import UNLABELLED_WIDTH, check_storage, opened, own_node, reading

Floats = NDArray[np.float64]

_MOMENTA = ("px", "py", "pz", "m")
_TAUS = ("tau1", "tau2", "tau3")
LABEL = "label"
OF_JETS = tuple(f"{name}j{rank}" for rank in (1, 2) for name in (*_MOMENTA, *_TAUS))
NEEDED = tuple(f"{name}j{rank}" for rank in (1, 2) for name in _MOMENTA)
"""Without these there is no jet; N-subjettiness and the label may be absent."""

_LONGEST_NAME = 256
"""Bytes of a column's name."""
LARGEST = 1e9  # GeV, far beyond any collider, and far below where squares overflow
ROUNDED = 1e-3
"""The largest -m/|p| that rounding makes of a light jet's m^2 in float32; FastJet gives it as a negative mass."""


@dataclass(frozen=True, kw_only=True)
class FeatureFile:
    """A features file that was opened once and found to have the layout; its values are checked when read."""

    path: Path
    n_events: int
    columns: tuple[str, ...]
    """Those that are read, in the order of the released files."""
    ignored: tuple[str, ...]
    """Those that are not, for people."""
    places: dict[str, tuple[str, int]]
    """Of each column: the HDF5 data set, and the position in it."""

    @property
    def labelled(self) -> bool:
        """Whether the file says which events are signal."""
        return LABEL in self.columns


@dataclass(frozen=True, kw_only=True)
class FeatureBlock:
    """Consecutive events of a features file."""

    rows: NDArray[np.int64]
    """(n,): the row of each event in its file."""
    values: dict[str, Floats]
    """(n,) each: the columns of the jets, GeV."""
    labels: NDArray[np.int8] | None
    """(n,): 1 signal, 0 background; None where the file does not say."""


def open_feature_file(path: Path) -> FeatureFile:
    """Check that `path` is a features file and say which columns it has.

    Opens it, reads no event and closes it. Raises `BadInput` for anything else, in one line.
    """
    if not path.is_file():
        what = "a directory or a device, not an HDF5 file" if path.exists() else "there is no such file"
        raise BadInput(f"{path}: {what}.")
    with reading(path) as file:
        frame = _find_frame(file, path)
        blocks = _find_blocks(frame, path)
        names = [name for items, _ in blocks for name in items]
        places = {
            name: (values.name, position) for items, values in blocks for position, name in enumerate(items)
        }
        n_events = blocks[0][1].shape[0]
    columns = _check_columns(names, path)
    return FeatureFile(
        path=path,
        n_events=n_events,
        columns=columns,
        ignored=tuple(name for name in names if name not in columns),
        places={name: places[name] for name in columns},
    )


def read_features(file: FeatureFile, *, rows: int) -> Iterator[FeatureBlock]:
    """All events of the file in order, in blocks of `rows`.

    Raises `BadInput` naming the row and the column where a value is not finite or none that a jet has, or a label is
    neither 0 nor 1, and naming the rows where the storage is damaged.
    """
    with opened(file.path) as handle:
        for start in range(0, file.n_events, rows):
            stop = min(start + rows, file.n_events)
            values = read_columns(file, handle, start, stop)
            _check_values(values, file.path, start)
            labels = values.pop(LABEL, None)
            yield FeatureBlock(
                rows=np.arange(start, stop, dtype=np.int64),
                values=values,
                labels=None if labels is None else labels.astype(np.int8),
            )


def _find_frame(file: h5py.File, path: Path) -> h5py.Group:
    nodes = {name: own_node(file, name) for name in file}
    frames = [name for name, node in nodes.items() if isinstance(node, h5py.Group) and "axis0" in node]
    if "df" in frames:
        return file["df"]
    if len(frames) == 1:
        return file[frames[0]]
    if any(isinstance(node, h5py.Group) and "table" in node for node in nodes.values()):
        raise BadInput(f"{path}: in pandas' table format. Save it again with to_hdf(..., format='fixed').")
    found = f"several tables ({', '.join(frames)}), none called df" if frames else "no pandas table in it"
    raise BadInput(f"{path}: {found}. It is not a features file.")


def _find_blocks(frame: h5py.Group, path: Path) -> list[tuple[list[str], h5py.Dataset]]:
    """The names and the values of each block of columns."""
    blocks: list[tuple[list[str], h5py.Dataset]] = []
    while (name := f"block{len(blocks)}_values") in frame:
        values, items = own_node(frame, name), own_node(frame, f"block{len(blocks)}_items")
        # An index of Python objects is pickled, and a pickle is a program.
        if (
            not isinstance(items, h5py.Dataset)
            or items.dtype.kind not in "iuS"
            or items.dtype.itemsize > _LONGEST_NAME
        ):
            raise BadInput(f"{path}: {name} has no plain column names. Save it again with names as strings.")
        if not isinstance(values, h5py.Dataset):
            raise BadInput(f"{path}: {name} is no table of numbers.")
        if values.ndim != 2 or values.shape[1] != len(items) or values.dtype.kind not in "fiub":
            raise BadInput(f"{path}: {name} is {values.dtype} of shape {values.shape}, no table of numbers.")
        if len(items) >= UNLABELLED_WIDTH:
            raise BadInput(f"{path}: an event file ({len(items)} columns). Use `lhcq cluster`.")
        check_storage(path, values)
        check_storage(path, items)
        blocks.append(([_to_name(item) for item in items[:].tolist()], values))
    if not blocks or blocks[0][1].shape[0] == 0:
        raise BadInput(f"{path}: holds no events.")
    if len({values.shape[0] for _, values in blocks}) > 1:
        raise BadInput(f"{path}: its columns are not equally long. Make or download it again.")
    return blocks


def _to_name(item: bytes | int) -> str:
    """A column's name; a number is the column at that place."""
    text = item.decode("utf-8", errors="replace") if isinstance(item, bytes) else str(item)
    numbered = (*OF_JETS, LABEL)
    return numbered[int(text)] if text.isdecimal() and int(text) < len(numbered) else text


def _check_columns(names: list[str], path: Path) -> tuple[str, ...]:
    if len(names) >= UNLABELLED_WIDTH:
        raise BadInput(f"{path}: an event file ({len(names)} columns). Use `lhcq cluster`.")
    if any(name.isdecimal() for name in names):
        raise BadInput(
            f"{path}: {len(names)} columns with numbers for names, not 14 or 15. It is not a features file."
        )
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise BadInput(
            f"{path}: without {', '.join(missing)}; its columns are {', '.join(names)}. It is not a features file."
        )
    if len(set(names)) < len(names):
        raise BadInput(f"{path}: has two columns of one name ({', '.join(names)}).")
    # A tau of one jet alone is of no use.
    taus = [name for name in _TAUS if f"{name}j1" in names and f"{name}j2" in names]
    wanted = {*NEEDED, *(f"{name}j{rank}" for name in taus for rank in (1, 2)), LABEL}
    return tuple(name for name in (*OF_JETS, LABEL) if name in wanted and name in names)


def read_columns(file: FeatureFile, handle: h5py.File, start: int, stop: int) -> dict[str, Floats]:
    """`file.columns` of the rows [start, stop) as they stand, unchecked, (stop - start,) each."""
    try:
        blocks = {name: handle[name][start:stop] for name in {place for place, _ in file.places.values()}}
    except (OSError, KeyError) as error:
        raise BadInput(
            f"{file.path}: rows {start} to {stop - 1} cannot be read, the file is damaged there. Download it again."
        ) from error
    if any(len(block) != stop - start for block in blocks.values()):
        raise BadInput(f"{file.path}: changed while it was being read. Start again.")
    return {
        name: np.ascontiguousarray(blocks[place][:, position], dtype=np.float64)
        for name, (place, position) in file.places.items()
    }


def _check_values(values: dict[str, Floats], path: Path, first_row: int) -> None:
    for name, column in values.items():
        if name == LABEL:
            _refuse(~np.isin(column, (0.0, 1.0)), "neither 0 nor 1", name, column, path, first_row)
            continue
        _refuse(~np.isfinite(column), "not finite", name, column, path, first_row)
        _refuse(np.abs(column) > LARGEST, f"beyond {LARGEST:g} GeV", name, column, path, first_row)
        if name.startswith("tau"):
            _refuse(column < 0, "negative", name, column, path, first_row)
    for rank in ("j1", "j2"):
        px, py, pz, m = (values[f"{name}{rank}"] for name in _MOMENTA)
        momentum = np.sqrt(px * px + py * py + pz * pz)
        _refuse(m < -ROUNDED * momentum, "negative", f"m{rank}", m, path, first_row)
        along = (px == 0) & (py == 0) & (pz != 0)
        _refuse(along, "along the beam, without pt", f"pz{rank}", pz, path, first_row)


def _refuse(
    wrong: NDArray[np.bool_], what: str, name: str, column: Floats, path: Path, first_row: int
) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise BadInput(f"{path}: row {first_row + row}, {name}: {what} ({column[row]:g}).")
