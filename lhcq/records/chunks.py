"""The table that one task of a fan-out leaves for the merge, sealed, with what its writer tells of it.

The file is an Arrow IPC stream, which any reader of Arrow reads, and behind its end what is told, as JSON, and the
seal: the length of the JSON and the CRC-32 of all before, eight hexadecimal digits each. No manifest describes a
chunk, so the seal alone tells that it is damaged.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import pyarrow as pa

from lhcq.errors import DamagedChunk, Denied
from lhcq.storage import staged_file

_BLOCK = 1 << 20
"""Bytes that are read at a time: of a file that is no longer, all."""
_DIGITS = 8
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""Of an IPC stream: a message without a length."""


def write_chunk(
    path: Path,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    told: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Commit `batches` of `schema`, one after the other, as a chunk; `told` is asked after the last of them.

    The same rows in batches of the same length give the same bytes. A host that loses its power may lose the name,
    never the contents.
    """
    with staged_file(path, sync_name=False) as temporary, temporary.open("wb") as file:
        checksum = append_message(file, schema, 0)
        for batch in batches:
            whole = pa.concat_batches([batch])  # a slice would bring bits of the rows beside it
            checksum = append_message(file, whole, checksum)
        said = json.dumps(told(), sort_keys=True).encode()
        end = b"%b%b%08x" % (_END, said, len(said))
        file.write(b"%b%08x" % (end, crc32(end, checksum)))


def append_message(file: BinaryIO, what: pa.Schema | pa.RecordBatch, checksum: int) -> int:
    """Write a schema or a batch behind what has this checksum; gives that of both."""
    message = what.serialize()
    file.write(message)
    return crc32(message, checksum)


class Chunk:
    """A chunk that is as it was sealed; raises `DamagedChunk`, `Denied`, and `FileNotFoundError` without it."""

    told: bytes
    """JSON of what its writer tells."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._content: bytes | None = None
        try:
            with path.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size <= _BLOCK:
                    self._content = file.read()
                self.told = _unseal(file if self._content is None else BytesIO(self._content))
        except FileNotFoundError:
            raise
        except PermissionError as error:  # it is whole, and would be discarded
            raise Denied.of(error) from error
        except (OSError, ValueError) as error:
            raise DamagedChunk.at(path, "damaged, or no chunk that this lhcq wrote") from error

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its rows in order, as they were written; memory holds a batch, of a small chunk all."""
        try:
            source = pa.OSFile(str(self._path)) if self._content is None else pa.BufferReader(self._content)
            with source, pa.ipc.open_stream(source) as stream:
                for batch in stream:
                    batch.validate(full=True)  # who can write a chunk can seal it
                    yield batch
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DamagedChunk.at(self._path, f"not a readable chunk ({error})") from error


def _unseal(file: BinaryIO) -> bytes:
    """What is told behind the rows; raises `ValueError` unless the file is as it was sealed."""
    left = file.seek(0, os.SEEK_END) - _DIGITS
    place, checksum = left - _DIGITS, 0
    file.seek(0)
    while left > 0 and (block := file.read(min(left, _BLOCK))):
        checksum = crc32(block, checksum)
        left -= len(block)
    if left or file.read() != b"%08x" % checksum:
        raise ValueError("another checksum")
    file.seek(place)
    length = int(file.read(_DIGITS), 16)
    file.seek(place - length)
    return file.read(length)
