"""A run's `events.jsonl`, read as it grows: what its newest lines say, and how many of each kind there were."""

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any


class Journal:
    """What a run's journal said up to the last reading."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin()

    def _begin(self) -> None:
        self._read = 0
        self.newest: dict[str, dict[str, Any]] = {}
        """The newest line of each kind of event."""
        self.counts: Counter[str] = Counter()
        """Lines of each kind of event."""
        self.alarms: Counter[str] = Counter()
        """Alarms of each kind."""

    def read(self) -> None:
        """Take in the whole lines that came since; a journal that became shorter is another run's, read anew."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as stream:
            if stream.seek(0, 2) < self._read:
                self._begin()
            stream.seek(self._read)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        self.newest[kind] = event
        self.counts[kind] += 1
        if kind == "alarm":
            self.alarms[str(event["kind"])] += 1
