"""Every write that must be atomic.

A result is done when it stands under its final name, and not before: files are written beside it under a
temporary name, synced and linked; directories are renamed whole, with their manifest written last inside them.
The first commit wins, a later one is discarded. Above 400 lines, since it is the one home of what a write may meet.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from lhcq.errors import BadInput, Damaged, Denied, DiskFull, NewerFormat

FORMAT = 1
"""Of workspaces and their records: raised with any change that this version could not read. Older ones are read."""
_FORMAT = "lhcq_format"
MANIFEST = "manifest.json"
"""Without it a directory is no commit; what it says is `lhcq.manifests`' own."""
REMOVED = ".removed.tmp"
"""How the name of a directory ends while it is removed, behind a dot: no reader takes it for a result."""
LOOK = "`lhcq doctor` says what to do."
TEMPORARY = ".tmp"
"""How the name of what is being written, or removed, ends."""
_BLOCK = 1 << 20
_FULL_BYTES = 1 << 20
LARGEST_LOG_BYTES = 50_000_000
"""A log is renamed beyond that."""
KEPT_LOGS = 3
"""Renamed logs that stay beside one."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
# EEXIST: a file stands where a directory has to be made.
_UNWRITABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)


@contextlib.contextmanager
def explained_os_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, and a path that cannot be written, into errors that say so."""
    try:
        yield
    except Exception as error:
        # By the system's words too: safetensors' error has no number, and is no OSError.
        if getattr(error, "errno", None) in _FULL or any(os.strerror(one) in str(error) for one in _FULL):
            raise DiskFull(
                f"{path}: no space left on the device. Free some space and run the same command again."
            ) from error
        if not isinstance(error, OSError):
            raise
        # A directory that takes no files, as /proc, or went meanwhile; any other file that is missing is a fault.
        gone = error.errno == errno.ENOENT and Path(str(error.filename)).parent == path.parent
        if gone or error.errno in _UNWRITABLE:
            refused = f"{path}: cannot be written ({os.strerror(error.errno or 0)})"
            if error.errno in (errno.EACCES, errno.EPERM):
                place, owner = Denied.whose(path.parent)
                refused = (
                    f"{refused}. {place} belongs to {owner}: do this as {owner}, or in a place of your own"
                )
            raise BadInput(f"{refused}.") from error
        raise


@contextlib.contextmanager
def staged_file(final: Path, *, sync_name: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `final`; on a clean exit sync it and commit it under the final name.

    If the name was taken meanwhile, what stands there stays and this copy is discarded. Without `sync_name` a host
    that loses its power may lose the name again, never the contents under it: for what is then made anew.
    """
    temporary = _temporary(final)
    try:
        with explained_os_errors(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            commit_file(temporary, final, sync_name=sync_name)
    finally:
        _discard(temporary)


def commit_file(temporary: Path, final: Path, *, sync_name: bool = True) -> None:
    """Sync `temporary` and give it the name `final` in the same directory, unless that is taken."""
    with explained_os_errors(final):
        sync(temporary)
        _link(temporary, final)
        if sync_name:
            sync(final.parent)


@contextlib.contextmanager
def staged_directory(final: Path) -> Iterator[Path]:
    """Give a temporary directory beside `final`; on a clean exit sync it and rename it whole.

    The caller writes the manifest last. If the name was taken meanwhile, this copy is discarded.
    """
    temporary = _temporary(final)
    try:
        with explained_os_errors(final):
            temporary.mkdir(parents=True)
            yield temporary
            for path in sorted(temporary.rglob("*")):
                sync(path)
            sync(temporary)
            try:
                _rename_directory(temporary, final)
            except FileExistsError:
                _refuse_in_the_way(final)
            sync(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_tree(directory: Path) -> None:
    """Remove a directory in one step: under its name it is whole or gone; what a death leaves has another."""
    with explained_os_errors(directory):
        going = set_aside(directory, directory.parent)
    shutil.rmtree(going, ignore_errors=True)


def set_aside(directory: Path, under: Path) -> Path:
    """Take a directory from its name in one step, into `under` on the same device, for `clear_set_aside` to remove.

    Gives where it went; nothing is there where the directory was gone already.
    """
    going = under / f".{directory.name}.{secrets.token_hex(8)}{REMOVED}"
    with contextlib.suppress(FileNotFoundError):
        directory.rename(going)
        sync(directory.parent)
    return going


def clear_set_aside(under: Path) -> None:
    """Remove what was set aside there, by whomever: of a process that died the rest goes, too."""
    for going in under.glob(f".*{REMOVED}"):
        shutil.rmtree(going, ignore_errors=True)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there."""
    with explained_os_errors(path):
        path.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a directory; links are not followed, what goes meanwhile counts as 0."""
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
        with os.scandir(path) as entries:
            return sum(size_of(Path(entry.path)) for entry in entries)
    return 0


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON, atomically."""
    temporary = _temporary(path)
    try:
        with explained_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(to_json(value), encoding="utf-8")
            sync(temporary)
            temporary.replace(path)
    finally:
        _discard(temporary)


def write_record(path: Path, value: Mapping[str, Any]) -> None:
    """As `write_json`, of a record of the workspace, which says by which format it was written."""
    write_json(path, _with_format(value))


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text`, atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, atomically."""
    temporary = _temporary(path)
    try:
        with explained_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            temporary.replace(path)
    finally:
        _discard(temporary)


def to_json(value: Any) -> str:
    """JSON with sorted keys and a final newline, so that equal values are equal bytes."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def to_record(value: Mapping[str, Any]) -> str:
    """The JSON of a record of the workspace, which says by which format it was written."""
    return to_json(_with_format(value))


def _with_format(value: Mapping[str, Any]) -> dict[str, Any]:
    return {**value, _FORMAT: FORMAT}


class Record(dict[str, Any]):
    """A JSON object of a file: a field that it lacks is wrong input, and no bug."""

    path: Path | None = None

    def __missing__(self, field: str) -> Any:
        raise BadInput(f"{self.path or 'a record'}: has no field {field!r}. {LOOK}")


def read_json(path: Path) -> Record:
    """The JSON object in `path`, without its format; `FileNotFoundError` passes, a field that it lacks is `BadInput`.

    Raises `Damaged` for what is none, `NewerFormat` for one that a newer lhcq wrote, and `Denied`.
    """

    def build(pairs: list[tuple[str, Any]]) -> Record:
        record = Record(pairs)
        record.path = path
        return record

    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=build)
        if not isinstance(value, Record):
            raise ValueError("no JSON object")
    except PermissionError as error:
        raise Denied.of(error) from error
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, and no UTF-8
        raise Damaged(f"{path}: not readable as JSON ({error}). {LOOK}") from error
    refuse_newer(path, value.pop(_FORMAT, None))
    return value


def refuse_newer(path: Path, written: Any, by: str = "a newer lhcq") -> None:
    """Raise `NewerFormat` where a format is beyond what this lhcq knows; None is what the first versions wrote."""
    if isinstance(written, int) and written > FORMAT:
        raise NewerFormat(
            f"{path}: was written by {by} (format {written}; this one knows up to {FORMAT}). Use that lhcq or a "
            "newer one, or set LHCQ_WORKSPACE to another workspace."
        )


def append_line(path: Path, value: Any) -> None:
    """Append one JSON line, whole or not at all; lines of several writers do not mix."""
    line = json.dumps(value, sort_keys=True, allow_nan=False).encode() + b"\n"
    with explained_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            lock_file(descriptor)
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):  # the disk is full: take back what fitted
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)


def rotate(log: Path) -> None:
    """Rename a log that has grown large to `.1`, and the earlier ones one further; the last of them goes.

    Whoever has it open by name writes on in a new one, and whoever has not, in the renamed one.
    """
    with contextlib.suppress(FileNotFoundError):  # another process was first
        if log.stat().st_size <= LARGEST_LOG_BYTES:
            return
        for number in range(KEPT_LOGS - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                log.with_name(f"{log.name}.{number}").replace(log.with_name(f"{log.name}.{number + 1}"))
        log.replace(log.with_name(f"{log.name}.1"))


@contextlib.contextmanager
def exclusive(
    path: Path, *, where_possible: bool = False, on_wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock file `path` for the body; others wait, on whatever host, and a holder's death frees it.

    `where_possible`: what the lock is for is right without it, and costs more, so that a filesystem without locks is
    no error. `on_wait` is called where another holds it.
    """
    with explained_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a")
    with lock:
        try:
            if not lock_file(lock, wait=False):
                on_wait()
                lock_file(lock)
        except OSError:
            if not where_possible:
                raise
        yield


def lock_file(file: IO[str] | int, *, shared: bool = False, wait: bool = True) -> bool:
    """Lock an open file, alone or with others who share it; False where it is held and nobody is to `wait`.

    The lock goes with the file's last descriptor, so with the process.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, operation if wait else operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock_file(file: IO[str]) -> None:
    """Let others have the lock, and keep the file open."""
    fcntl.flock(file, fcntl.LOCK_UN)


def sha256_of(path: Path) -> str:
    """The hexadecimal sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_json(value: Any) -> str:
    """The hexadecimal sha256 of a value as `to_json` writes it."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()


def _temporary(final: Path) -> Path:
    return final.parent / f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}"


def _discard(temporary: Path) -> None:
    """Remove a temporary file; whatever is in its way has been reported by then."""
    with contextlib.suppress(OSError):
        temporary.unlink()


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, on the disk before anything else is done."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(temporary: Path, final: Path) -> None:
    """Give the file its final name unless it is taken: link refuses an existing name, rename would not."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        pass
    except OSError as error:
        # exFAT and Windows drives under WSL have no hard links; there a rename has to do.
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        if not final.exists():
            temporary.rename(final)


def _refuse_in_the_way(final: Path) -> None:
    """A commit that stands is the first one; anything else there would have this one made again for ever."""
    if not (final / MANIFEST).exists():
        raise BadInput(
            f"{final}: is no result of lhcq (it has no {MANIFEST}) and in the way. Move it elsewhere."
        )


def _rename_directory(temporary: Path, final: Path) -> None:
    """Rename unless `final` exists: the system refuses to replace a directory that is not empty.

    An empty one is nobody's commit, since a commit arrives whole, and makes way.
    """
    try:
        temporary.rename(final)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise FileExistsError(final) from error
        raise


def is_full(place: Path) -> bool:
    """Whether the device of an existing directory has no room for anything any more."""
    return shutil.disk_usage(place).free < _FULL_BYTES


def check_room(place: Path, needed: int) -> None:
    """Refuse before anything starts when `place` has fewer than `needed` bytes left."""
    existing = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise DiskFull(
            f"{place}: no space left on the device: about {needed / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free. "
            "Free some space, or set LHCQ_WORKSPACE to a larger disk."
        )
