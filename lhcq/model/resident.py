"""The one base model that stays in a worker's memory from task to task."""

from pathlib import Path

from lhcq.model.base import Base, load_base

_resident: Base | None = None


def resident_base(directory: Path) -> Base:
    """The base model in `directory`, loaded unless it is the one that was used last."""
    global _resident  # noqa: PLW0603  a worker process has room for one base, so one variable holds it
    if _resident is None or _resident.directory != directory.absolute():
        _resident = None  # freed before the next one is loaded
        _resident = load_base(directory.absolute())
    return _resident
