"""Directories of a few files, of which one is spoilt."""

import contextlib
import functools
import json
from pathlib import Path
from random import Random
from zlib import crc32

from lhcq.errors import LhcqError
from tests.fuzz.mutation import mutate_bytes, mutate_json

Files = dict[str, bytes]
"""By their names below a directory."""

refused = functools.partial(contextlib.suppress, LhcqError)


def seal_again(path: Path) -> None:
    """Have a chunk's seal say what it holds now: who can write one can do so."""
    content = path.read_bytes()[:-8]
    path.write_bytes(b"%b%08x" % (content, crc32(content)))


def spoil_one(files: Files, random: Random) -> tuple[str, bytes]:
    """The name of one file, and what it is to hold."""
    name = random.choice(sorted(files))
    if name.endswith((".json", ".jsonl")) and random.random() < 0.85:
        return name, mutate_json(json.loads(files[name]), random)
    return name, mutate_bytes(files[name], random)


def lay_out(files: Files, spoilt: tuple[str, bytes], root: Path) -> None:
    for name, content in {**files, spoilt[0]: spoilt[1]}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
