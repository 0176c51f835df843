"""HDF5 as a file of unknown origin: opened, looked at and judged before a value is read."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from lhcq.errors import BadInput
from lhcq.events.arrays import as_hdf5, is_of_numpy
from lhcq.events.foreign import describe_foreign
from lhcq.events.pytables import BLOSC

MOST_COMPRESSED = 5_000
"""Bytes of a table for one of its file. Blosc and deflate make at most 255 and 1,032 of one."""
LARGEST_STORAGE_CHUNK = 1 << 29
"""Bytes, unpacked."""
LZF = 32000
"""A filter that brings the process down where what it unpacks is damaged (benchmarks/results/fuzz.json)."""


def refuse_no_file(path: Path) -> None:
    """Raise `BadInput` unless `path` is a file with something in it."""
    if not path.exists():
        raise BadInput(f"{path}: there is no such file.")
    if not path.is_file():
        raise BadInput(f"{path}: a directory or a device, not an HDF5 file.")
    if path.stat().st_size == 0:
        raise BadInput(f"{path}: an empty file (0 bytes).")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """As `opened`, for a body that finds out what the file is: what makes no sense to HDF5 in it is `BadInput`."""
    try:
        with opened(path) as file:
            yield file
    except (
        OSError,
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        NotImplementedError,
    ) as error:
        raise BadInput(f"{path}: damaged, HDF5 cannot make sense of it ({first_line(error)}).") from error


def opened(path: Path) -> h5py.File:
    """Open for reading, without the lock that some shared filesystems refuse; numpy's arrays as if they were HDF5."""
    try:
        return h5py.File(path, "r", locking=False)
    except PermissionError as error:
        raise BadInput(f"{path}: cannot be read, permission denied.") from error
    except OSError as error:
        if "truncated" in str(error):
            raise BadInput(f"{path}: truncated, the end is missing. Download or copy it again.") from error
        if "signature not found" in str(error):
            if (arrays := as_hdf5(path)) is not None:
                return arrays
            found = describe_foreign(path).removesuffix(".")
            raise BadInput(f"{path}: not an HDF5 file{found}.") from error
        raise BadInput(f"{path}: HDF5 cannot open it ({first_line(error)}).") from error


def own_node(group: h5py.Group, name: str) -> Any:
    """What stands under `name` in the file itself, None where nothing does.

    A link is not followed: it may name another file, which the reader could read and who made this file could not.
    """
    for step in name.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(group.get(step, getlink=True), h5py.HardLink):
            return None
        group = group[step]
    return group


def check_storage(path: Path, values: h5py.Dataset) -> None:
    """Raise `BadInput` where a table lies in other files, is a bomb (few bytes for very many), packed by LZF or by a
    filter that is not here."""
    if is_of_numpy(values):
        return
    if values.external or values.is_virtual:
        raise BadInput(
            f"{path}: {values.name} takes its values from other files. Copy them into one (`h5repack`)."
        )
    storage = values.id.get_create_plist()
    for code, _, _, name in map(storage.get_filter, range(storage.get_nfilters())):
        if code == LZF:
            raise BadInput(
                f"{path}: {values.name} is packed by LZF, whose reader crashes on damaged files. Pack it otherwise "
                "(`h5repack -f GZIP=5`)."
            )
        if not h5py.h5z.filter_avail(code):
            packer = f"{code} ({name.decode(errors='replace')})"
            raise BadInput(
                f"{path}: {values.name} is packed by the HDF5 filter {packer}, which is not here. Pack it otherwise "
                "where it was made (`h5repack -f GZIP=5`)."
            )
    size = values.dtype.itemsize * math.prod(values.shape)
    if size > MOST_COMPRESSED * path.stat().st_size:
        raise BadInput(
            f"{path}: says that it holds {size:,} bytes of numbers and has {path.stat().st_size:,}, which no event "
            "file does. Download it again."
        )
    if values.chunks and values.dtype.itemsize * math.prod(values.chunks) > LARGEST_STORAGE_CHUNK:
        raise BadInput(
            f"{path}: one storage chunk of {values.name} is above {LARGEST_STORAGE_CHUNK >> 20} MiB, and can only be "
            "read whole. Write it again in smaller ones (`h5repack -l CHUNK=64x2101`)."
        )


def describe_filter(values: h5py.Dataset) -> str:
    """How the storage chunks of a table are compressed, for people."""
    if is_of_numpy(values):
        return "none, an array of numpy"
    plist = values.id.get_create_plist()
    names = []
    for index in range(plist.get_nfilters()):
        code, _, options, name = plist.get_filter(index)
        if code == BLOSC and len(options) >= 6:
            names.append(f"blosc level {options[4]}{', shuffled' if options[5] else ''}")
        else:
            names.append(name.decode(errors="replace") or f"filter {code}")
    return " + ".join(names) or "none"


def first_line(error: Exception) -> str:
    """What HDF5 says, without the rest of its stack."""
    return str(error).strip("'\"").splitlines()[0] if str(error) else type(error).__name__
