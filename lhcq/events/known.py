"""Which published file one is, and what can be done with a file next."""

import shlex
from pathlib import Path

from lhcq.config import Conventions
from lhcq.events.archive import CATALOGUE, ArchiveFile
from lhcq.events.partial import md5_of


def published_as(path: Path, *, rows: int, width: int, labels: dict[str, int] | None) -> str | None:
    """The published file that `path` is by its md5, or may be by what it holds; None where it is like none."""
    size = path.stat().st_size
    for entry in CATALOGUE:
        if entry.size == size and entry.md5 == md5_of(path):
            return f"{entry.name}, by its md5: {entry.what}"
    counts = (labels["background"], labels["signal"]) if labels else None
    like = [entry for entry in CATALOGUE if entry.holds == (rows, width, counts)]
    if not like:
        return None
    names = " or ".join(entry.name for entry in like)
    return f"perhaps {names}, by its rows, columns and labels ({_why_not_sure(like)})"


def _why_not_sure(like: list[ArchiveFile]) -> str:
    if any(entry.md5 for entry in like):
        return "the md5 is another: written again, or shuffled"
    return "their md5s are not known here"


def next_steps(path: Path, kind: str, ignored: list[str], conventions: Conventions) -> list[str]:
    """The commands that can take a file."""
    file = shlex.quote(str(path))
    features = f"lhcq import {file} --name NAME" + _options(conventions, padding=False)
    if kind == "features":
        return [features]
    cluster = f"lhcq cluster {file} --name NAME" + _options(conventions, padding=True)
    steps = [cluster if kind == "events with labels" else f"{cluster} [--labels KEY]"]
    return [*steps, features] if len(ignored) in _FEATURES else steps


_FEATURES = (14, 15)
"""Columns after the particles that `lhcq import` reads as features."""


def _options(conventions: Conventions, *, padding: bool) -> str:
    given = [f" --label-map {label}={meaning}" for label, meaning in conventions.label_map.items()]
    if padding and conventions.padding != 0.0:
        given.append(f" --padding {conventions.padding}")
    return "".join(given)
