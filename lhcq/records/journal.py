"""A run's journal, `events.jsonl`: a line for all that happens to it, which nothing that matters depends on.

One model a kind of line. A reader takes what it knows of a line, and leaves out kinds that it does not know, so that
a journal of another lhcq can be read.
"""

import contextlib
import os
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lhcq.errors import BadInput
from lhcq.frozen import explain_fault
from lhcq.storage import append_line
from lhcq.workspace import RunPaths

_TAIL_BYTES = 16_384

Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Line(BaseModel):
    """What lines share; whatever else is given is written and kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    time: float | None = None
    """Seconds since the epoch."""


class StepLine(_Line):
    """An optimizer step."""

    event: Literal["step"] = "step"
    step: Count
    loss: float | None = None
    """Nats, over the two labels."""
    answer_loss: float | None = None
    """Nats, of saying either label."""
    learning_rate: float | None = None
    grad_norm: float | None = None
    samples_per_second: float | None = None
    tokens: Count | None = None


class CheckpointLine(_Line):
    """A checkpoint was committed."""

    event: Literal["checkpoint"] = "checkpoint"
    step: Count


class ValidationLine(_Line):
    """A checkpoint was validated; all of its metrics are there, those below by their names here."""

    event: Literal["validation"] = "validation"
    step: Count | None = None
    seconds: float | None = None
    n: Count | None = None
    accuracy: float | None = None
    auc: float | None = None


class AlarmLine(_Line):
    """The watchdog raised an alarm; it may be told more than once."""

    event: Literal["alarm"] = "alarm"
    kind: str
    step: Count | None = None
    message: str = ""
    act: str = ""


class RollbackLine(_Line):
    """After `step` training went back to `origin`."""

    event: Literal["rollback"] = "rollback"
    step: Count
    origin: Count
    rate_factor: float


class RemovedLine(_Line):
    """A checkpoint was removed."""

    event: Literal["removed"] = "removed"
    step: Count


Line = StepLine | CheckpointLine | ValidationLine | AlarmLine | RollbackLine | RemovedLine

_ADAPTER: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="event")])


def write_line(run_dir: Path, line: Line) -> None:
    """Add a line to the journal of a run, with the time unless it has one."""
    append_line(RunPaths(run_dir).journal, {"time": time.time(), **line.model_dump(exclude={"time"})})


def read_journal(run_dir: Path) -> list[Line]:
    """All lines of a run; a last one that is still being written is left out.

    Raises `BadInput` for a line before it that is none.
    """
    path = RunPaths(run_dir).journal
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    read: list[Line] = []
    for number, line in enumerate(lines, start=1):
        try:
            found = _parse(line)
        except ValueError as error:
            if number < len(lines):
                raise BadInput(
                    f"{path}: line {number} cannot be read ({_reason(error)}). Remove that line."
                ) from error
        else:
            if found is not None:
                read.append(found)
    return read


def newest_step(run_dir: Path) -> StepLine | None:
    """The newest step of a run, from the end of its journal alone; None where none is there."""
    with contextlib.suppress(FileNotFoundError), RunPaths(run_dir).journal.open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
        for line in reversed(stream.read().splitlines()):
            with contextlib.suppress(ValueError):  # cut short, or worse
                found = _parse(line)
                if isinstance(found, StepLine):
                    return found
    return None


class Journal:
    """What a run's journal said up to the last reading, read as it grows."""

    def __init__(self, run_dir: Path) -> None:
        self._path = RunPaths(run_dir).journal
        self._begin()

    def _begin(self) -> None:
        self._read = 0
        self.step: StepLine | None = None
        """The newest step."""
        self.validation: ValidationLine | None = None
        """The newest validation."""
        self.counts: Counter[str] = Counter()
        """Lines of each kind."""
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
                with contextlib.suppress(ValueError):
                    self._take(_parse(line))

    def _take(self, line: Line | None) -> None:
        if line is None:
            return
        self.counts[line.event] += 1
        if isinstance(line, StepLine):
            self.step = line
        elif isinstance(line, ValidationLine):
            self.validation = line
        elif isinstance(line, AlarmLine):
            self.alarms[line.kind] += 1


def _parse(line: str | bytes) -> Line | None:
    """What a line says; None for a kind that is not known. `ValueError` where it says nothing."""
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError as error:
        if error.errors()[0]["type"] == "union_tag_invalid":
            return None
        raise


def _reason(error: ValueError) -> Any:
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return explain_fault({**fault, "loc": fault["loc"][1:]})
    return error
