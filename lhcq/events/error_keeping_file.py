"""A file for HDF5 to write into that keeps write errors from it.

HDF5 does not survive a full disk: after a failed write, closing the file fails too and the process may crash. So it
is given a file object that remembers the first error and from then on drops what is written; the writer asks.
"""

import io
from pathlib import Path
from types import TracebackType
from typing import Self


class Sink:
    """A new file at `path`, in the form that `h5py.File` takes instead of a name."""

    def __init__(self, path: Path) -> None:
        self._file = io.FileIO(path, "w+")
        self._error: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None:
            self.check()

    def check(self) -> None:
        """Raise the first `OSError` that a write met."""
        if self._error is not None:
            raise self._error

    def write(self, data: memoryview) -> int:
        """Write all of `data`, or nothing once a write has failed."""
        rest = memoryview(data).cast("B")
        try:
            while len(rest) and self._error is None:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._error = error
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """The next bytes; it is by this method that h5py knows a file."""
        return self._file.read(size) or b""

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` from the current position; zeros where nothing was written."""
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        self._file.readinto(view)
        return len(view)

    def truncate(self, size: int) -> int:
        """Set the length."""
        try:
            return self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The current position."""
        return self._file.tell()

    def flush(self) -> None:
        """Nothing is held back here; the one who commits the file syncs it."""
