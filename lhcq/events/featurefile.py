"""The `*.features.h5` files: a pandas "fixed" HDF5 table with the two leading jets of one event a row.

Columns pxj1 pyj1 pzj1 mj1 tau1j1 tau2j1 tau3j1, the same for j2, all in GeV, then the label (1 is signal), which not
all files have; the names may also be the numbers from 0. An event with one jet has zeros for the other. Arrays of the
same columns, without a frame, are read too (`lhcq.events.bare_features`).
Source: the released files, Zenodo record 6466204.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
from numpy.typing import NDArray

from lhcq.config import AS_RELEASED, Axes, Conventions
from lhcq.errors import BadInput
from lhcq.events.bare_features import find_bare
from lhcq.events.columns import (
    BOTH_WIDTHS,
    OF_A_PARTICLE,
    UNLABELLED_WIDTH,
    refuse_near_label,
    refuse_objects,
)
from lhcq.events.faults import ETA_MAX, WRONG_LABEL, Fault
from lhcq.events.frames import Column, Frame, NoFrame, find_frame
from lhcq.events.layout import map_labels
from lhcq.events.names import LABEL, MOMENTA, NEEDED, OF_JETS, TAUS
from lhcq.events.reduced import REDUCED, check_reduced, to_gev
from lhcq.events.storage import opened, reading, refuse_no_file
from lhcq.records.events import AXES_KEY

Floats = NDArray[np.float64]

_REDUCED = ((*REDUCED[:-1], LABEL), (*REDUCED, LABEL))
_FEWEST_TO_TELL = 10
"""Jets by which quantities are told apart: of the few in the last rows of a file, all may be slow and heavy."""
_BETA_ONE = "_1"
"""In the published files with more N-subjettiness, `tau1j1_1` is that of beta = 1, `_2` and `_5` of 2 and 0.5."""
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
    conventions: Conventions = AS_RELEASED
    """What its labels mean."""
    axes: str | None = None
    """About which axes its tau_N are, where it says so: lhcq's own exports do."""

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


class SpoiltFeatures(BadInput):
    """The file has the jets of a features file, and something that keeps it from being read."""


def open_feature_file(path: Path, conventions: Conventions = AS_RELEASED) -> FeatureFile:
    """Check that `path` is a features file and say which columns it has.

    Opens it, reads no event and closes it. Raises `BadInput` for anything else, in one line.
    """
    refuse_no_file(path)
    with reading(path) as file:
        frame = _find(file, path)
        said = file[frame.name].attrs.get(AXES_KEY)
    named = _named(frame, path)
    columns = _check_columns(named, path)
    ignored = [name for name in named if name not in columns]
    try:
        refuse_near_label(named.get(LABEL), [named[name] for name in ignored], path)
        refuse_objects([named[name] for name in columns], path)
    except BadInput as error:
        raise SpoiltFeatures(str(error)) from error
    return FeatureFile(
        path=path,
        n_events=frame.n_rows,
        columns=columns,
        ignored=tuple(ignored),
        places={name: (named[name].table, named[name].position) for name in columns},
        conventions=conventions,
        axes=_axes(said),
    )


def _find(file: h5py.File, path: Path) -> Frame:
    try:
        return find_frame(file, path)
    except NoFrame:
        if (bare := find_bare(file, path)) is None:
            raise
        return bare


def _axes(said: object) -> str | None:
    """What an attribute says, if that is a kind of axes."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return str(text) if text in get_args(Axes) else None


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


def _named(frame: Frame, path: Path) -> dict[str, Column]:
    """The columns by the names of the released files, in the frame's order; a number is the column at that place."""
    width = len(frame.columns)
    both = width in BOTH_WIDTHS
    if width >= UNLABELLED_WIDTH and not both:
        raise BadInput(f"{path}: an event file ({width} columns). Use `lhcq cluster`.")
    named: dict[str, Column] = {}
    for column in frame.columns:
        if column.name is None:
            raise BadInput(
                f"{path}: {column.table.removeprefix('/')} has no plain column names. Save it again with names as "
                "strings."
            )
        name = _to_name(column.name, first=UNLABELLED_WIDTH if both else 0)
        if name in named:
            raise BadInput(f"{path}: has two columns of one name ({name}).")
        if name:
            named[name] = column
    return named


def _to_name(text: str, *, first: int) -> str | None:
    """A column's name in the released files, whose numbers begin at `first`; None for one of the particles'."""
    numbered = (*OF_JETS, LABEL)
    if OF_A_PARTICLE.fullmatch(text):
        return None
    if text.isdecimal():
        number = int(text) - first
        return None if number < 0 else numbered[number] if number < len(numbered) else text
    beta_one = text.removesuffix(_BETA_ONE)
    return beta_one if beta_one in OF_JETS else text


def _check_columns(names: Collection[str], path: Path) -> tuple[str, ...]:
    if any(name.isdecimal() for name in names):
        raise BadInput(
            f"{path}: {len(names)} columns with numbers for names, not 14 or 15. It is not a features file."
        )
    if tuple(names) in _REDUCED:
        return tuple(names)
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise BadInput(
            f"{path}: without {', '.join(missing)}; its columns are {', '.join(names)}. It is not a features file."
        )
    # A tau of one jet alone is of no use.
    taus = [name for name in TAUS if f"{name}j1" in names and f"{name}j2" in names]
    wanted = {*NEEDED, *(f"{name}j{rank}" for name in taus for rank in (1, 2)), LABEL}
    return tuple(name for name in (*OF_JETS, LABEL) if name in wanted and name in names)


def read_columns(file: FeatureFile, handle: h5py.File, start: int, stop: int) -> dict[str, Floats]:
    """`file.columns` of the rows [start, stop) by the file's `conventions`, unchecked, (stop - start,) each."""
    try:
        blocks = {name: handle[name][start:stop] for name in {place for place, _ in file.places.values()}}
    except (OSError, KeyError) as error:
        raise BadInput(
            f"{file.path}: rows {start} to {stop - 1} cannot be read, the file is damaged there. Download it again."
        ) from error
    if any(len(block) != stop - start for block in blocks.values()):
        raise BadInput(f"{file.path}: changed while it was being read. Start again.")
    columns = {
        name: np.ascontiguousarray(_flat(blocks[place])[:, position], dtype=np.float64)
        for name, (place, position) in file.places.items()
    }
    if LABEL in columns:
        columns[LABEL] = map_labels(columns[LABEL], file.conventions)
    return to_gev(columns)


def _flat(block: NDArray[np.generic]) -> NDArray[np.generic]:
    """The rows of a data set (n,) or (n, width) as (n, width)."""
    return block.reshape(len(block), -1)


def find_wrong_labels(labels: Floats, *, first_row: int) -> list[Fault]:
    """The labels (n,), of the rows from `first_row` on, that are neither 0 nor 1."""
    wrong = ~np.isin(labels, (0.0, 1.0))
    if not wrong.any():
        return []
    row = int(np.argmax(wrong))
    return [
        Fault(
            kind=WRONG_LABEL,
            row=first_row + row,
            place=LABEL,
            value=float(labels[row]),
            n_rows=int(wrong.sum()),
        )
    ]


def _check_values(values: dict[str, Floats], path: Path, first_row: int) -> None:
    for name, column in values.items():
        if name == LABEL:
            for fault in find_wrong_labels(column, first_row=first_row):
                raise BadInput(f"{path}: {fault.describe()}{fault.remedy}")
        else:
            _refuse(~np.isfinite(column), "not finite", name, column, path, first_row)
    check_jets(values, path, first_row)


def check_jets(values: dict[str, Floats], path: Path, first_row: int) -> None:
    """Raise `BadInput` where finite values, of the rows from `first_row` on, are none that jets have."""
    if "mjj" in values:
        check_reduced(values, path, first_row)
    for name, column in values.items():
        _refuse(np.abs(column) > LARGEST, f"beyond {LARGEST:g} GeV", name, column, path, first_row)
        if name.startswith("tau"):
            _refuse(column < 0, "negative", name, column, path, first_row)
    for rank in ("j1", "j2") if OF_JETS[0] in values else ():
        px, py, pz, m = (values[f"{name}{rank}"] for name in MOMENTA)
        momentum = np.sqrt(px * px + py * py + pz * pz)
        _refuse(m < -ROUNDED * momentum, "negative", f"m{rank}", m, path, first_row)
        along = (px == 0) & (py == 0) & (pz != 0)
        _refuse(along, "along the beam, without pt", f"pz{rank}", pz, path, first_row)
        _refuse_other_quantities(rank, px, py, pz, m, path, first_row)


def _refuse_other_quantities(
    rank: str, px: Floats, py: Floats, pz: Floats, m: Floats, path: Path, first_row: int
) -> None:
    """Raise `BadInput` where no jet of a block has what momenta have, whatever their columns are called."""
    there = (px != 0) | (py != 0)
    if np.count_nonzero(there) < _FEWEST_TO_TELL:
        return
    said = f"{path}: rows {first_row} to {first_row + len(px) - 1}, {rank}:"
    if ((px >= 0) & (np.abs(py) <= ETA_MAX) & (np.abs(pz) <= 2 * math.pi))[there].all():
        raise BadInput(
            f"{said} its first three columns are like pt, eta and phi, not px, py and pz. Make momenta of them: "
            "px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)."
        )
    if (m * m >= px * px + py * py + pz * pz)[there].all():
        raise BadInput(
            f"{said} its fourth column is never below the momentum, like an energy, and is read as a mass. Make one "
            "of it: m = np.sqrt(np.maximum(e * e - px * px - py * py - pz * pz, 0))."
        )


def _refuse(
    wrong: NDArray[np.bool_], what: str, name: str, column: Floats, path: Path, first_row: int
) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise BadInput(f"{path}: row {first_row + row}, {name}: {what} ({column[row]:g}).")
