"""Arrays that numpy saved, as HDF5: a `.npy` file, and a `.npz` archive that `np.savez` wrote, without compression.

Their numbers stand in the file as they are in memory, so HDF5 can read any rows of them in place: a file of its own
in memory has data sets whose values are external, at the offset of the array. All that reads event files reads them
so, chunk by chunk. What is compressed cannot be read from the middle, and has to be unpacked first.
Sources: numpy.lib.format for the header, the ZIP file format specification (APPNOTE 6.3.10, 4.3.7) for where a member
begins.
"""

import contextlib
import math
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import h5py
import numpy as np

from lhcq.errors import BadInput

ZIP, NPY = b"PK\x03\x04", b"\x93NUMPY"
_LOCAL_HEADER = 30  # bytes of a member of a ZIP file, before its name
_MOST_ARRAYS = 1000


class Stored(NamedTuple):
    """An array, and where its numbers begin."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int | None
    """None where they cannot be read in place: compressed, or in Fortran's order."""


def as_hdf5(path: Path) -> h5py.File | None:
    """The arrays of a file as an HDF5 file in memory; None where it is no such file, or cannot be read in place.

    Raises `BadInput` for one that is cut off.
    """
    arrays: list[Stored] = []
    with contextlib.suppress(ValueError, OSError, zipfile.BadZipFile, SyntaxError):
        arrays = list(stored_arrays(path))
    if not arrays or any(one.offset is None for one in arrays):
        return None
    if "%" in str(path):  # HDF5 would put numbers there
        raise BadInput(f"{path}: HDF5 reads no array from a path with % in it. Rename it.")
    size = path.stat().st_size
    file = h5py.File(f"{path.name} of numpy", "w", driver="core", backing_store=False)
    with contextlib.ExitStack() as stack:
        stack.callback(file.close)
        for one in arrays:
            length = one.dtype.itemsize * math.prod(one.shape)
            if one.offset is None or one.offset + length > size:
                raise BadInput(f"{path}: truncated, the end is missing. Download or copy it again.")
            if length:
                external = [(str(path.absolute()), one.offset, length)]
                file.create_dataset(one.name, shape=one.shape, dtype=one.dtype, external=external)
        stack.pop_all()
    return file


def is_of_numpy(node: h5py.HLObject) -> bool:
    """Whether a data set, or a file, is of `as_hdf5`: its values lie in the file that was named and in no other."""
    return bool(node.file.driver == "core")


def stored_arrays(path: Path) -> Iterator[Stored]:
    """The arrays of numbers in a `.npy` or `.npz` file; raises what numpy and zipfile do where it is damaged."""
    with path.open("rb") as stream:
        head = stream.read(len(NPY))
        stream.seek(0)
        if head == NPY:
            yield from _described(stream, "array", 0)
        elif head.startswith(ZIP):
            with zipfile.ZipFile(stream) as archive:
                members = [one for one in archive.infolist() if one.filename.endswith(".npy")]
                for one in members[:_MOST_ARRAYS]:
                    with archive.open(one) as member:
                        name = one.filename.removesuffix(".npy").replace("/", "_")
                        stands = one.compress_type == zipfile.ZIP_STORED
                        begin = _begin(path, one.header_offset) if stands else None
                        yield from _described(member, name, begin)


def named_fields(path: Path) -> list[str] | None:
    """The names of the fields of a `.npy` file of records, as a structured array is; None of any other file."""
    with path.open("rb") as stream:
        if stream.read(len(NPY)) != NPY:
            return None
        stream.seek(0)
        names = _header(stream)[2].names
    return list(names) if names else None


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type of the array that a stream begins with."""
    version = np.lib.format.read_magic(stream)
    read: Any = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(stream)
    return shape, fortran, dtype


def _begin(path: Path, header: int) -> int:
    """Where the bytes of a member begin, whose header stands at an offset."""
    with path.open("rb") as stream:
        stream.seek(header)
        name, extra = struct.unpack("<26xHH", stream.read(_LOCAL_HEADER))
    return header + _LOCAL_HEADER + int(name) + int(extra)


def _described(stream: IO[bytes], name: str, begin: int | None) -> Iterator[Stored]:
    shape, fortran, dtype = _header(stream)
    if dtype.kind in "fiub":  # anything else is no numbers, or would be unpickled
        in_place = begin is not None and not (fortran and len(shape) > 1)
        yield Stored(name, shape, dtype, begin + stream.tell() if begin is not None and in_place else None)
