"""Jobs: what was asked for, and how it ended, as two small files in the workspace.

`job.json` is written before anything is published; of it only the terms may be renewed, by the same request.
`outcome.json` is written once. Everything between the two is derived from which outputs stand in the workspace.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, field_validator

from lhcq.config import Frozen
from lhcq.errors import BadInput, LhcqError, NameTaken, NotThere, PermanentError
from lhcq.workspace import (
    Record,
    Workspace,
    exclusive,
    read_json,
    sha256_of_json,
    staged_file,
    to_json,
    write_json,
)
from tasks.leases import Holder

log = logging.getLogger(__name__)

MOST_PARTS = 10_000_000
"""Far more than a chunk of one event each would make of any file there is."""
_ANOTHER_LHCQ = "begun by another version of lhcq, or its record was changed: parts of two kinds would mix"
_TOLD: set[Path] = set()
"""Damaged records that this process has spoken of."""

Kind = Literal["generate", "cluster", "prepare", "train", "predict"]
State = Literal["done", "failed", "incomplete", "cancelled"]


BYTES: dict[Kind, int] = {"generate": 1, "cluster": 2, "prepare": 1, "train": 1, "predict": 1}
"""Which bytes lhcq makes from a spec of each kind: raised with any change of them."""


class _Known(Frozen):
    """The fields of a job's spec from which is read what is left to do: where they are there, of which kind."""

    model_config = ConfigDict(extra="ignore")

    config: dict[str, Any] | None = None  # None: an import has none
    checkpoint_steps: list[int] = Field(default=[0], min_length=1)
    total_steps: int = 0


class Job(Frozen):
    """One request."""

    kind: Kind
    name: str
    created: float
    """Seconds since the epoch."""
    spec: dict[str, Any]
    """What decides the result: the resolved configuration, and the input by its hash."""
    identity: str = ""
    """What all that is made for it carries: `identity_of` its kind and spec, when it was recorded. Empty in records
    of an older lhcq."""
    terms: dict[str, Any] = Field(default={})
    """What does not: where the input stands now, how many rows may be missing. The latest request's count."""
    parts: int = Field(default=0, ge=0, le=MOST_PARTS)
    """Parts that a fan-out has; 0 where there is none."""
    trace: Annotated[str, StringConstraints(pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")] | None = (
        None
    )
    """W3C's `traceparent` of the latest request's publishing; None where that is not traced."""

    @field_validator("spec", "terms")
    @classmethod
    def _missing_is_wrong_input(cls, fields: dict[str, Any]) -> Record:
        try:
            _Known.model_validate(fields)
        except ValidationError as error:
            fault = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
        return Record(fields)

    @property
    def title(self) -> str:
        """How messages and logs call it."""
        return f"{self.kind} {self.name}"


def identity_of(kind: Kind, spec: dict[str, Any]) -> str:
    """Of all that decides a job's bytes: what is asked for, and which bytes this lhcq makes of that."""
    return sha256_of_json({"kind": kind, "spec": spec, "bytes": BYTES[kind]})[:16]


class Outcome(Frozen):
    """How a job ended."""

    state: State
    message: str
    finished: float


class Failure(Frozen):
    """Why one unit of a job was given up."""

    unit: str
    message: str
    permanent: bool
    """The input or configuration is wrong; otherwise the attempts ran out."""
    attempts: int
    by: Holder
    traceback: str


def result_of(workspace: Workspace, job: Job) -> Path:
    """What a finished job leaves: a file for `generate`, a directory for the others."""
    if job.kind == "generate":
        return Path(job.spec["out"])
    places = {
        "cluster": workspace.dataset,
        "prepare": workspace.split,
        "train": workspace.run,
        "predict": workspace.prediction,
    }
    return places[job.kind](job.name)


def refuse_taken_name(workspace: Workspace, job: Job) -> None:
    """Raise `NameTaken` unless the name is free, or belongs to an open job that asks for the same thing.

    A job that failed, and one whose result was removed, make way.
    """
    earlier = find_job(workspace, job.kind, job.name)
    result = result_of(workspace, job)
    if earlier is None:
        if result.exists():
            raise NameTaken(f"{result} exists already. Choose another name, or remove it.")
        return
    outcome = outcome_of(workspace, earlier)
    if outcome is None or outcome.state == "incomplete":
        _refuse_another(workspace, earlier, job)
    elif result.exists() and not (outcome.state == "failed" and _may_be_replaced(earlier, job)):
        raise NameTaken(f"{result} exists already ({job.title}). Choose another name, or remove it.")


def _refuse_another(workspace: Workspace, earlier: Job, job: Job) -> None:
    if earlier.spec != job.spec:
        raise NameTaken(
            f"{job.title!r} is under way in {workspace.root} with another configuration or input "
            f"({'; '.join(_differences(earlier.spec, job.spec))}). Choose another name, or remove "
            f"{workspace.job(job.kind, job.name)} and what it has done."
        )
    if earlier.identity != identity_of(earlier.kind, earlier.spec):
        raise NameTaken(
            f"{job.title!r} is under way in {workspace.root}, {_ANOTHER_LHCQ}. Choose another name, or remove "
            f"{workspace.job(job.kind, job.name)} and what it has done."
        )


def require_same_bytes(job: Job) -> None:
    """Raise `BadInput` for a job of which this lhcq would make other bytes than those that it has so far."""
    if job.identity != identity_of(job.kind, job.spec):
        raise BadInput(f"{job.title}: {_ANOTHER_LHCQ}. Ask for it again, under another name.")


def _differences(earlier: dict[str, Any], later: dict[str, Any], place: str = "") -> list[str]:
    """The values in which two specs differ, such as `config.radius 0.5, was 1.0`."""
    found: list[str] = []
    for key in sorted(earlier.keys() | later.keys()):
        was, now = earlier.get(key), later.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            found += _differences(was, now, f"{place}{key}.")
        elif was != now:
            found.append(f"{place}{key} {now}, was {was}")
    return found


def _may_be_replaced(failed: Job, job: Job) -> bool:
    """Whether what a failed job left may stay under a new job's name.

    A run's result is its job's own directory, which goes with it. A split may stand whose baseline failed: it serves
    the same request again, and no other.
    """
    return job.kind == "train" or failed.spec == job.spec


def create_job(workspace: Workspace, job: Job) -> Job:
    """Record `job`, or join the open one of that name when it asks for the same thing.

    A job that ended incomplete keeps its finished parts and tries the others again. So does one whose parts failed,
    for the same request: its terms may be what was wrong.
    """
    with exclusive(
        workspace.root / "jobs.lock"
    ):  # else one command could discard what another has just recorded
        return _create_job(workspace, job)


def _create_job(workspace: Workspace, job: Job) -> Job:
    refuse_taken_name(workspace, job)
    earlier = find_job(workspace, job.kind, job.name)
    if earlier is not None:
        outcome = outcome_of(workspace, earlier)
        if outcome is None or outcome.state == "incomplete" or _lacks_parts(workspace, earlier, job):
            _refuse_another(workspace, earlier, job)  # it may have come since the names were compared
            renewed = _renew_terms(workspace, job)  # first: what is tried again needs them
            if outcome is None:
                forget_failures(workspace, earlier)  # and leave the outcome, which may be written just now
            else:
                reopen_job(workspace, earlier)
            return renewed or earlier
        discard_job(workspace, earlier)
    recorded = job.model_copy(update={"identity": identity_of(job.kind, job.spec)})
    with staged_file(workspace.job(job.kind, job.name) / "job.json") as temporary:
        temporary.write_text(to_json(recorded.model_dump()), encoding="utf-8")
    created = load_job(workspace, job.kind, job.name)
    _refuse_another(workspace, created, job)  # somebody else may have been first
    return created


def _lacks_parts(workspace: Workspace, failed: Job, job: Job) -> bool:
    """Whether a failed job serves the same request with the parts that it has; not when they could not be merged."""
    failures = failures_of(workspace, failed)
    of_parts = [failure.unit.partition(":")[0].endswith("_part") for failure in failures]
    return failed.spec == job.spec and bool(of_parts) and all(of_parts)


def renew_terms(workspace: Workspace, job: Job) -> Job | None:
    """Give the terms of `job` to the job of that name that asks for the same thing; None where there is none."""
    with exclusive(workspace.root / "jobs.lock"):
        return _renew_terms(workspace, job)


def _renew_terms(workspace: Workspace, job: Job) -> Job | None:
    earlier = find_job(workspace, job.kind, job.name)
    if earlier is None or earlier.spec != job.spec:
        return None
    if earlier.terms == job.terms:
        return earlier
    renewed = earlier.model_copy(update={"terms": job.terms})
    write_json(workspace.job(job.kind, job.name) / "job.json", renewed.model_dump())
    return renewed


def set_trace(workspace: Workspace, job: Job, trace: str | None) -> None:
    """Record which trace the attempts at the job's units belong to from now on."""
    if job.trace == trace:
        return
    with exclusive(workspace.root / "jobs.lock"):
        recorded = load_job(workspace, job.kind, job.name)  # whose terms may have been renewed
        traced = recorded.model_copy(update={"trace": trace})
        write_json(workspace.job(job.kind, job.name) / "job.json", traced.model_dump())


def find_job(workspace: Workspace, kind: Kind, name: str) -> Job | None:
    """The job of that name, or None."""
    with contextlib.suppress(FileNotFoundError):
        return _read_job(workspace, workspace.job(kind, name) / "job.json")
    return None


def _read_job(workspace: Workspace, path: Path) -> Job:
    """The record at `path`, which must be that of the job whose place this is."""
    job = Job.checked(**read_json(path))
    if workspace.job(job.kind, job.name) != path.parent:
        raise BadInput(f"{path}: is the record of another job, {job.title}. Remove it.")
    return job


def load_job(workspace: Workspace, kind: Kind, name: str) -> Job:
    """The job of that name, or `NotThere`."""
    job = find_job(workspace, kind, name)
    if job is None:
        raise NotThere(f"{kind} {name!r} does not exist in {workspace.root}. `lhcq status` lists what does.")
    return job


def named_job(workspace: Workspace, name: str, kind: Kind | None = None) -> Job:
    """The job of that name, of whatever kind unless one is given; raises `BadInput` where several have it."""
    if kind is not None:
        return load_job(workspace, kind, name)
    found = [job for job in list_jobs(workspace) if job.name == name]
    if not found:
        raise NotThere(f"no job is called {name!r} in {workspace.root}. `lhcq status` lists what there is.")
    if len(found) > 1:
        raise BadInput(
            f"{name!r} names {len(found)} jobs. Choose by --kind {'|'.join(job.kind for job in found)}."
        )
    return found[0]


def list_jobs(workspace: Workspace) -> list[Job]:
    """Every job of the workspace, oldest first."""
    records = [*workspace.root.glob("jobs/*/job.json"), *workspace.root.glob("runs/*/job.json")]
    jobs = []
    for record in records:
        with contextlib.suppress(FileNotFoundError):  # discarded while we looked
            try:
                jobs.append(_read_job(workspace, record))
            except BadInput as error:  # one that is damaged must not hide the others, or stop what heals them
                if record not in _TOLD:
                    _TOLD.add(record)
                    log.warning("left out: %s", error)
    return sorted(jobs, key=lambda job: (job.created, job.kind, job.name))


def outcome_of(workspace: Workspace, job: Job) -> Outcome | None:
    """How the job ended; None while it is open."""
    with contextlib.suppress(FileNotFoundError):
        return Outcome.checked(**read_json(workspace.job(job.kind, job.name) / "outcome.json"))
    return None


class Standing:
    """Whether a job is still the open one of its name: asked often by who works for it, so read only when changed."""

    def __init__(self, workspace: Workspace, job: Job) -> None:
        self._workspace = workspace
        self._job = job
        self._record = workspace.job(job.kind, job.name) / "job.json"
        self._seen: tuple[int, int] | None = None

    def ended(self) -> bool:
        """Whether it has an outcome, was removed, or its name means another job by now."""
        if (self._record.parent / "outcome.json").exists():
            return True
        try:
            status = self._record.stat()
            if (status.st_ino, status.st_mtime_ns) != self._seen:
                found = find_job(self._workspace, self._job.kind, self._job.name)
                if found is None or found.identity != self._job.identity:
                    return True
                self._seen = (status.st_ino, status.st_mtime_ns)
        except FileNotFoundError:
            return True
        return False


def end_job(workspace: Workspace, job: Job, state: State, message: str) -> None:
    """Write the outcome; the first one stands."""
    outcome = Outcome(state=state, message=message, finished=time.time())
    with staged_file(workspace.job(job.kind, job.name) / "outcome.json") as temporary:
        temporary.write_text(to_json(outcome.model_dump()), encoding="utf-8")


def reopen_job(workspace: Workspace, job: Job) -> None:
    """Forget the outcome and the failures, keep what is finished."""
    forget_failures(workspace, job)
    (workspace.job(job.kind, job.name) / "outcome.json").unlink(missing_ok=True)


def discard_job(workspace: Workspace, job: Job) -> None:
    """Remove the job's record and everything in it."""
    directory = workspace.job(job.kind, job.name)
    (directory / "job.json").unlink(missing_ok=True)  # first: what has no job.json is no job
    shutil.rmtree(directory, ignore_errors=True)


def record_failure(workspace: Workspace, job: Job, failure: Failure) -> None:
    """Keep why a unit was given up, beside the job."""
    write_json(_failure_path(workspace, job, failure.unit), failure.model_dump())


def failures_of(workspace: Workspace, job: Job) -> list[Failure]:
    """The units that were given up, in order of name."""
    directory = workspace.job(job.kind, job.name) / "failed"
    return [Failure.checked(**read_json(path)) for path in sorted(directory.glob("*.json"))]


def forget_failures(workspace: Workspace, job: Job, units: Iterable[str] | None = None) -> None:
    """Forget why units were given up, and how the job ended for want of them: the units of these keys, or all."""
    if units is None:
        shutil.rmtree(workspace.job(job.kind, job.name) / "failed", ignore_errors=True)
        return
    for unit in units:
        _failure_path(workspace, job, unit).unlink(missing_ok=True)
    (workspace.job(job.kind, job.name) / "outcome.json").unlink(missing_ok=True)


def _failure_path(workspace: Workspace, job: Job, unit: str) -> Path:
    return workspace.job(job.kind, job.name) / "failed" / f"{unit.replace(':', '.')}.json"


def end_with_failures(workspace: Workspace, job: Job, failures: list[Failure]) -> None:
    """End a job that cannot be completed: `failed` on wrong input, `incomplete` when attempts ran out."""
    permanent = [failure for failure in failures if failure.permanent]
    end_job(workspace, job, "failed" if permanent else "incomplete", summary_of(permanent, failures))


def summary_of(*failures: list[Failure]) -> str:
    """The first failure's message, and how many units failed, for the first list that holds any."""
    first = next(some for some in failures if some)[0]
    more = f" ({len(failures[-1])} units failed alike)" if len(failures[-1]) > 1 else ""
    return first.message + more


def is_permanent(error: BaseException) -> bool:
    """Whether trying again would give the same answer."""
    return isinstance(error, PermanentError)


def message_of(error: BaseException) -> str:
    """One line for people: lhcq's own message, or the kind of a bug with its text."""
    return str(error) if isinstance(error, LhcqError) else f"{type(error).__name__}: {error}"


def require_open(workspace: Workspace, run: str) -> Job:
    """The run's job, or an error when it does not exist or has ended."""
    job = load_job(workspace, "train", run)
    outcome = outcome_of(workspace, job)
    if outcome:
        raise BadInput(f"run {run!r} has ended already ({outcome.state}).")
    return job
