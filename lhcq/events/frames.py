"""pandas' "fixed" frames as they stand in HDF5: which columns there are, and where each one lies.

pandas keeps columns of one type together as a block: `block0_values` (n_rows, n_columns), whose names are
`block0_items`; `axis0` has the names of all columns in their order. The blocks come in no order that means anything,
and a column's place in its block says nothing of its place in the frame.
Source: pandas' own writer (`pandas.io.pytables.BlockManagerFixed`), 3.1.
"""

import math
import pickletools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from lhcq.errors import BadInput
from lhcq.events.arrays import is_of_numpy
from lhcq.events.storage import check_storage, own_node

MOST_COLUMNS = 10_000
_LONGEST_NAME = 256
"""Bytes of a column's name."""
_DEEPEST = 3
"""Groups in groups that are searched for a frame: a key such as `data/qcd/events`."""
_CONSTANTS = ("INT", "BININT", "BININT1", "BININT2", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE")
_OF_A_LIST = ("MARK", "APPEND", "APPENDS", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT")
"""What else stands in a pickled list of constants."""
_VALUES = re.compile(r"block(\d+)_values")


class Column(NamedTuple):
    """One column of a frame; a tuple, since a file has thousands and each task opens it."""

    name: str | None
    """None where its block has no names, as in a table that pandas did not write, or one of MultiIndex columns."""
    table: str
    """The HDF5 data set that it lies in."""
    position: int
    """Its place in there."""
    dtype: str
    """`object` for text and other Python objects, whose values are pickled and never read."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame that was found and looked at; no value was read."""

    name: str
    """Of its group."""
    n_rows: int
    columns: tuple[Column, ...]
    """In the order of the frame where that is known; else by block."""


class NoFrame(BadInput):
    """The file holds no pandas frame."""


def find_frame(file: h5py.File, path: Path) -> Frame:
    """The one frame in an open file, or the one called `df`; raises `BadInput` where there is none or no telling."""
    found = dict(_frames(file))
    if not found:
        if key := next((node.name for node in groups_of(file) if "table" in node), None):
            raise BadInput(
                f"{path}: in pandas' table format. Save it again with to_hdf(..., format='fixed'): `python -c \""
                f"import pandas as pd; pd.read_hdf({str(path)!r}, {key!r}).to_hdf('events.h5', key='df')\"`."
            )
        if is_of_numpy(file):
            raise NoFrame(f"{path}: arrays of numpy, none of which is a table of particles.")
        raise NoFrame(f"{path}: no table df/block0_values, and no pandas table of another name, in it.")
    if len(found) > 1 and "/df" not in found:
        names = ", ".join(name.removeprefix("/") for name in found)
        one = next(iter(found))
        code = f"import h5py; h5py.File({str(path)!r}).copy({one!r}, h5py.File('events.h5', 'w'), 'df')"
        raise BadInput(
            f"{path}: several tables ({names}), none called df. Copy the one that counts into a file alone, such as "
            f"{one.removeprefix('/')}: `python -c {shlex.quote(code)}`."
        )
    return _describe(found.get("/df") or next(iter(found.values())), path)


def _frames(file: h5py.Group) -> Iterator[tuple[str, h5py.Group]]:
    for node in groups_of(file):
        if "axis0" in node or any(_VALUES.fullmatch(name) for name in node):
            yield node.name, node


def groups_of(group: h5py.Group, depth: int = 0) -> Iterator[h5py.Group]:
    """The groups in a group, and those in them, as deep as frames are looked for."""
    for name in group:
        node = own_node(group, name)
        if isinstance(node, h5py.Group):
            yield node
            if depth + 1 < _DEEPEST:
                yield from groups_of(node, depth + 1)


def _describe(group: h5py.Group, path: Path) -> Frame:
    numbers = sorted(int(match[1]) for name in group if (match := _VALUES.fullmatch(name)))
    blocks = [_describe_block(group, number, path) for number in numbers]
    lengths = {rows for rows, _ in blocks if rows is not None}
    if not lengths or lengths == {0}:
        raise BadInput(f"{path}: holds no events.")
    if len(lengths) > 1:
        raise BadInput(f"{path}: its columns are not equally long. Make or download it again.")
    columns = [column for _, block in blocks for column in block]
    return Frame(name=group.name, n_rows=lengths.pop(), columns=tuple(_ordered(group, columns, path)))


def _describe_block(group: h5py.Group, number: int, path: Path) -> tuple[int | None, list[Column]]:
    """The rows and the columns of a block; None for rows that cannot be counted, those of Python objects."""
    name = f"{group.name.removeprefix('/')}/block{number}_values"
    values, items = own_node(group, f"block{number}_values"), own_node(group, f"block{number}_items")
    if not isinstance(values, h5py.Dataset):
        raise BadInput(f"{path}: {name} is no table of numbers. It is not in the LHC Olympics layout.")
    if "shape" in values.attrs:  # how PyTables stores what has no rows: a 1, and the shape that it stands for
        return 0, []
    if values.ndim == 2 and values.shape[1] > MOST_COLUMNS:
        raise BadInput(f"{path}: {values.shape[1]:,} columns, far more than an event file has.")
    check_storage(path, values)
    names = _names(items, path)
    if names is None and items is not None:
        raise BadInput(f"{path}: {name} has no plain column names. Save it again with names as strings.")
    if values.dtype.kind == "O":
        return None, [
            Column(name=name, table=values.name, position=place, dtype="object")
            for place, name in enumerate(names or [])
        ]
    if values.ndim != 2 or values.dtype.kind not in "fiub" or (names and values.shape[1] != len(names)):
        raise BadInput(f"{path}: {name} is {values.dtype} of shape {values.shape}, no table of numbers.")
    table, dtype = values.name, values.dtype.name  # HDF5 and numpy spell them out anew each time
    return values.shape[0], [
        Column(name=names[place] if names else None, table=table, position=place, dtype=dtype)
        for place in range(values.shape[1])
    ]


def _names(items: Any, path: Path) -> list[str] | None:
    """The names in an index; None where they are anything but numbers and words."""
    if not isinstance(items, h5py.Dataset) or items.ndim != 1 or len(items) > MOST_COLUMNS:
        return None
    if h5py.check_vlen_dtype(items.dtype) == np.uint8 and len(items) == 1:
        return _read_pickled(items[0].tobytes())
    if items.dtype.kind not in "iufS" or items.dtype.itemsize > _LONGEST_NAME:
        return None
    check_storage(path, items)
    found = items[:].tolist()
    return [str(item) for item in found] if items.dtype.kind in "iu" else [_to_name(item) for item in found]


def _read_pickled(data: bytes) -> list[str] | None:
    """The names in a pickled index, which is how numbers and words together are stored; None where it is another.

    A pickle is a program. It is disassembled and never run: what is wanted is the one list of constants in it.
    """
    names: list[str] | None = None
    try:
        for operation, value, _ in pickletools.genops(data):
            if operation.name == "EMPTY_LIST" and names is None:
                names = []
            elif names is not None and operation.name in _CONSTANTS:
                names.append(str(value))
            elif names is not None and operation.name not in _OF_A_LIST:
                return names if operation.name == "TUPLE" and len(names) <= MOST_COLUMNS else None
    except Exception:  # whatever the disassembler makes of bytes that are no pickle
        return None
    return None


def _to_name(item: bytes | float) -> str:
    if isinstance(item, bytes):
        return item.decode("utf-8", errors="replace")
    return str(int(item)) if math.isfinite(item) and item == int(item) else str(item)


def _ordered(group: h5py.Group, columns: list[Column], path: Path) -> list[Column]:
    """The columns in the order of `axis0`, where that and all of them have names."""
    names = [column.name for column in columns if column.name is not None]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput(f"{path}: has two columns of one name ({twice}).")
    unnamed = len({column.table for column in columns if column.name is None})
    if unnamed > 1:
        raise BadInput(
            f"{path}: keeps its columns in several blocks without names, so which is which cannot be told. "
            "Save it again with df.columns = range(df.shape[1])."
        )
    order = _names(own_node(group, "axis0"), path)
    if order is None or unnamed:
        return columns
    by_name = {column.name: column for column in columns}
    lost = [name for name in order if name not in by_name]
    if lost:
        raise BadInput(
            f"{path}: column {lost[0]!r} is in none of its blocks: it was not written to its end. "
            "Save or download it again."
        )
    if len(order) != len(columns):
        raise BadInput(
            f"{path}: names {len(order)} columns and has {len(columns)}. Save or download it again."
        )
    return [by_name[name] for name in order]
