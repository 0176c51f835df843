"""Which base model a run was made of: digests of its weights, its configuration and its tokenizer.

A path is no identity: other weights under the same name train, score and export without a word, and give another
result. The digest of the weights is over the tensors, not the files, so that the same weights in other shards are the
same model. A file is read once: what it amounts to is kept, under what the system says of the file. Imports no torch.
"""

import functools
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lhcq.errors import BadInput, LhcqError
from lhcq.model.tokens import TOKENIZER, TOKENIZER_CONFIG, describe_tokenizer
from lhcq.model.weights import Tensor, read_tensors_of, weight_files
from lhcq.records.specs import ModelIdentity
from lhcq.storage import read_json, sha256_of_json, write_json

_BLOCK = 8 << 20
_AT_ONCE = 4
"""Tensors that are read at a time."""
_SETTLED_SECONDS = 2.0
"""A file that was changed a moment ago may change again within the same tick of the filesystem's clock."""
# What a configuration says beside what the model computes.
_BESIDE = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures", "use_cache")

_read: dict[str, dict[str, Any]] = {}
"""What this process found in files, in place of a cache that cannot be written."""


def identify(directory: Path, cache: Path | None = None) -> ModelIdentity:
    """The identity of the model in `directory`; `cache` is a directory that remembers what files hold."""
    tensors = [
        tensor
        for path in weight_files(directory)
        for tensor in _facts([path], functools.partial(_digest, path), cache)
    ]
    config = {
        name: value for name, value in read_json(directory / "config.json").items() if name not in _BESIDE
    }
    files = [path for path in (directory / TOKENIZER, directory / TOKENIZER_CONFIG) if path.is_file()]
    return ModelIdentity(
        weights=sha256_of_json(sorted(tensors)),
        config=sha256_of_json(config),
        tokenizer=_facts(files, lambda: sha256_of_json(describe_tokenizer(directory)), cache),
    )


def require_same(recorded: object, found: ModelIdentity, directory: Path) -> None:
    """Raise `BadInput` where `found`, now in `directory`, is not what a run's record says; older ones say nothing."""
    for part, what in (("weights", "weights"), ("config", "configuration"), ("tokenizer", "tokenizer")):
        then = dict(recorded).get(part) if isinstance(recorded, Mapping | ModelIdentity) else None
        now = getattr(found, part)
        if then not in (None, now):
            raise BadInput(
                f"{directory}: the base model's {what} changed since the run began (sha256 {str(then)[:12]} then, "
                f"{now[:12]} now). Put back what was there, or train again under another name."
            )


def _facts(paths: list[Path], read: Callable[[], Any], cache: Path | None) -> Any:
    """What `read` finds in the files, which is JSON, or what it found when they were as they are."""
    paths = [path.resolve() for path in paths]
    found = [path.stat() for path in paths]
    # A copy may keep size, time of change and inode, but nobody sets the time of the last change of these.
    known_by = [[one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns] for one in found]
    name = "\0".join(map(str, paths))
    entry = cache / f"{hashlib.sha256(os.fsencode(name)).hexdigest()}.json" if cache else None
    known = _read.get(name) or _remembered(entry)
    if known and known.get("files") == known_by:
        return known["facts"]
    facts = read()
    if time.time() - max((one.st_ctime for one in found), default=0.0) > _SETTLED_SECONDS:
        _read[name] = {"paths": list(map(str, paths)), "files": known_by, "facts": facts}
        if entry is not None:
            _remember(entry, _read[name])
    return facts


def _remembered(entry: Path | None) -> dict[str, Any] | None:
    try:
        return read_json(entry) if entry else None
    except (OSError, BadInput):  # it is made again
        return None


def _remember(entry: Path, facts: dict[str, Any]) -> None:
    try:
        write_json(entry, facts)
    except (OSError, LhcqError):  # then the file is read again next time
        return


def _digest(path: Path) -> list[list[Any]]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        tensors = read_tensors_of(path)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            digests = list(pool.map(lambda tensor: _digest_tensor(descriptor, tensor), tensors))
    finally:
        os.close(descriptor)
    return [
        [tensor.name, tensor.dtype, list(tensor.shape), digest]
        for tensor, digest in zip(tensors, digests, strict=True)
    ]


def _digest_tensor(descriptor: int, tensor: Tensor) -> str:
    digest, at = hashlib.blake2b(digest_size=32), tensor.start
    while at < tensor.stop and (block := os.pread(descriptor, min(_BLOCK, tensor.stop - at), at)):
        digest.update(block)
        at += len(block)
    return digest.hexdigest()
