"""What a reader may trust of a committed directory.

It has its manifest, its files are still those that the manifest was written for, and, in a run, it was made for the
run that its name means now: the manifest's `of` is the identity in `job.json`. Nothing enters by its name alone, as a
name may be given anew while somebody is still at work on the old one.
"""

import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lhcq.errors import BadInput
from lhcq.manifests import read_manifest, verify_files
from lhcq.records.jobs import RECORD
from lhcq.storage import MANIFEST, read_json

OF = "of"
"""Field of a manifest: the identity of the job that the directory is a result of."""


def read_verified(directory: Path, *, what: str, remedy: str) -> dict[str, Any]:
    """The manifest of a committed directory whose files are still those of the manifest.

    Each file is hashed once a process. Raises `NotThere` naming the `remedy` without the directory, and `BadInput`
    for a file that differs.
    """
    manifest = read_manifest(directory, what=what, remedy=remedy)
    verify_files(directory, manifest)
    return manifest


def identity_of_run(run_dir: Path) -> str | None:
    """The identity that the run's record has; None where there is no record, or an older lhcq wrote it."""
    try:
        return _field(run_dir / RECORD, "identity")
    except FileNotFoundError:
        return None


def is_commit(directory: Path) -> bool:
    """Whether a directory of a run (a checkpoint, a validation, the test) stands, and is of the run of today."""
    of = identity_of_run(_run_of(directory))
    try:
        return _field(directory / MANIFEST, OF) == of or of is None
    except FileNotFoundError:
        return False
    except BadInput:  # damaged: whoever reads it says so
        return True


def steps_under(directory: Path) -> list[int]:
    """Steps of what `is_commit` in a run's `directory` of checkpoints or of validations, ascending."""
    return sorted(
        int(path.parent.name)
        for path in directory.glob(f"*/{MANIFEST}")
        if path.parent.name.isdecimal() and is_commit(path.parent)
    )


def make_way(directory: Path) -> None:
    """Remove what stands under the name of a commit to come and is of an earlier run of this name."""
    if (directory / MANIFEST).exists() and not is_commit(directory):
        shutil.rmtree(directory, ignore_errors=True)


def require_commit(directory: Path, *, what: str, remedy: str) -> dict[str, Any]:
    """As `read_verified`, of a run's directory; raises `BadInput` where it is of an earlier run of this name."""
    manifest = read_verified(directory, what=what, remedy=remedy)
    if not is_commit(directory):
        raise BadInput(f"{directory}: was made for an earlier run of this name. {remedy}")
    return manifest


def digests_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The sha256 of each file by its name: what a run says of the split that it was made of."""
    return {name: facts["sha256"] for name, facts in manifest["files"].items()}


def differing(manifest: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The fields in which a manifest is not as wanted, compared as JSON gives them back, where a tuple is a list."""
    return [
        name for name, value in json.loads(json.dumps(dict(wanted))).items() if manifest.get(name) != value
    ]


def _run_of(directory: Path) -> Path:
    return directory.parent.parent if directory.name.isdecimal() else directory.parent


def _field(path: Path, name: str) -> str | None:
    status = path.stat()
    return _read_field(path, name, status.st_ino, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4096)
def _read_field(path: Path, name: str, *_: int) -> str | None:
    """Records are replaced whole, so that one of the same inode and time is the same."""
    found = read_json(path).get(name)
    return found if isinstance(found, str) and found else None
