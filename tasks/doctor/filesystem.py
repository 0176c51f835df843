"""What lhcq asks of the file system of a workspace, tried out in it."""

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

from lhcq.workspace import Workspace
from tasks.doctor.finding import Finding

_EMPTY_BYTES = 1 << 20
_LITTLE_BYTES = 5 << 30
CHECK = "file system"


def filesystem_findings(root: Path) -> list[Finding]:
    """Hard links, renames of whole directories, locks, writing through to the disk, room, and who may write."""
    if not os.access(root, os.W_OK | os.X_OK):
        found = (
            "this user may read the workspace and not write to it: links, renames and locks were not tried"
        )
        return [Finding(check=CHECK, state="ok", found=found), _room(root)]
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=root) as name:
        faults = [fault for trial in (_links, _renames, _locks, _syncs) if (fault := trial(Path(name)))]
    good = Finding(check=CHECK, state="ok", found="hard links, whole renames, locks and syncing work")
    return [*(faults or [good]), _room(root), _writers(root)]


def _links(place: Path) -> Finding | None:
    one, other = place / "one", place / "other"
    one.touch()
    try:
        os.link(one, other)
        os.link(one, other)
    except FileExistsError:
        return None
    except OSError as error:
        return Finding(
            check=CHECK,
            state="warning",
            found=f"no hard links ({_reason(error)}), so of two commits at once the later one may stand",
            remedy="Set LHCQ_WORKSPACE to a file system that has them, such as ext4, XFS, NFS or Lustre.",
        )
    return _loses("a hard link takes the place of a file that stands", "Report this file system.")


def _renames(place: Path) -> Finding | None:
    whole, taken = place / "whole", place / "taken"
    for directory in (whole, taken):
        directory.mkdir()
        (directory / "file").write_text(directory.name)
    try:
        whole.rename(taken)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            whole.rename(place / "final")
            return None
        return _loses(f"a directory cannot be renamed ({_reason(error)})", _ANOTHER)
    return _loses(
        "a directory is renamed onto one that is not empty, so a late commit would replace it", _ANOTHER
    )


def _locks(place: Path) -> Finding | None:
    path = place / "lock"
    try:
        with path.open("a") as one, path.open("a") as other:
            fcntl.flock(one, fcntl.LOCK_EX)
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        return _loses(f"no locks ({_reason(error)}), so two commands could discard each other's jobs", _MOUNT)
    return _loses("locks lock nobody out, so two commands could discard each other's jobs", _MOUNT)


def _syncs(place: Path) -> Finding | None:
    path = place / "file"
    path.write_text("synced")
    try:
        for what in (path, place):
            descriptor = os.open(what, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        return _loses(f"what is written cannot be brought to the disk ({_reason(error)})", _ANOTHER)
    return None


_ANOTHER = "Set LHCQ_WORKSPACE to another file system."
_MOUNT = "Mount it with locks (Lustre: `-o flock`; NFS: version 4, without `nolock`)."


def _loses(found: str, remedy: str) -> Finding:
    return Finding(check=CHECK, state="error", found=found, remedy=remedy)


def _room(root: Path) -> Finding:
    free = shutil.disk_usage(root).free
    state = "error" if free < _EMPTY_BYTES else "warning" if free < _LITTLE_BYTES else "ok"
    remedy = "" if state == "ok" else "Free some space, or set LHCQ_WORKSPACE to a larger disk."
    return Finding.checked(check="disk", state=state, found=f"{free / 1e9:,.1f} GB free", remedy=remedy)


def _writers(root: Path) -> Finding:
    """Who else may write into the workspace: whoever can replaces results, and reads nothing but what is there."""
    workspace = Workspace(root)
    open_to_all = [path for path in (root, workspace.broker, workspace.flower) if _is_open(path)]
    login = workspace.flower_login
    if login.exists() and login.stat().st_mode & 0o077:
        return Finding(
            check="permissions",
            state="warning",
            found=f"others may read {login}, which holds Flower's login",
            remedy=f"Run `chmod 600 {login}`.",
        )
    if open_to_all:
        return Finding(
            check="permissions",
            state="warning",
            found=f"every user of this host may write into {open_to_all[0]}, and replace results",
            remedy=f"Run `chmod o-w {open_to_all[0]}`.",
        )
    return Finding(check="permissions", state="ok", found="the workspace belongs to its user and group")


def _is_open(path: Path) -> bool:
    return path.exists() and bool(path.stat().st_mode & stat.S_IWOTH)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0)
