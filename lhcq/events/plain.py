"""Plain HDF5 files, without pandas: one data set of particles, and perhaps one of labels beside it.

Particles are (n, M, 3) of pt, eta, phi with M up to 700, or as many columns (n, 3 M), with the label for a last one
(n, 3 M + 1); or three data sets (n, M) whose names end in pt, eta and phi. Labels are (n,) or (n, 1) under a name
that says so. Nothing else in such a file says which number is which, so the checks of the values (a negative pt, an
eta out of reach) are what tells another order.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

import h5py

from lhcq.errors import BadInput
from lhcq.events.arrays import is_of_numpy
from lhcq.events.columns import N_PARTICLES, Arrangement
from lhcq.events.faults import QUANTITIES
from lhcq.events.frames import MOST_COLUMNS, Column, groups_of
from lhcq.events.names import means_label
from lhcq.events.storage import check_storage, own_node

_SHOWN = 4
_MOST_CLASSES = 10
"""Columns that say for each class whether an event is of it; what is wider is no label, as rapidities `y`."""
_LEAST_WIDTH = 30
"""Columns; fewer are something else, such as features or a few jets."""


def find_plain(file: h5py.File, path: Path) -> Arrangement | None:
    """The particles and labels in an open file that holds no pandas frame; None where there are no such data sets.

    Raises `BadInput` where there are several of either, or more particles than 700.
    """
    tables = list(datasets_in(file))
    particles = [table for table in tables if _is_particles(table)]
    apart = _apart(tables)
    if not particles and not apart:
        return None
    if len([one for one in particles if one not in apart]) + bool(apart) > 1:
        names = ", ".join(table.name for table in particles[:_SHOWN])
        raise BadInput(f"{path}: several tables of particles ({names}). {copy_alone(path, particles[0])}")
    used = apart or particles
    for table in used:
        check_storage(path, table)
    table = used[0]
    if len(table) == 0:
        raise BadInput(f"{path}: holds no events.")
    width = 3 * table.shape[1] if apart or table.ndim == 3 else table.shape[1]
    n_particles, last_is_label = divmod(width, 3)
    if n_particles > N_PARTICLES:
        raise BadInput(
            f"{path}: {table.name} has {n_particles} particles an event, and {N_PARTICLES} are read. Keep the "
            f"hardest: x = np.take_along_axis(x, np.argsort(-x[:, :, :1], axis=1)[:, :{N_PARTICLES}], axis=1)."
        )
    columns = [_column(used[place % len(used)], place // len(used)) for place in range(width)]
    labels = labels_among(
        [one for one in tables if one not in used], len(table), path, alone=not last_is_label
    )
    return Arrangement(
        particles=tuple(columns[: 3 * n_particles]),
        label=columns[-1] if last_is_label else _column(labels[0], 0) if labels else None,
        ignored=tuple(base_name(one) for one in tables if one not in (*used, *labels)),
    )


def copy_alone(path: Path, table: h5py.Dataset) -> str:
    """How one of several tables comes into a file alone, with the labels beside it where it is in a group."""
    group, name = table.parent.name, table.name
    if is_of_numpy(table):
        name = name.removeprefix("/")
        code = f"import numpy as np; np.save('events.npy', np.load({str(path)!r})[{name!r}])"
    else:
        name = name if group == "/" else group
        code = f"import h5py; h5py.File({str(path)!r}).copy({name!r}, h5py.File('events.h5', 'w'))"
    return (
        f"Copy the one that counts into a file alone, such as {name.removeprefix('/')}: "
        f"`python -c {shlex.quote(code)}`."
    )


def describe_contents(file: h5py.File) -> str:
    """What data sets an open file holds, for people."""
    found = [
        f"{table.name.removeprefix('/')} {'records' if table.dtype.names else table.dtype} {table.shape}"
        for table in datasets_in(file)
    ]
    return (
        ", ".join([*found[:_SHOWN], *(["..."] if len(found) > _SHOWN else [])]) or "no data set near its top"
    )


def records_in(file: h5py.File) -> tuple[str, tuple[str, ...]] | None:
    """The data set in an open file whose rows are records, and the names of their fields; None unless it is alone."""
    (*others, table) = [None, *datasets_in(file)]
    if table is None or len(others) > 1 or not table.dtype.names or table.ndim != 1:
        return None
    return str(table.name), table.dtype.names


def datasets_in(file: h5py.File) -> Iterator[h5py.Dataset]:
    """The data sets in an open file, as deep as frames are looked for."""
    for group in (file, *groups_of(file)):
        for name in group:
            node = own_node(group, name)
            if isinstance(node, h5py.Dataset):
                yield node


def _is_particles(table: h5py.Dataset) -> bool:
    if table.dtype.kind != "f":
        return False
    if table.ndim == 3:
        return bool(table.shape[2] == 3 and 0 < table.shape[1] <= MOST_COLUMNS)
    return bool(table.ndim == 2 and _LEAST_WIDTH <= table.shape[1] <= MOST_COLUMNS and table.shape[1] % 3 < 2)


def _apart(tables: list[h5py.Dataset]) -> list[h5py.Dataset]:
    """The data sets (n, M) of pt, eta and phi, in this order, where each is one of its own; else none."""
    flat = [table for table in tables if table.ndim == 2 and table.dtype.kind == "f"]
    found = [
        [table for table in flat if base_name(table).lower().endswith(quantity)] for quantity in QUANTITIES
    ]
    if any(len(one) != 1 for one in found) or len({one.shape for (one,) in found}) > 1:
        return []
    (first,) = found[0]
    return [one for (one,) in found] if _LEAST_WIDTH <= 3 * first.shape[1] <= MOST_COLUMNS else []


def labels_among(tables: list[h5py.Dataset], rows: int, path: Path, *, alone: bool) -> list[h5py.Dataset]:
    """The one data set of labels, or none; `alone`: the table of the events has none itself.

    Raises `BadInput` where there are several, and where the only one that is called so cannot be read as labels.
    """
    called = [one for one in tables if means_label(base_name(one))]
    labels = [one for one in called if _is_label(one, rows)]
    if len(labels) > alone:
        names = [*([] if alone else ["the last column"]), *(base_name(one) for one in labels)]
        raise BadInput(f"{path}: several labels ({', '.join(names)}). Keep one.")
    for one in called if alone and not labels else ():
        if one.ndim == 1 or (one.ndim == 2 and one.shape[1] <= _MOST_CLASSES):
            raise BadInput(
                f"{path}: {one.name.removeprefix('/')}, {one.dtype} {one.shape}, is called as labels are and holds "
                f"none that can be read. Write a number for each of the {rows} events, 1 for signal and 0 for "
                "background, or leave it out."
            )
    for one in labels:
        check_storage(path, one)
    return labels


def _is_label(table: h5py.Dataset, rows: int) -> bool:
    return table.shape in ((rows,), (rows, 1)) and table.dtype.kind in "fiub"


def _column(table: h5py.Dataset, place: int) -> Column:
    return Column(name=str(place), table=table.name, position=place, dtype=table.dtype.name)


def base_name(table: h5py.Dataset) -> str:
    """The name of a data set without those of its groups."""
    return str(table.name).rsplit("/", 1)[-1]
