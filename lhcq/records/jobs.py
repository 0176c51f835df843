"""The records of a job: what was asked for, and how it ended.

`job.json` is written before anything is published; of it only the terms may be renewed, by the same request.
`outcome.json` is written once. Everything between the two is derived from which outputs stand in the workspace.
Who asks for a job and ends one is `tasks.jobs.store`; why work on one stopped, `lhcq.records.failures`.
"""

import contextlib
import logging
import os
import pwd
import re
import time
from collections.abc import Collection, Container, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    Field,
    PrivateAttr,
    StringConstraints,
    field_serializer,
    model_validator,
)

from lhcq.errors import BadInput, Damaged, Denied, NewerFormat, NotThere
from lhcq.frozen import Frozen, Grown, Kept, only_unknown
from lhcq.records.specs import SPECS, Spec, Terms
from lhcq.spelling import did_you_mean
from lhcq.storage import LOOK, exclusive, read_json, staged_file, to_record, write_record
from lhcq.workspace import Workspace

log = logging.getLogger(__name__)

RECORD, OUTCOME = "job.json", "outcome.json"
MADE = "made.json"
"""The sha256 of what a job made, where that is a file without a manifest."""
MOST_CHUNKS = 10_000_000
"""Far more than a chunk of one event each would make of any file there is."""
_LONGEST_OWNER = 64
_TOLD: set[Path] = set()
"""Damaged records that this process has spoken of."""

Priority = Literal["high", "normal", "low"]
State = Literal["done", "failed", "incomplete", "cancelled"]
GOES_ON: tuple[State, ...] = ("failed", "incomplete")
"""States of jobs that somebody may go on with."""
_S = TypeVar("_S", bound=Spec)
_T = TypeVar("_T", bound=Terms)
_R = TypeVar("_R", bound=Frozen)


class Job(Grown):
    """One request."""

    LATER: ClassVar[Mapping[str, Any]] = {"owner": "", "priority": "normal", "max_parallel": None}

    kind: str
    name: str
    created: float = Field(default_factory=time.time)
    """Seconds since the epoch."""
    spec: Spec
    """What decides the result: the resolved configuration, and the input by its hash."""
    identity: str = ""
    """What all that is made for it carries: the spec's, when it was recorded. Empty in records of an older lhcq."""
    terms: Terms = Field(default_factory=Terms)
    """What does not: where the input stands now, how many rows may be missing. The latest request's count."""
    parts: int = Field(default=0, ge=0, le=MOST_CHUNKS)
    """Chunks that a fan-out has; 0 where there is none."""
    owner: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._@-]*$", max_length=_LONGEST_OWNER)] = ""
    """Who asked for it first, by the user's name there; empty in records of an older lhcq."""
    priority: Priority = "normal"
    """Whose units come first: all those of `high` before any of `normal`. The latest request's counts."""
    max_parallel: Annotated[int, Field(ge=1)] | None = None
    """Units of it that may be under way at a time; None: as many as there are workers. The latest request counts."""
    trace: Annotated[str, StringConstraints(pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")] | None = (
        None
    )
    """W3C's `traceparent` of the latest request's publishing; None where that is not traced."""
    _planned_in: Workspace | None = PrivateAttr(None)

    def planned_in(self, workspace: Workspace) -> Self:
        """The same request, which knows the workspace whose inputs it was planned by; no record holds that."""
        planned = self.model_copy()
        planned._planned_in = workspace
        return planned

    @property
    def workspace(self) -> Workspace | None:
        """Where it was planned, by a program; None of one that was read, or that a verb asks for."""
        return self._planned_in

    @model_validator(mode="before")
    @classmethod
    def _typed(cls, fields: Any) -> Any:
        """Spec and terms by the job's kind."""
        if not isinstance(fields, dict):
            return fields
        spec, terms = fields.get("spec"), fields.get("terms", {})
        kind = spec.kind if isinstance(spec, Spec) else fields.get("kind")
        model = SPECS.get(str(kind))
        if model is None:
            raise ValueError(f"kind: {kind!r} is none of {', '.join(SPECS)}")
        if not isinstance(spec, Spec):
            spec = model.model_validate(spec)
        if not isinstance(terms, Terms):
            terms = model.terms_model.model_validate(terms)
        return {**fields, "kind": kind, "spec": spec, "terms": terms}

    @field_serializer("spec", "terms")
    def _recorded(self, value: Spec | Terms) -> dict[str, Any]:
        return value.recorded()

    @property
    def title(self) -> str:
        """How messages and logs call it."""
        return f"{self.kind} {self.name}"

    def asking(self, *, priority: Priority = "normal", max_parallel: int | None = None) -> Self:
        """The same request, with how its units take turns with those of other jobs."""
        return type(self).checked(**{**dict(self), "priority": priority, "max_parallel": max_parallel})

    def spec_of(self, model: type[_S]) -> _S:
        """The spec of a job whose kind is known."""
        if not isinstance(self.spec, model):
            raise BadInput(f"{self.title}: is no job of the kind that {model.__name__} is for.")
        return self.spec

    def terms_of(self, model: type[_T]) -> _T:
        """The terms of a job whose kind is known."""
        if not isinstance(self.terms, model):
            raise BadInput(f"{self.title}: its record has other terms than {model.__name__}.")
        return self.terms


class Outcome(Kept):
    """How a job ended."""

    state: State
    message: str
    finished: float
    """Seconds since the epoch."""


class DamagedJob(Frozen):
    """A job whose record cannot be read, by the place where it stands."""

    kind: str
    name: str
    record: Path
    message: str
    """What is wrong with it, and what to do."""
    newer: bool
    """A newer lhcq wrote it: nothing is wrong with it."""
    denied: bool
    """This user may not read it: nothing need be wrong with it."""


def this_user() -> str:
    """The name of the user of this process, as jobs have it for their owner."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # in a container, say
        name = f"uid-{os.geteuid()}"
    return re.sub(r"[^A-Za-z0-9._@-]", "_", name)[:_LONGEST_OWNER]


def directory_of(workspace: Workspace, job: Job) -> Path:
    """Where a job's records stand."""
    return workspace.job(job.kind, job.name)


def find_job(workspace: Workspace, kind: str, name: str) -> Job | None:
    """The job of that name, or None."""
    with contextlib.suppress(FileNotFoundError):
        return _read_job(workspace, workspace.job(kind, name) / RECORD)
    return None


def read_record(directory: Path) -> Job:
    """The job whose records stand in `directory`; `FileNotFoundError` passes."""
    path = directory / RECORD
    fields = read_json(path)
    try:
        return Job.checked(**fields)
    except BadInput as error:
        _refuse_later(path, error)
        raise BadInput(
            f"{path}: {error} Use the lhcq that wrote it, or clear it away by `lhcq rm`."
        ) from error


def _refuse_later(path: Path, error: BadInput) -> None:
    """Raise `NewerFormat` where a record has more fields than are known here, and nothing else is wrong with it."""
    if only_unknown(error.__cause__):
        raise NewerFormat(
            f"{path}: was written by a newer lhcq, or changed by hand ({str(error).rstrip('.')}). Use that lhcq or a "
            "newer one."
        ) from error


_READ: dict[Path, tuple[tuple[int, int, int], Job]] = {}
"""The records that this process read last, with what would change with them: each unit of a job asks for its own."""
_KEPT = 256


def _read_job(workspace: Workspace, path: Path) -> Job:
    """The record at `path`, which must be that of the job whose place this is."""
    try:
        status = path.stat()
    except PermissionError as error:
        raise Denied.of(error) from error
    state = (status.st_ino, status.st_mtime_ns, status.st_size)
    seen = _READ.get(path)
    if seen is not None and seen[0] == state:
        return seen[1]
    job = _read_own(workspace, path)
    if len(_READ) >= _KEPT:
        _READ.clear()
    _READ[path] = (state, job)
    return job


def _read_own(workspace: Workspace, path: Path) -> Job:
    job = read_record(path.parent)
    if directory_of(workspace, job) != path.parent:
        raise BadInput(f"{path}: is the record of another job, {job.title}: clear it away by `lhcq rm`.")
    return job


def load_job(workspace: Workspace, kind: str, name: str) -> Job:
    """The job of that name, or `NotThere`."""
    job = find_job(workspace, kind, name)
    if job is None:
        near = did_you_mean(name, (job.name for job in list_jobs(workspace) if job.kind == kind))
        raise NotThere(
            f"{kind} {name!r} does not exist in {workspace.root}.{near} `lhcq status` lists what does."
        )
    return job


def jobs_named(workspace: Workspace, name: str, kind: str | None = None) -> list[Job]:
    """The jobs of that name, newest first, of whatever kind unless one is given; raises `NotThere` without any."""
    if kind is not None:
        return [load_job(workspace, kind, name)]
    jobs, damaged = read_jobs(workspace)
    found = [job for job in reversed(jobs) if job.name == name]
    if not found and (unread := [one for one in damaged if one.name == name]):
        raise BadInput(unread[0].message)
    if not found:
        near = did_you_mean(name, {job.name for job in jobs})
        raise NotThere(
            f"no job is called {name!r} in {workspace.root}.{near} `lhcq status` lists what there is."
        )
    return found


def named_job(
    workspace: Workspace, name: str, kind: str | None = None, *, ended: Collection[State] | None = None
) -> Job:
    """The job of that name, of whatever kind unless one is given; raises `BadInput` where several have it.

    `ended`: where one is open, or ended in one of these states, that one is meant and none that ended otherwise.
    """
    found = jobs_named(workspace, name, kind)
    if ended is not None:
        found = [job for job in found if _stands(workspace, job, ended)] or found
    if len(found) > 1:
        raise BadInput(
            f"{name!r} names {len(found)} jobs. Choose by --kind {'|'.join(job.kind for job in reversed(found))}."
        )
    return found[0]


def _stands(workspace: Workspace, job: Job, ended: Collection[State]) -> bool:
    try:
        outcome = outcome_of(workspace, job)
    except BadInput:  # whoever goes on with it mends that, or says so
        return True
    return outcome is None or outcome.state in ended


def list_jobs(workspace: Workspace, *, but: Container[str] = ()) -> list[Job]:
    """Every job of the workspace whose record can be read, oldest first; others are told of in the log, once.

    Those whose `place_of` is in `but` are not looked at.
    """
    jobs, damaged = read_jobs(workspace, but=but)
    for one in damaged:
        if one.record not in _TOLD:
            _TOLD.add(one.record)
            log.warning("left out: %s", one.message)
    return jobs


def read_jobs(workspace: Workspace, *, but: Container[str] = ()) -> tuple[list[Job], list[DamagedJob]]:
    """Every job of the workspace, oldest first, and those whose records cannot be read: these hide no others."""
    jobs, damaged = [], []
    for place in _places(workspace):
        if place in but:
            continue
        record = workspace.root / place / RECORD
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # discarded while we looked, or none
            try:
                jobs.append(_read_job(workspace, record))
            except (FileNotFoundError, NotADirectoryError):
                raise
            except (BadInput, Denied, OSError) as error:
                kind, name = _named_by(record)
                newer, denied = isinstance(error, NewerFormat), isinstance(error, Denied)
                damaged.append(
                    DamagedJob(
                        kind=kind, name=name, record=record, message=str(error), newer=newer, denied=denied
                    )
                )
    return (
        sorted(jobs, key=lambda job: (job.created, job.kind, job.name)),
        sorted(damaged, key=lambda one: (one.kind, one.name)),
    )


def unrecorded(workspace: Workspace) -> list[Path]:
    """Directories of jobs that have no record: one is being made, or was removed while somebody worked for it."""
    return sorted(path for path in workspace.root.glob("jobs/[!.]*") if not (path / RECORD).exists())


def _named_by(record: Path) -> tuple[str, str]:
    """Kind and name of the job whose place a record stands in."""
    name = record.parent.name
    if record.parents[1].name == "jobs":
        kind, _, name = name.partition("-")
        return kind, name
    return "train", name


def place_of(workspace: Workspace, job: Job) -> str:
    """Where a job's records stand, below the root of the workspace."""
    return str(directory_of(workspace, job).relative_to(workspace.root))


def _places(workspace: Workspace) -> list[str]:
    """Directories that may hold the records of a job: their names alone are read."""
    places = []
    for above in ("jobs", "runs"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = [path.name for path in (workspace.root / above).iterdir()]
            places += [f"{above}/{name}" for name in names if not name.startswith(".")]
    return places


def write_new_job(workspace: Workspace, job: Job) -> None:
    """Record a job whose name is free; the first record stands."""
    with staged_file(directory_of(workspace, job) / RECORD) as temporary:
        temporary.write_text(to_record(job.model_dump()), encoding="utf-8")


def replace_job(workspace: Workspace, job: Job) -> None:
    """Record other terms, or another trace, of a job that stands."""
    write_record(directory_of(workspace, job) / RECORD, job.model_dump())


def outcome_of(workspace: Workspace, job: Job) -> Outcome | None:
    """How the job ended; None while it is open."""
    with contextlib.suppress(FileNotFoundError):
        return read_as(Outcome, directory_of(workspace, job) / OUTCOME)
    return None


@contextlib.contextmanager
def while_recorded(workspace: Workspace, job: Job) -> Iterator[bool]:
    """Hold the lock on jobs for the body; gives whether the record under the job's name is its own.

    Work for a job may outlive it: it may have been removed since, and the name given to another, even by the same
    request. What such work would write into the job's records is not that job's to have.
    """
    with exclusive(workspace.jobs_lock):
        try:
            found = find_job(workspace, job.kind, job.name)
        except BadInput:  # damaged: whoever mends it goes on with what stands
            found = job
        yield found is not None and (found.created, found.identity) == (job.created, job.identity)


def end_job(workspace: Workspace, job: Job, state: State, message: str) -> None:
    """How the job ended; the first outcome stands, and a job that is recorded no more has none."""
    with while_recorded(workspace, job) as recorded:
        if recorded:
            write_outcome(workspace, job, state, message)


def write_outcome(workspace: Workspace, job: Job, state: State, message: str) -> None:
    """As `end_job`, by who holds the lock on jobs."""
    outcome = Outcome(state=state, message=message, finished=time.time())
    with staged_file(directory_of(workspace, job) / OUTCOME) as temporary:
        temporary.write_text(to_record(outcome.model_dump()), encoding="utf-8")


def read_as(record: type[_R], path: Path) -> _R:
    """A record that is replaced whole, or was damaged; `FileNotFoundError` passes, and `NewerFormat` is raised where
    it has more fields than are known here."""
    fields = read_json(path)
    try:
        return record.checked(**fields)
    except BadInput as error:
        _refuse_later(path, error)
        raise Damaged(f"{path}: {error} {LOOK}") from error
