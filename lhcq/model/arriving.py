"""How much of a model is here while others load it, told by what has reached the disk.

pip tells its progress to no program, and the hub's library draws its bars on a terminal alone: in a batch job's log
hours of a download would be silence.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from lhcq.meanwhile import meanwhile
from lhcq.storage import size_of

Say = Callable[[str], None]

_TELL_SECONDS = 10.0


def telling_bytes(what: str, directory: Path, total: int | None, say: Say) -> AbstractContextManager[None]:
    """Say every ten seconds of the body how many bytes are below `directory`, of `total` where that is known."""
    of_all = "" if total is None else f" of {total / 1e6:,.1f}"

    def tell() -> None:
        say(f"{what}: {size_of(directory) / 1e6:,.1f}{of_all} MB are here")

    return meanwhile(tell, every=_TELL_SECONDS, name="telling-bytes")
