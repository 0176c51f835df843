"""A file that has arrived in part: `FILE.part` beside it, and `FILE.part.json` to say of which version it is.

Both outlive Ctrl-C, kill -9 and a cut connection, so that the next download goes on where this one stopped. One
process at a time writes to it.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lhcq.errors import BadInput, NameTaken
from lhcq.events.ranges import Version
from lhcq.storage import commit_file, explained_os_errors, lock_file, read_json, write_json


class PartialFile:
    """The bytes that are here, their running md5, and the version of the file that they are from."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.version: Version | None = _read_version(_note(path))
        self._stream = os.fdopen(descriptor, "r+b", buffering=0)
        self._digest = _new_digest()
        while block := self._stream.read(1 << 20):
            self._digest.update(block)
        self.done = self._stream.tell()
        """Bytes here."""
        self.kept = self.done
        """Bytes of an earlier command among them."""

    @property
    def md5(self) -> str:
        """The hexadecimal md5 of the bytes here."""
        return str(self._digest.hexdigest())

    def append(self, block: bytes) -> None:
        """Write `block` behind what is here."""
        with explained_os_errors(self.path):
            written = 0
            while written < len(block):  # a disk that fills up takes some of it first
                written += self._stream.write(memoryview(block)[written:])
        self._digest.update(block)
        self.done += len(block)

    def start(self, version: Version, at: int) -> None:
        """Get ready for the bytes of `version` from `at` on, which is 0 or where this file ends."""
        if at == 0:
            self.forget()
        if version != self.version:
            write_json(_note(self.path), version.model_dump())
            self.version = version

    def forget(self) -> None:
        """Drop every byte, and what they were of."""
        self._stream.seek(0)
        self._stream.truncate()
        self._digest, self.done, self.kept, self.version = _new_digest(), 0, 0, None
        _note(self.path).unlink(missing_ok=True)

    def commit(self, final: Path) -> None:
        """Give the whole file its final name, or raise `NameTaken` and keep what stands there."""
        commit_file(self.path, final)
        # Where the filesystem has no links the part was renamed and is gone.
        if self.path.exists() and not self.path.samefile(final):
            raise NameTaken(
                f"{final}: appeared during the download. Move it away and run the same command again."
            )
        self.discard()

    def discard(self) -> None:
        """Remove the partial file and its note."""
        self.path.unlink(missing_ok=True)
        _note(self.path).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; one without a byte is not worth keeping."""
        with self._stream:
            if self.done == 0:
                self.discard()


@contextlib.contextmanager
def open_partial(final: Path) -> Iterator[PartialFile]:
    """Open the partial file of `final`, new or from before; raise `NameTaken` while another process writes to it."""
    path = _beside(final)
    with explained_os_errors(path):
        partial = PartialFile(path, _open_alone(path))
    try:
        yield partial
    finally:
        partial.close()


def remove_second_name(final: Path) -> None:
    """Remove what a commit left that was killed between giving the final name and taking the other."""
    with contextlib.suppress(FileNotFoundError):
        if _beside(final).samefile(final):
            _beside(final).unlink()
            _note(_beside(final)).unlink(missing_ok=True)


def md5_of(path: Path) -> str:
    """The hexadecimal md5 of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, _new_digest).hexdigest()


def _new_digest() -> Any:
    return hashlib.md5(
        usedforsecurity=False
    )  # what the archive publishes; it guards against faults, not foes


def _beside(final: Path) -> Path:
    return final.with_name(f"{final.name}.part")


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_version(note: Path) -> Version | None:
    """The version that a note tells of; one that cannot be read tells nothing."""
    try:
        return Version(**read_json(note))
    except (FileNotFoundError, BadInput, TypeError, ValidationError):
        return None


def _open_alone(path: Path) -> int:
    """Open a partial file and lock it; the lock ends with the descriptor, also by kill -9."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            _lock(descriptor, path)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    with contextlib.suppress(OSError):  # a filesystem without locks; the md5 tells when two wrote at once
        if not lock_file(descriptor, wait=False):
            raise NameTaken(f"{path}: another `lhcq fetch` is loading this file. Wait until it is done.")


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`, and only there.

    Whoever held the lock before may have committed or removed it. Killed between the two, it left a second name of
    the finished file, which must not be written to: that name is removed.
    """
    opened = os.fstat(descriptor)
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    if (opened.st_dev, opened.st_ino) != (there.st_dev, there.st_ino):
        return False
    if opened.st_nlink > 1:
        path.unlink()
        return False
    return True
