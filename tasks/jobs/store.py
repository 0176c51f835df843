"""Asking for jobs and ending them: whose a name is, what is joined, what makes way.

The records themselves are `lhcq.records.jobs`.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

from lhcq.errors import BadInput, Damaged, LhcqError, NameTaken, PermanentError
from lhcq.records.commits import OF, differing
from lhcq.records.failures import FAILED, Failure, failure_path, failures_of, forget_stop
from lhcq.records.job_control import is_held, wish_of
from lhcq.records.jobs import (
    MADE,
    OUTCOME,
    RECORD,
    Job,
    Outcome,
    directory_of,
    end_job,
    find_job,
    list_jobs,
    load_job,
    named_job,
    outcome_of,
    replace_job,
    this_user,
    write_new_job,
    write_outcome,
)
from lhcq.storage import MANIFEST, exclusive, read_json, remove_file, sha256_of
from lhcq.workspace import RunPaths, Workspace
from tasks.jobs.kinds import KINDS, chunks_of, is_chunk, kind_of, result_of
from tasks.jobs.units import unit_of_key

_ANOTHER_LHCQ = "begun by another version of lhcq, or its record was changed: chunks of two kinds would mix"


def refuse_taken_name(workspace: Workspace, job: Job) -> None:
    """Raise `NameTaken` unless the name is free, or belongs to an open job that asks for the same thing.

    A job that failed, and one whose result was removed, make way.
    """
    earlier = find_job(workspace, job.kind, job.name)
    result = result_of(workspace, job)
    if earlier is None:
        if result.exists():
            raise NameTaken(f"{result} exists already. {_another_name(workspace, job)}")
        return
    outcome = outcome_of(workspace, earlier)
    if outcome is None or outcome.state == "incomplete":
        _refuse_another(workspace, earlier, job)
    elif result.exists() and not (outcome.state == "failed" and _may_be_replaced(earlier, job)):
        raise NameTaken(f"{result} exists already ({job.title}). {_another_name(workspace, job)}")


def refuse_used_name(workspace: Workspace, kind: str, name: str, result: Path) -> None:
    """Raise `NameTaken` where a job of that name is under way, or `result` stands: for what is made without a job."""
    earlier = find_job(workspace, kind, name)
    if earlier is not None and outcome_of(workspace, earlier) is None:
        raise NameTaken(f"{earlier.title!r} is under way in {workspace.root}. {_or_end(workspace, earlier)}")
    if result.exists():
        raise NameTaken(f"{result} exists already. {other_name(name, KINDS[kind].makes)}")


def done_already(workspace: Workspace, job: Job) -> bool:
    """Whether the same request was done and its result stands.

    Raises `NameTaken` where that was another request, or where what stands is not what the job made: it may have been
    removed since, and something else have been made under its name.
    """
    earlier = find_job(workspace, job.kind, job.name)
    outcome = mend_outcome(workspace, earlier) if earlier else None
    result = result_of(workspace, job)
    if earlier is None or outcome is None or outcome.state != "done" or not result.exists():
        return False
    different = job.spec.differences(earlier.spec) + _not_of(workspace, earlier)
    if different:
        raise NameTaken(
            f"{result} exists already, made of something else ({'; '.join(different)}). "
            f"{_another_name(workspace, job)}"
        )
    return True


def _not_of(workspace: Workspace, job: Job) -> list[str]:
    """In what the result that stands is not what a job makes."""
    result, different = result_of(workspace, job), []
    if (manifest := result / MANIFEST).is_file():
        made_of, asked = read_json(manifest), job.spec.recorded()
        different += differing(made_of, {name: asked[name] for name in asked.keys() & made_of.keys()})
    if (made := directory_of(workspace, job) / MADE).is_file() and (
        read_json(made)["sha256"] != sha256_of(result)
    ):
        different.append("its contents are others")
    return different


def mend_outcome(workspace: Workspace, job: Job) -> Outcome | None:
    """How the job ended. Where the record of that is damaged, it is made anew, by what stands.

    A job that was cancelled stays so, one of chunks whose result stands is done, and any other is open: what it has
    is kept, and so nothing that is finished is done again.
    """
    try:
        return outcome_of(workspace, job)
    except Damaged:
        with exclusive(workspace.jobs_lock):
            remove_file(directory_of(workspace, job) / OUTCOME)
            if wish_of(workspace, job) == "cancel":
                write_outcome(workspace, job, "cancelled", f"{job.title} was cancelled.")
            elif kind_of(job).fans_out and result_of(workspace, job).exists() and not _not_of(workspace, job):
                write_outcome(
                    workspace, job, "done", f"{workspace.relative(result_of(workspace, job))} stands"
                )
        return outcome_of(workspace, job)


def mend_record(workspace: Workspace, job: Job) -> None:
    """Put the record of a request in the place of one that is damaged, where what stands was made for it.

    Raises `BadInput` where something else was, and for a record that can be read and makes no sense to this lhcq.
    """
    try:
        find_job(workspace, job.kind, job.name)
    except Damaged as error:
        with exclusive(workspace.jobs_lock):
            if not _is_for(workspace, job):
                raise BadInput(
                    f"{directory_of(workspace, job) / RECORD}: damaged, and what stands was made for another request "
                    f"than this. {_another_name(workspace, job)}"
                ) from error
            own = {"identity": job.spec.identity(), "owner": job.owner or this_user()}
            replace_job(workspace, job.model_copy(update=own))


def _is_for(workspace: Workspace, job: Job) -> bool:
    """Whether all that stands of a job whose record is lost can have been made for this request."""
    own = job.model_copy(update={"identity": job.spec.identity()})
    if job.kind == "train":
        paths = RunPaths(workspace.run(job.name))
        committed = [
            *paths.checkpoints.glob(f"[!.]*/{MANIFEST}"),
            *paths.validations.glob(f"[!.]*/{MANIFEST}"),
        ]
        return all(read_json(path).get(OF) == own.identity for path in committed)
    if _not_of(workspace, own):
        return False
    ours = chunks_of(workspace, own)
    return ours.exists() or not any(ours.parent.glob("[!.]*"))


def other_name(name: str, makes: str) -> str:
    """What to do about a name that is taken."""
    return f"Choose another name, or `lhcq rm {name} --kind {makes}` first."


def _or_end(workspace: Workspace, job: Job) -> str:
    """What to do about the name of a job that has not ended, or that somebody may go on with."""
    if outcome_of(workspace, job) is None:
        return f"Choose another name, or end it by `lhcq cancel {job.name} --kind {job.kind}`."
    return other_name(job.name, KINDS[job.kind].makes)


def _another_name(workspace: Workspace, job: Job) -> str:
    if KINDS[job.kind].shelf is not None:
        return other_name(job.name, KINDS[job.kind].makes)
    result = result_of(workspace, job)  # its job's name follows from the file's, and from what was asked for
    made_by = [
        one.name
        for one in list_jobs(workspace)
        if one.kind == job.kind and result_of(workspace, one) == result
    ]
    return f"Choose another file, or `lhcq rm {made_by[0]}` first." if made_by else "Choose another file."


def _refuse_another(workspace: Workspace, earlier: Job, job: Job) -> None:
    if different := job.spec.differences(earlier.spec):
        raise NameTaken(
            f"{job.title!r} is under way in {workspace.root} with another configuration or input "
            f"({'; '.join(different)}). {_or_end(workspace, earlier)}"
        )
    if earlier.identity != earlier.spec.identity():
        raise NameTaken(
            f"{job.title!r} is under way in {workspace.root}, {_ANOTHER_LHCQ}. {_or_end(workspace, earlier)}"
        )


_SAME: dict[str, Job] = {}
"""The records that were found right last: each unit of a job asks, with the one that its process read."""
_KEPT_SAME = 256


def require_same_bytes(job: Job) -> None:
    """Raise `BadInput` for a job of which this lhcq would make other bytes than those that it has so far."""
    if _SAME.get(job.title) is job:
        return
    if job.identity != job.spec.identity():
        raise BadInput(f"{job.title}: {_ANOTHER_LHCQ}. Ask for it again, under another name.")
    if len(_SAME) >= _KEPT_SAME:
        _SAME.clear()
    _SAME[job.title] = job


def _may_be_replaced(failed: Job, job: Job) -> bool:
    """Whether what a failed job left may stay under a new job's name.

    A run's result is its job's own directory, which goes with it. A split may stand whose baseline failed: it serves
    the same request again, and no other.
    """
    return job.kind == "train" or not job.spec.differences(failed.spec)


def create_job(workspace: Workspace, job: Job) -> Job:
    """Record `job`, or join the open one of that name when it asks for the same thing.

    A job that ended incomplete keeps its finished chunks and tries the others again. So does one whose chunks failed,
    for the same request: its terms may be what was wrong.
    """
    mend_record(workspace, job)
    with exclusive(workspace.jobs_lock):  # else one command could discard what another has just recorded
        created = _create_job(workspace, job)
    forget_stop(workspace, created)
    return created


def _create_job(workspace: Workspace, job: Job) -> Job:
    refuse_taken_name(workspace, job)
    earlier = find_job(workspace, job.kind, job.name)
    if earlier is not None:
        outcome = outcome_of(workspace, earlier)
        if outcome is None or outcome.state == "incomplete" or _lacks_chunks(workspace, earlier, job):
            _refuse_another(workspace, earlier, job)  # it may have come since the names were compared
            renewed = _renew_terms(workspace, job)  # first: what is tried again needs them
            if outcome is None:
                forget_failures(workspace, earlier)  # and leave the outcome, which may be written just now
            else:
                reopen_job(workspace, earlier)
            return renewed or earlier
        discard_job(workspace, earlier)
    own = {"identity": job.spec.identity(), "owner": job.owner or this_user()}
    write_new_job(workspace, job.model_copy(update=own))
    created = load_job(workspace, job.kind, job.name)
    _refuse_another(workspace, created, job)  # somebody else may have been first
    return created


def _lacks_chunks(workspace: Workspace, failed: Job, job: Job) -> bool:
    """Whether a failed job serves the same request with the chunks that it has; not when they could not be merged."""
    of_chunks = [is_chunk(unit_of_key(failure.unit)) for failure in failures_of(workspace, failed)]
    return not job.spec.differences(failed.spec) and bool(of_chunks) and all(of_chunks)


def renew_terms(workspace: Workspace, job: Job) -> Job | None:
    """Give the terms of `job` to the job of that name that asks for the same thing; None where there is none.

    With them go how it takes turns and how many chunks it has: a prediction has none once its scores stand elsewhere.
    """
    with exclusive(workspace.jobs_lock):
        return _renew_terms(workspace, job)


def _renew_terms(workspace: Workspace, job: Job) -> Job | None:
    earlier = find_job(workspace, job.kind, job.name)
    if earlier is None or job.spec.differences(earlier.spec):
        return None
    latest = {name: getattr(job, name) for name in ("terms", "parts", "priority", "max_parallel")}
    renewed = earlier.model_copy(update=latest)
    if renewed == earlier:
        return earlier
    replace_job(workspace, renewed)
    return renewed


def set_trace(workspace: Workspace, job: Job, trace: str | None) -> None:
    """Record which trace the attempts at the job's units belong to from now on."""
    if job.trace == trace:
        return
    with exclusive(workspace.jobs_lock):
        recorded = load_job(workspace, job.kind, job.name)  # whose terms may have been renewed
        replace_job(workspace, recorded.model_copy(update={"trace": trace}))


class OpenJob:
    """Whether a job is still the open one of its name, and is not paused: asked often, so read only when changed."""

    def __init__(self, workspace: Workspace, job: Job) -> None:
        self._workspace = workspace
        self._job = job
        self._record = directory_of(workspace, job) / RECORD
        self._seen: tuple[int, int] | None = None

    def ended(self) -> bool:
        """Whether it has an outcome, was paused or removed, or its name means another job by now."""
        if (self._record.parent / OUTCOME).exists() or is_held(self._workspace, self._job):
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


def reopen_job(workspace: Workspace, job: Job) -> None:
    """Forget the outcome and the failures, keep what is finished."""
    forget_failures(workspace, job)
    (directory_of(workspace, job) / OUTCOME).unlink(missing_ok=True)


def discard_job(workspace: Workspace, job: Job) -> None:
    """Remove the job's record and everything in it."""
    directory = directory_of(workspace, job)
    release_name(directory)
    shutil.rmtree(directory, ignore_errors=True)


def release_name(directory: Path) -> None:
    """Make of a job's directory no job: what has no record is none, so whoever works for it stops."""
    remove_file(directory / RECORD)


def forget_failures(workspace: Workspace, job: Job, units: Iterable[str] | None = None) -> None:
    """Forget why units were given up, and how the job ended for want of them: the units of these keys, or all."""
    if units is None:
        shutil.rmtree(directory_of(workspace, job) / FAILED, ignore_errors=True)
        return
    for unit in units:
        failure_path(workspace, job, unit).unlink(missing_ok=True)
    (directory_of(workspace, job) / OUTCOME).unlink(missing_ok=True)


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


def require_open(workspace: Workspace, name: str, kind: str | None) -> Job:
    """The job of a name that has not ended; an error when there is none, or when it has."""
    job = named_job(workspace, name, kind, ended=())
    outcome = outcome_of(workspace, job)
    if outcome:
        raise BadInput(f"{job.title} has ended already ({outcome.state}).")
    return job
