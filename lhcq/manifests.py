"""What a committed directory says of itself: what it was made of, and the sha256 and size of every file in it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lhcq.errors import BadInput, NotThere
from lhcq.spelling import did_you_mean
from lhcq.storage import MANIFEST, Record, read_json, sha256_of, sync, write_record

_AT_ONCE = 4  # files hashed at a time, which lets other threads go on
_DIGESTS: dict[tuple[Path, int, int, int, int], str] = {}
"""The sha256 of files that were verified, by what would change with them."""


def write_manifest(directory: Path, **fields: Any) -> None:
    """Write `manifest.json` into `directory`: `fields`, and the sha256 and size of every file in it."""
    paths = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != MANIFEST]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        synced = [pool.submit(sync, path) for path in paths]  # a directory's commit finds that done
        digests = list(pool.map(sha256_of, paths))
        for one in synced:
            one.result()
    files = {
        str(path.relative_to(directory)): {"sha256": digest, "bytes": path.stat().st_size}
        for path, digest in zip(paths, digests, strict=True)
    }
    write_record(directory / MANIFEST, {**fields, "files": files})


def read_manifest(directory: Path, *, what: str, remedy: str) -> dict[str, Any]:
    """The manifest of a committed directory, or `NotThere` naming the `remedy`."""
    try:
        manifest: dict[str, Any] = read_json(directory / MANIFEST)
    except FileNotFoundError:
        others = (path.parent.name for path in directory.parent.glob(f"[!.]*/{MANIFEST}"))
        near = did_you_mean(directory.name, others)
        raise NotThere(f"{what} does not exist in {directory.parent}.{near} {remedy}") from None
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


def _digest_of(path: Path) -> str:
    status = path.stat()
    key = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _DIGESTS:
        _DIGESTS[key] = sha256_of(path)
    return _DIGESTS[key]
