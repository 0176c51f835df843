"""The workspace: every path of lhcq and every write that must be atomic.

A result is done when it stands under its final name, and not before: files are written beside it under a
temporary name, synced and linked; directories are renamed whole, with their manifest written last inside them.
The first commit wins, a later one is discarded.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lhcq.config import LONGEST_NAME, check_name
from lhcq.errors import BadInput, DiskFull, LhcqError, NotThere

MANIFEST = "manifest.json"
_IDENTITY = ".identity"
_BLOCK = 1 << 20
_AT_ONCE = 4  # files hashed at a time, which lets other threads go on
_DIGESTS: dict[tuple[Path, int, int, int, int], str] = {}
"""The sha256 of files that were verified, by what would change with them."""
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


class Workspace:
    """All directories under one root; shared between machines when there are several."""

    def __init__(self, root: Path, data_roots: Sequence[Path] = ()) -> None:
        self.root = Path(root).absolute()
        self._data_roots = tuple(data_roots)

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    def dataset(self, name: str) -> Path:
        """Clustered events: `events.parquet` and its manifest."""
        return self.inside(self.root / "datasets" / check_name(name, what="dataset"))

    def split(self, name: str) -> Path:
        """Prompts: one parquet file a part, and the manifest."""
        return self.inside(self.root / "splits" / check_name(name, what="split"))

    def baseline(self, split: str) -> Path:
        """The boosted trees fitted on a split: scores, figures, manifest."""
        return self.inside(self.root / "baselines" / check_name(split, what="split"))

    def run(self, name: str) -> Path:
        """A training: its job, `events.jsonl`, checkpoints, validations, report."""
        return self.inside(self.root / "runs" / check_name(name, what="run"))

    def checkpoint(self, run: str, step: int) -> Path:
        """The adapter and optimizer after `step` optimizer steps."""
        return self.inside(self.run(run) / "checkpoints" / f"{step:08d}")

    def validation(self, run: str, step: int) -> Path:
        """Scores and figures of a checkpoint on the validation part."""
        return self.inside(self.run(run) / "validations" / f"{step:08d}")

    def prediction(self, name: str) -> Path:
        """What a checkpoint says of a dataset: scores, summary, page, manifest."""
        return self.inside(self.root / "predictions" / check_name(name, what="prediction"))

    def model(self, name: str) -> Path:
        """A base model that lhcq obtained, `org/name` as `org--name`."""
        return self.root / "models" / check_name(name.replace("/", "--"), what="model")

    @property
    def digests(self) -> Path:
        """What the weight files of base models hold, so that each is read once; may be removed at any time."""
        return self.root / "models" / ".digests"

    def job(self, kind: str, name: str) -> Path:
        """The record of one job: `job.json`, parts, failures, `outcome.json`."""
        if kind == "train":
            return self.run(name)
        record = check_name(f"{kind}-{name}", what="job", longest=2 * LONGEST_NAME)
        return self.inside(self.root / "jobs" / record)

    @property
    def logs(self) -> Path:
        """What local workers and the embedded broker print."""
        return self.root / "logs"

    @property
    def broker(self) -> Path:
        """The embedded broker's data directory."""
        return self.root / "broker"

    def inside(self, path: Path) -> Path:
        """Give back `path`, which lies below the root, unless a symbolic link on the way leads out of the workspace.

        Else whoever may write to a shared workspace could have a worker write, or remove, elsewhere under its own
        user. Raises `BadInput`; a link into one of the data roots is allowed.
        """
        step = self.root
        for name in path.relative_to(self.root).parts:
            step = step / name
            if step.is_symlink() and not self._holds(step):
                raise BadInput(
                    f"{step}: a link that leads out of the workspace. Remove it, or add what it names to "
                    "LHCQ_DATA_ROOTS."
                )
        return path

    @property
    def confined(self) -> bool:
        """Whether data roots say where files outside of the workspace may lie."""
        return bool(self._data_roots)

    def permitted(self, path: Path) -> Path:
        """Where `path`, from a job's record, is: with data roots, only below the workspace or one of them.

        Links are followed first. Raises `BadInput` for anything else.
        """
        if not self._data_roots:
            return path
        if not self._holds(path):
            raise BadInput(
                f"{path}: outside of the workspace and of LHCQ_DATA_ROOTS "
                f"({':'.join(map(str, self._data_roots))}). Move it there, or add its directory."
            )
        return Path(os.path.realpath(path))

    def _holds(self, path: Path) -> bool:
        real = Path(os.path.realpath(path))
        return any(real.is_relative_to(os.path.realpath(root)) for root in (self.root, *self._data_roots))

    def identity(self) -> str | None:
        """What tells this workspace from others, under whatever path a host has it; None where it cannot be kept.

        Made at the first question; a copy of a workspace has that of the original.
        """
        path = self.root / _IDENTITY
        with contextlib.suppress(OSError, LhcqError):
            if not path.exists():
                with staged_file(path) as temporary:
                    temporary.write_text(f"{secrets.token_hex(16)}\n", "utf-8")
            return path.read_text("utf-8").strip() or None
        return None

    def create(self) -> None:
        """Make the root, or say why it cannot be made."""
        with explained_os_errors(self.root):
            if self.root.exists() and not self.root.is_dir():
                raise BadInput(
                    f"{self.root}: the workspace has to be a directory. Set LHCQ_WORKSPACE to one."
                )
            self.root.mkdir(parents=True, exist_ok=True)
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise BadInput(
                f"{self.root}: the workspace cannot be written to. Set LHCQ_WORKSPACE to one that can."
            )


@contextlib.contextmanager
def explained_os_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, and a path that cannot be written, into errors that say so."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"{path}: no space left on the device. Free some space and run the same command again."
            ) from error
        if error.errno in _UNWRITABLE:
            raise BadInput(f"{path}: cannot be written ({os.strerror(error.errno)}).") from error
        raise


@contextlib.contextmanager
def staged_file(final: Path) -> Iterator[Path]:
    """Give a temporary path beside `final`; on a clean exit sync it and commit it under the final name.

    If the name was taken meanwhile, what stands there stays and this copy is discarded.
    """
    temporary = _temporary(final)
    try:
        with explained_os_errors(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            commit_file(temporary, final)
    finally:
        _discard(temporary)


def commit_file(temporary: Path, final: Path) -> None:
    """Sync `temporary` and give it the name `final` in the same directory, unless that is taken."""
    with explained_os_errors(final):
        _sync(temporary)
        _link(temporary, final)
        _sync(final.parent)


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
                _sync(path)
            _sync(temporary)
            try:
                _rename_directory(temporary, final)
            except FileExistsError:
                _refuse_in_the_way(final)
            _sync(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON, atomically."""
    temporary = _temporary(path)
    try:
        with explained_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(to_json(value), encoding="utf-8")
            _sync(temporary)
            temporary.replace(path)
    finally:
        _discard(temporary)


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


class Record(dict[str, Any]):
    """A JSON object of a file: a field that it lacks is wrong input, and no bug."""

    path: Path | None = None

    def __missing__(self, field: str) -> Any:
        raise BadInput(f"{self.path or 'a record'}: has no field {field!r}. Remove it and make it again.")


def read_json(path: Path) -> Record:
    """The JSON object in `path`; `FileNotFoundError` passes, damage raises `BadInput`, as does a field it lacks."""

    def build(pairs: list[tuple[str, Any]]) -> Record:
        record = Record(pairs)
        record.path = path
        return record

    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=build)
        if not isinstance(value, Record):
            raise ValueError("no JSON object")
        return value
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, and no UTF-8
        raise BadInput(f"{path}: not readable as JSON ({error}). Remove it and make it again.") from error


def append_line(path: Path, value: Any) -> None:
    """Append one JSON line, whole or not at all; lines of several writers do not mix."""
    line = json.dumps(value, sort_keys=True, allow_nan=False).encode() + b"\n"
    with explained_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if os.write(descriptor, line) < len(line):  # the disk is full: take back what fitted
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for the body; others wait, on whatever host, and a holder's death frees it."""
    with explained_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_manifest(directory: Path, **fields: Any) -> None:
    """Write `manifest.json` into `directory`: `fields`, and the sha256 and size of every file in it."""
    paths = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != MANIFEST]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        synced = [pool.submit(_sync, path) for path in paths]  # a directory's commit finds that done
        digests = list(pool.map(sha256_of, paths))
        for one in synced:
            one.result()
    files = {
        str(path.relative_to(directory)): {"sha256": digest, "bytes": path.stat().st_size}
        for path, digest in zip(paths, digests, strict=True)
    }
    write_json(directory / MANIFEST, {**fields, "files": files})


def read_manifest(directory: Path, *, what: str, remedy: str) -> dict[str, Any]:
    """The manifest of a committed directory, or `NotThere` naming the `remedy`."""
    try:
        manifest: dict[str, Any] = read_json(directory / MANIFEST)
    except FileNotFoundError:
        raise NotThere(f"{what} does not exist in {directory.parent}. {remedy}") from None
    files = manifest.get("files", Record())
    if not isinstance(files, Record) or not all(isinstance(facts, Record) for facts in files.values()):
        raise BadInput(f"{directory / MANIFEST}: has no list of files. {remedy}")
    return manifest


def verify_files(directory: Path, manifest: dict[str, Any]) -> None:
    """Raise `BadInput` when a file of `directory` is not the one that its manifest was written for.

    A process hashes a file once, and again when it was replaced or written to (another inode, size or time).
    """
    paths = [directory / name for name in manifest["files"]]
    for name, path in zip(manifest["files"], paths, strict=True):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BadInput(f"{directory}: its manifest names a file of another directory. Make it again.")
        if not path.is_file():
            raise BadInput(f"{path}: missing, though its manifest names it. Make {directory.name} again.")
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        digests = list(pool.map(_digest_of, paths))
    for path, digest, expected in zip(paths, digests, manifest["files"].values(), strict=True):
        if digest != expected["sha256"]:
            raise BadInput(f"{path}: differs from its manifest (sha256). Make {directory.name} again.")


def sha256_of(path: Path) -> str:
    """The hexadecimal sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _digest_of(path: Path) -> str:
    status = path.stat()
    key = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _DIGESTS:
        _DIGESTS[key] = sha256_of(path)
    return _DIGESTS[key]


def sha256_of_json(value: Any) -> str:
    """The hexadecimal sha256 of a value as `to_json` writes it."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()


def _temporary(final: Path) -> Path:
    return final.parent / f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _discard(temporary: Path) -> None:
    """Remove a temporary file; whatever is in its way has been reported by then."""
    with contextlib.suppress(OSError):
        temporary.unlink()


def _sync(path: Path) -> None:
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
        raise BadInput(f"{final}: is no result of lhcq (it has no {MANIFEST}) and in the way. Remove it.")


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
