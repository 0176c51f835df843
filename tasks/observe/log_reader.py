"""The lines that workers logged about a job, found again in the logs of the workspace."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from lhcq.frozen import Frozen
from lhcq.records.jobs import Job
from lhcq.workspace import Workspace
from tasks.jobs.kinds import kind_of

_TEXT = re.compile(
    r"\[(?P<time>\S+Z) (?P<level>[A-Z]+) (?P<host>[^\s/]+)/(?P<process>\S+)"
    r"(?: (?P<unit>lhcq\.\S+?))?(?: attempt (?P<attempt>\d+))?\] ?(?P<message>.*)"
)


class Line(Frozen):
    """One line, or one record of many lines where the log is JSON."""

    time: str
    """UTC, ISO 8601, by the clock of its host; so that equal lengths sort as times do."""
    level: str
    host: str
    process: str
    unit: str
    attempt: int | None
    message: str

    @property
    def part(self) -> int | None:
        """The chunk or the step that it is about; None for a unit that has none."""
        words = self.unit.split(":")
        return int(words[2]) if len(words) > 2 else None

    @property
    def text(self) -> str:
        """For people: as many lines as the message has, each with when, where and about what."""
        attempt = f" attempt {self.attempt}" if self.attempt is not None else ""
        lead = f"{self.time} {self.level:<7} {self.host}/{self.process} {self.unit}{attempt}"
        return "\n".join(f"{lead}  {message}" for message in self.message.splitlines() or [""])


def read_line(raw: bytes) -> Line | None:
    """The line of a log, in either format, that is about a unit; None for any other."""
    text = raw.decode("utf-8", errors="replace").rstrip("\n")
    if b"lhcq." not in raw:
        return None
    with contextlib.suppress(ValueError, TypeError):
        if text.startswith("{"):
            found = json.loads(text)
        else:
            match = _TEXT.fullmatch(text)
            found = match.groupdict() if match else {}
        if found.get("unit"):
            return Line(**{key: found[key] for key in Line.model_fields})
    return None


def is_about(line: Line, job: Job, part: int | None = None) -> bool:
    """Whether a line is about `job`, or about that chunk or step of it."""
    task, name, *_ = line.unit.split(":")
    return name == job.name and task in kind_of(job).queues and (part is None or line.part == part)


class LogReader:
    """Reads what came to the logs of a workspace since it read last."""

    def __init__(self, workspace: Workspace, *, last_bytes: int | None = None) -> None:
        """From the beginning of each log, or, to see the newest of long ones, from its last bytes on."""
        self._directory = workspace.logs
        self._last_bytes = last_bytes
        self._read: dict[tuple[int, int], int] = {}
        """How far each file was read, by its device and number, which it keeps when it is renamed."""

    def lines(self, wanted: Callable[[Line], bool]) -> list[Line]:
        """The new lines that are wanted, of all logs in the order of time."""
        found = []
        seen = set()
        for path in sorted([*self._directory.glob("*.log"), *self._directory.glob("*.log.[0-9]")]):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
                status = os.fstat(stream.fileno())
                file = (status.st_dev, status.st_ino)
                if file not in seen:  # renamed while we read
                    seen.add(file)
                    found += [line for line in self._new_lines(file, stream) if wanted(line)]
        return sorted(found, key=lambda line: line.time)

    def _new_lines(self, file: tuple[int, int], stream: BinaryIO) -> Iterator[Line]:
        stream.seek(0, 2)
        end = stream.tell()
        first = 0 if self._last_bytes is None else max(0, end - self._last_bytes)
        start = self._read.get(file, first)
        at = stream.seek(start if start <= end else 0)  # one that was emptied begins anew
        for raw in stream:
            if not raw.endswith(b"\n"):
                break  # the rest of it is still to come
            at += len(raw)
            if (line := read_line(raw)) is not None:
                yield line
        self._read[file] = at
