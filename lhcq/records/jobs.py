"""The records of a job: what was asked for, how it ended, and why units of it were given up.

`job.json` is written before anything is published; of it only the terms may be renewed, by the same request.
`outcome.json` is written once. Everything between the two is derived from which outputs stand in the workspace.
Who asks for a job and ends one is `tasks.jobs.store`.
"""

import contextlib
import logging
import os
import pwd
import re
import socket
import time
from collections.abc import Container
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    field_serializer,
    model_serializer,
    model_validator,
)

from lhcq.config import Frozen
from lhcq.errors import BadInput, NotThere
from lhcq.records.specs import SPECS, Spec, Terms
from lhcq.spelling import did_you_mean
from lhcq.storage import read_json, staged_file, to_json, write_json
from lhcq.workspace import Workspace

log = logging.getLogger(__name__)

RECORD, OUTCOME, FAILED = "job.json", "outcome.json", "failed"
MADE = "made.json"
"""The sha256 of what a job made, where that is a file without a manifest."""
MOST_CHUNKS = 10_000_000
"""Far more than a chunk of one event each would make of any file there is."""
LOG_VARIABLE = "LHCQ_LOG"
"""Where a worker's log goes, for those who look for it."""
_LONGEST_OWNER = 64
_TOLD: set[Path] = set()
"""Damaged records that this process has spoken of."""

Priority = Literal["high", "normal", "low"]
State = Literal["done", "failed", "incomplete", "cancelled"]
_S = TypeVar("_S", bound=Spec)
_T = TypeVar("_T", bound=Terms)


class Job(Frozen):
    """One request."""

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

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As an earlier lhcq wrote it where nothing was asked that it did not know."""
        fields: dict[str, Any] = dump(self)
        usual = {"owner": "", "priority": "normal", "max_parallel": None}
        return {name: value for name, value in fields.items() if name not in usual or value != usual[name]}

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


class Outcome(Frozen):
    """How a job ended."""

    state: State
    message: str
    finished: float
    """Seconds since the epoch."""


class Holder(Frozen):
    """Who works, or worked, on a unit."""

    host: str
    pid: int
    since: float
    """Seconds since the epoch, by the holder's clock."""
    log: str | None
    """The worker's log file; None where what started the worker keeps its output."""

    @classmethod
    def this_process(cls) -> Self:
        """This process, from now on."""
        return cls(
            host=socket.gethostname(), pid=os.getpid(), since=time.time(), log=os.environ.get(LOG_VARIABLE)
        )


class Failure(Frozen):
    """Why one unit of a job was given up."""

    unit: str
    message: str
    permanent: bool
    """The input or configuration is wrong; otherwise the attempts ran out."""
    attempts: int
    by: Holder
    traceback: str


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
    try:
        return Job.checked(**read_json(path))
    except BadInput as error:
        raise BadInput(f"{path}: {error} Remove it and ask again, or use the lhcq that wrote it.") from error


_READ: dict[Path, tuple[tuple[int, int, int], Job]] = {}
"""The records that this process read last, with what would change with them: each unit of a job asks for its own."""
_KEPT = 256


def _read_job(workspace: Workspace, path: Path) -> Job:
    """The record at `path`, which must be that of the job whose place this is."""
    status = path.stat()
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
        raise BadInput(f"{path}: is the record of another job, {job.title}. Remove it.")
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
    jobs = list_jobs(workspace)
    found = [job for job in reversed(jobs) if job.name == name]
    if not found:
        near = did_you_mean(name, {job.name for job in jobs})
        raise NotThere(
            f"no job is called {name!r} in {workspace.root}.{near} `lhcq status` lists what there is."
        )
    return found


def named_job(workspace: Workspace, name: str, kind: str | None = None) -> Job:
    """The job of that name, of whatever kind unless one is given; raises `BadInput` where several have it."""
    found = jobs_named(workspace, name, kind)
    if len(found) > 1:
        raise BadInput(
            f"{name!r} names {len(found)} jobs. Choose by --kind {'|'.join(job.kind for job in reversed(found))}."
        )
    return found[0]


def list_jobs(workspace: Workspace, *, but: Container[str] = ()) -> list[Job]:
    """Every job of the workspace, oldest first; those whose `place_of` is in `but` are not looked at."""
    jobs = []
    for place in _places(workspace):
        if place in but:
            continue
        record = workspace.root / place / RECORD
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # discarded while we looked, or none
            try:
                jobs.append(_read_job(workspace, record))
            except BadInput as error:  # one that is damaged must not hide the others, or stop what heals them
                if record not in _TOLD:
                    _TOLD.add(record)
                    log.warning("left out: %s", error)
    return sorted(jobs, key=lambda job: (job.created, job.kind, job.name))


def place_of(workspace: Workspace, job: Job) -> str:
    """Where a job's records stand, below the root of the workspace."""
    return str(directory_of(workspace, job).relative_to(workspace.root))


def _places(workspace: Workspace) -> list[str]:
    """Directories that may hold the records of a job: their names alone are read."""
    places = []
    for above in ("jobs", "runs"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            places += [f"{above}/{path.name}" for path in (workspace.root / above).iterdir()]
    return places


def write_new_job(workspace: Workspace, job: Job) -> None:
    """Record a job whose name is free; the first record stands."""
    with staged_file(directory_of(workspace, job) / RECORD) as temporary:
        temporary.write_text(to_json(job.model_dump()), encoding="utf-8")


def replace_job(workspace: Workspace, job: Job) -> None:
    """Record other terms, or another trace, of a job that stands."""
    write_json(directory_of(workspace, job) / RECORD, job.model_dump())


def outcome_of(workspace: Workspace, job: Job) -> Outcome | None:
    """How the job ended; None while it is open."""
    with contextlib.suppress(FileNotFoundError):
        return Outcome.checked(**read_json(directory_of(workspace, job) / OUTCOME))
    return None


def end_job(workspace: Workspace, job: Job, state: State, message: str) -> None:
    """How the job ended; the first outcome stands."""
    outcome = Outcome(state=state, message=message, finished=time.time())
    with staged_file(directory_of(workspace, job) / OUTCOME) as temporary:
        temporary.write_text(to_json(outcome.model_dump()), encoding="utf-8")


def failures_of(workspace: Workspace, job: Job) -> list[Failure]:
    """The units that were given up, in order of name."""
    paths = sorted((directory_of(workspace, job) / FAILED).glob("*.json"))
    return [Failure.checked(**read_json(path)) for path in paths]


def record_failure(workspace: Workspace, job: Job, failure: Failure) -> None:
    """Keep why a unit was given up."""
    write_json(failure_path(workspace, job, failure.unit), failure.model_dump())


def failure_path(workspace: Workspace, job: Job, unit: str) -> Path:
    """Where it stands why a unit was given up."""
    return directory_of(workspace, job) / FAILED / f"{unit.replace(':', '.')}.json"
