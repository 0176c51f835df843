"""A checksum of a whole parquet file inside it: how a part, which no manifest describes, tells that it is damaged.

Parquet's own page checksums leave page headers and the footer open: of 3,000 single flipped bits in a small part 13
were merged as other values, or as another provenance. So a field of the footer's metadata, of fixed length, holds the
CRC-32 of the file as it is with zeros in that field. Any reader of parquet reads the file as before.
"""

import zlib
from pathlib import Path
from typing import BinaryIO

from lhcq.errors import DamagedChunk

SEAL = b"lhcq.crc32"
OPEN: dict[bytes, bytes] = {SEAL: b"00000000"}
"""Metadata for the writer of a file that will be sealed."""

_MAGIC = b"PAR1"
_BLOCK = 1 << 20


def seal(path: Path) -> None:
    """Seal a closed parquet file whose metadata has `OPEN`; the caller commits it afterwards."""
    with path.open("r+b") as file:
        place = _place(file)
        if place is None:
            raise ValueError(f"{path} has no field to seal")
        content = b"%08x" % _checksum(file, place)
        file.seek(place)
        file.write(content)


def check_seal(path: Path) -> None:
    """Raise `DamagedChunk` unless the file is as it was sealed; `FileNotFoundError` passes."""
    with path.open("rb") as file:
        place = _place(file)
        if place is not None:
            file.seek(place)
            sealed = file.read(len(OPEN[SEAL]))
            if sealed == b"%08x" % _checksum(file, place):
                return
    raise DamagedChunk.at(path, "damaged, or no chunk that this lhcq wrote")


def _place(file: BinaryIO) -> int | None:
    """Where the checksum stands: in the footer, behind its key and two bytes that tell type and length."""
    size = file.seek(0, 2)
    if size < 12:
        return None
    file.seek(size - 8)
    tail = file.read(8)
    footer = size - 8 - int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or footer < len(_MAGIC):
        return None
    file.seek(footer)
    key = file.read(size - 8 - footer).rfind(SEAL)
    return None if key < 0 else footer + key + len(SEAL) + 2


def _checksum(file: BinaryIO, place: int) -> int:
    """Of the file with zeros at `place`, read in blocks."""
    file.seek(0)
    checksum = _read_checksum(file, place, 0)
    checksum = zlib.crc32(OPEN[SEAL], checksum)
    size = file.seek(0, 2)
    file.seek(place + len(OPEN[SEAL]))
    return _read_checksum(file, size - place - len(OPEN[SEAL]), checksum)


def _read_checksum(file: BinaryIO, length: int, checksum: int) -> int:
    while length > 0 and (block := file.read(min(length, _BLOCK))):
        checksum = zlib.crc32(block, checksum)
        length -= len(block)
    return checksum
