"""Features in plain HDF5 and in numpy's files, where no frame says which column is which.

One data set of as many columns as a features file has (n, 14), the label for a last one (n, 15) or beside it under a
name that says so, in the order of the released files; a data set (n,) for each column, under its name; or what
CATHODE makes of such a file (`lhcq.events.reduced`). Nothing else in such a file says what a number is, so the checks
of the values (a negative mass, an energy in its place) are what tells another order.
"""

from pathlib import Path

import h5py

from lhcq.errors import BadInput
from lhcq.events.frames import Column, Frame
from lhcq.events.names import FEATURE_WIDTHS, LABEL, NEEDED, OF_JETS
from lhcq.events.plain import base_name, copy_alone, datasets_in, labels_among
from lhcq.events.reduced import REDUCED, REDUCED_WIDTHS
from lhcq.events.storage import check_storage

_BY_WIDTH = {
    **dict.fromkeys(FEATURE_WIDTHS, (*OF_JETS, LABEL)),
    **{width: (*REDUCED[: width - 1], LABEL) for width in REDUCED_WIDTHS},
}


def find_bare(file: h5py.File, path: Path) -> Frame | None:
    """The features in an open file that holds no pandas frame; None where there is no such data set.

    Raises `BadInput` where there are several, and where labels stand there twice or cannot be read.
    """
    tables = list(datasets_in(file))
    found = [one for one in tables if one.ndim == 2 and one.dtype.kind == "f" and one.shape[1] in _BY_WIDTH]
    if not found:
        return _by_column(file, tables, path)
    if len(found) > 1:
        listed = ", ".join(str(one.name) for one in found)
        raise BadInput(f"{path}: several tables of features ({listed}). {copy_alone(path, found[0])}")
    (table,) = found
    check_storage(path, table)
    width = table.shape[1]
    names = _BY_WIDTH[width][:width]
    others = [one for one in tables if one is not table]
    labels = labels_among(others, len(table), path, alone=LABEL not in names)
    columns = [Column(name, table.name, place, table.dtype.name) for place, name in enumerate(names)]
    columns += [Column(LABEL, one.name, 0, one.dtype.name) for one in labels]
    return _frame(file, len(table), columns, path)


def _by_column(file: h5py.File, tables: list[h5py.Dataset], path: Path) -> Frame | None:
    """Of a file with a data set for each column."""
    flat = {base_name(one): one for one in tables if one.ndim == 1 and one.dtype.kind in "fiub"}
    if not set(NEEDED) <= set(flat):
        return None
    for one in flat.values():
        check_storage(path, one)
    if len({one.shape for one in flat.values()}) > 1:
        raise BadInput(f"{path}: its columns are not equally long. Make or download it again.")
    columns = [Column(name, one.name, 0, one.dtype.name) for name, one in flat.items()]
    return _frame(file, len(flat[NEEDED[0]]), columns, path)


def _frame(file: h5py.File, rows: int, columns: list[Column], path: Path) -> Frame:
    if not rows:
        raise BadInput(f"{path}: holds no events.")
    return Frame(name=file.name, n_rows=rows, columns=tuple(columns))
