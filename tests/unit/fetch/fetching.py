"""How tests of downloads fetch, and what they look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lhcq.events.archive import ArchiveFile
from lhcq.events.download import ArchiveAway, Fetched, Patience

PATIENCE = Patience(attempts=3, stall_seconds=5, first_delay_seconds=0)
Fetch = Callable[..., Fetched]


def names(directory: Path) -> list[str]:
    """Of what stands in a directory."""
    return sorted(path.name for path in directory.iterdir())


def leave(site: Any, fetch: Fetch, entry: ArchiveFile, n_bytes: int) -> None:
    """Make a command that ends with `n_bytes` of the file here."""
    site.then(cut_after=n_bytes)
    with pytest.raises(ArchiveAway, match="was cut"):
        fetch(entry, patience=PATIENCE.model_copy(update={"attempts": 1}))
    site.asked.clear()
