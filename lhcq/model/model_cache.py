"""The one base model that stays in a worker's memory from task to task."""

from pathlib import Path

from lhcq.model.base import Base, load_base
from lhcq.model.identity import identify, require_same
from lhcq.model.sources import check_model_directory
from lhcq.records.specs import FromBase, ModelIdentity
from lhcq.workspace import Workspace

_resident: Base | None = None


def resident_base(
    directory: Path, *, recorded: ModelIdentity | None = None, cache: Path | None = None
) -> Base:
    """The base model in `directory`, loaded unless it is the one that was used last, and still the same.

    `recorded` is the identity that a run's record holds, `cache` where digests of weights are remembered. Raises
    `BadInput` where the directory holds another model by now.
    """
    global _resident  # noqa: PLW0603  a worker process has room for one base, so one variable holds it
    directory = directory.absolute()
    found = identify(directory, cache)
    require_same(recorded, found, directory)
    known = _resident
    if known is None or known.spoilt or known.directory != directory or known.identity != found:
        known = _resident = None  # freed before the next one is loaded
        known = _resident = load_base(directory, cache=cache)
        require_same(recorded, known.identity, directory)
    return known


def base_of(workspace: Workspace, spec: FromBase) -> Base:
    """The base model that a run, a prediction or a search names, which must be the one that it began with.

    Raises `BadInput` where it is gone, too.
    """
    directory = workspace.permitted(workspace.root / spec.model_dir)
    check_model_directory(directory)
    return resident_base(directory, recorded=spec.base, cache=workspace.digests)
