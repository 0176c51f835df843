"""The login of the pages that a workspace's owner looks at in a browser: Flower's, and the live one's."""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from lhcq.workspace import Workspace


def kept_login(path: Path) -> str:
    """`user:password`, the same each time; the file is for its owner alone.

    Anything else under its name may be known to others, and makes way for a new one.
    """
    with contextlib.suppress(FileNotFoundError):
        if not _is_own(path.lstat()):
            path.unlink()
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(f"{new_login()}\n")
    return path.read_text("utf-8").strip()


def login_to_look(workspace: Workspace) -> tuple[str, Path | None]:
    """The login for whoever looks at a workspace, and the file that keeps it.

    None where nothing can be kept, in a workspace that is not there, is read-only, or is another user's: then it is
    made up for this process alone, since whoever only looks leaves no trace.
    """
    path = workspace.flower_login
    with contextlib.suppress(OSError):
        there = path if os.path.lexists(path) else workspace.root
        if there.lstat().st_uid == os.getuid():
            return kept_login(path), path
    return new_login(), None


def new_login() -> str:
    """`user:password`, of 96 random bits."""
    return f"lhcq:{secrets.token_urlsafe(12)}"


def _is_own(status: os.stat_result) -> bool:
    """Whether it is a file of this user, which nobody else may read."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
