"""The errors that lhcq raises on purpose.

The message is the only constructor argument, because others do not survive a JSON result backend. It says what
was wrong, where, and what to do. The command line prints it and exits 1; anything else is a bug and keeps its
traceback.
"""

import os
import shlex
from pathlib import Path

_LONGEST = 10_000
"""Characters of a message; a hostile file's column names alone may be more."""


class LhcqError(Exception):
    """Something that lhcq understands went wrong."""

    def __str__(self) -> str:
        """The message in one line of characters that can be printed: files and servers may have put others in it."""
        said = super().__str__()[:_LONGEST]
        return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in said)


class PermanentError(LhcqError):
    """Wrong input or wrong configuration: trying again gives the same answer, so nobody does."""


class TransientError(LhcqError):
    """The surroundings failed (a full disk, a broker away): worth trying again later."""


class BadInput(PermanentError):
    """A file, an option or a name from outside is not what lhcq can work with."""


class Damaged(BadInput):
    """A record is not what was written: it was cut off, or its disk is failing."""


class DamagedChunk(Damaged):
    """A chunk is not what was written. It alone is made again."""

    path: Path | None = None

    @classmethod
    def at(cls, path: Path, found: str) -> "DamagedChunk":
        """The error of the chunk at `path`, which whoever merges discards; `found` says what is wrong with it."""
        error = cls(f"{path}: {found}. Run the same command again: it alone is made again.")
        error.path = path
        return error


class ChunkAgain(TransientError):
    """A damaged chunk was discarded, and is to be made again."""


class NewerFormat(BadInput):
    """What is to be read was written by a newer lhcq."""


class RowsMissing(PermanentError):
    """More rows of the source cannot be used than may be left out; the others are kept."""


class Diverged(PermanentError):
    """A training's loss, gradient or weights are no numbers any more."""


class NameTaken(PermanentError):
    """The name of a dataset, a split or a run is in use already."""


class NotThere(PermanentError):
    """A dataset, a split, a run or a model that was asked for does not exist."""


class JobEnded(LhcqError):
    """A job that was waited for is not done: it failed, was given up or cancelled, or is paused."""


class LeaseLost(TransientError):
    """Another worker may hold the unit by now, so this one stops: nothing is wrong with the unit."""


class Denied(TransientError):
    """This user may not look at a file or a directory that is another's: what it holds may be as it should."""

    @classmethod
    def at(cls, path: Path) -> "Denied":
        """The error of what stands at `path`, with whose it is and what these can do."""
        barred, owner = cls.whose(path)
        directory = barred if barred.is_dir() else barred.parent
        return cls(
            f"{path}: permission denied, it belongs to {owner}. Have {owner} run "
            f"`chmod -R a+rX {shlex.quote(str(directory))}`, or do this as {owner}."
        )

    @staticmethod
    def whose(path: Path) -> tuple[Path, str]:
        """The nearest place that this user sees, of a path and what it lies in, and whom that belongs to."""
        seen = next(place for place in (path, *path.parents) if _is_seen(place))
        try:
            return seen, seen.owner()
        except KeyError:  # a user of another host
            return seen, f"user {seen.stat().st_uid}"

    @classmethod
    def of(cls, refused: PermissionError) -> "Denied":
        """The error of what the system refused, which mostly says where."""
        return cls.at(Path(os.fsdecode(refused.filename))) if refused.filename else cls(str(refused))


def _is_seen(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


class DiskFull(TransientError):
    """There was no room to write."""
