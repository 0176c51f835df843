"""Plain HDF5 files, without pandas: one data set of particles, and perhaps one of labels beside it.

Particles are (n, M, 3) of pt, eta, phi with M up to 700, or as many columns (n, 3 M), with the label for a last one
(n, 3 M + 1). Labels are (n,) under a name that says so. Nothing in such a file says which number is which, so the
checks of the values (a negative pt, an eta out of reach) are what tells another order.
"""

from collections.abc import Iterator
from pathlib import Path

import h5py

from lhcq.errors import BadInput
from lhcq.events.columns import N_PARTICLES, Arrangement
from lhcq.events.frames import MOST_COLUMNS, Column, groups_of
from lhcq.events.names import LABEL, NEAR_LABELS
from lhcq.events.storage import check_storage, own_node

_SHOWN = 4
_LEAST_WIDTH = 30
"""Columns; a table of fewer is something else, such as features."""


def find_plain(file: h5py.File, path: Path) -> Arrangement | None:
    """The particles and labels in an open file that holds no pandas frame; None where there are no such data sets.

    Raises `BadInput` where there are several of either, or more particles than 700.
    """
    tables = list(_datasets(file))
    particles = [table for table in tables if _is_particles(table)]
    if not particles:
        return None
    if len(particles) > 1:
        names = ", ".join(table.name for table in particles[:_SHOWN])
        raise BadInput(
            f"{path}: several tables of particles ({names}). Copy the one that counts into a file alone."
        )
    (table,) = particles
    check_storage(path, table)
    if len(table) == 0:
        raise BadInput(f"{path}: holds no events.")
    width = table.shape[1] if table.ndim == 2 else 3 * table.shape[1]
    n_particles, last_is_label = divmod(width, 3)
    if n_particles > N_PARTICLES:
        raise BadInput(
            f"{path}: {table.name} has {n_particles} particles an event, and {N_PARTICLES} are read. Keep the "
            f"hardest: x = np.take_along_axis(x, np.argsort(-x[:, :, :1], axis=1)[:, :{N_PARTICLES}], axis=1)."
        )
    columns = [_column(table, place) for place in range(width)]
    beside = [one for one in tables if one.ndim == 1 and len(one) == len(table) and one.dtype.kind in "fiub"]
    labels = [one for one in beside if _base(one).lower() in (LABEL, *NEAR_LABELS)]
    if len(labels) + last_is_label > 1:
        raise BadInput(f"{path}: several labels ({', '.join(_base(one) for one in labels)}). Keep one.")
    for one in labels:
        check_storage(path, one)
    label = columns[-1] if last_is_label else _column(labels[0], 0) if labels else None
    return Arrangement(
        particles=tuple(columns[: 3 * n_particles]),
        label=label,
        ignored=tuple(_base(one) for one in tables if one not in (table, *labels)),
    )


def describe_contents(file: h5py.File) -> str:
    """What data sets an open file holds, for people."""
    found = [f"{table.name.removeprefix('/')} {table.dtype} {table.shape}" for table in _datasets(file)]
    return ", ".join([*found[:_SHOWN], *(["..."] if len(found) > _SHOWN else [])]) or "nothing"


def _datasets(file: h5py.File) -> Iterator[h5py.Dataset]:
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


def _column(table: h5py.Dataset, place: int) -> Column:
    return Column(name=str(place), table=table.name, position=place, dtype=table.dtype.name)


def _base(table: h5py.Dataset) -> str:
    return str(table.name).rsplit("/", 1)[-1]
