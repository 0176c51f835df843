"""A job that was handed to workers, as `lhcq.submit` gives it."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lhcq.errors import JobEnded
from lhcq.results import Dataset, Prediction, Run, Scan, Search, Split
from lhcq.workspace import Workspace

if TYPE_CHECKING:
    from lhcq.records.jobs import Job as Record
    from tasks.client import Following, Progress

Told = Callable[["Progress"], None]
"""Takes how far a job is, now and then: `done` of `total`, the `unit` that is counted, and a `note`."""
_RESULTS: dict[
    str, type[Dataset] | type[Split] | type[Run] | type[Prediction] | type[Search] | type[Scan]
] = {
    "cluster": Dataset,
    "prepare": Split,
    "train": Run,
    "predict": Prediction,
    "search": Search,
    "scan": Scan,
}


class Job:
    """A job that workers do; as a context manager it is closed at the end."""

    def __init__(
        self, record: "Record", here: Workspace, following: "Following | None", opened: ExitStack
    ) -> None:
        self._record = record
        self._here = here
        self._following = following
        self._opened = opened

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<lhcq job {self._record.title!r}: {self.status().state}>"

    def wait(
        self, progress: Told | None = None
    ) -> "Dataset | Split | Run | Prediction | Search | Scan | Path":
        """Wait for the end and give the result; raises `JobEnded` when it ended otherwise, or was paused.

        Raises `DiskFull` once only a person can help, and `TransientError` when workers or broker of its own die.
        """
        if self._following is not None:
            try:
                self._following.wait(on_progress=progress or say_nothing)
                self._following.tidy_up()
            finally:
                self.close()
        return self.result()

    def status(self) -> "Status":
        """How it stands, by the workspace; asks nobody to wait."""
        from lhcq.records.job_control import state_of
        from lhcq.records.jobs import outcome_of
        from tasks.client import progress_of

        outcome = outcome_of(self._here, self._record)
        return Status(
            state=state_of(self._here, self._record, outcome),
            message=outcome.message if outcome else "",
            progress=progress_of(self._here, self._record),
        )

    def result(self) -> "Dataset | Split | Run | Prediction | Search | Scan | Path":
        """What it made; raises `JobEnded` unless it is done."""
        from tasks.client import result_of

        status = self.status()
        if status.state != "done":
            raise JobEnded(
                f"{self._record.title}: {status.state}{f', {status.message}' if status.message else ''}."
            )
        made = _RESULTS.get(self._record.kind)
        return made(self._record.name, self._here) if made else result_of(self._here, self._record)

    def close(self) -> None:
        """End the workers and the broker that it brought; what is finished stays."""
        self._opened.close()


@dataclass(frozen=True, kw_only=True)
class Status:
    """How a submitted job stands."""

    state: str
    """open, paused, done, failed, incomplete or cancelled."""
    message: str
    """What it ended with; empty before that."""
    progress: "Progress"
    """How much of it is done, in what its kind counts."""


def say_nothing(*_: object) -> None:
    """The library prints nothing."""
