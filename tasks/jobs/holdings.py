"""What a workspace holds: results and the jobs that made them, models, exports, plots; and what was made of what.

A **holding** is what a person removes by one name: a dataset with the job that made it, a split with its baseline, a
run, a prediction, generated events, and what has no job (a model, an export).
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lhcq.errors import BadInput, LhcqError, NotThere
from lhcq.records.job_control import NOT_ENDED, state_of
from lhcq.records.jobs import MADE, RECORD, Job, directory_of, outcome_of, read_jobs
from lhcq.storage import exclusive, explained_os_errors, read_json, remove_file, set_aside, sha256_of
from lhcq.workspace import Workspace
from tasks.jobs.kinds import KINDS, Kind, result_of
from tasks.jobs.store import release_name

PLAIN: dict[str, Callable[[Workspace, str], Path]] = {
    "model": Workspace.model,
    "export": Workspace.export,
    "plots": Workspace.plots,
}
"""What no job makes, by what it is called: where the one of a name stands."""


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One thing that the workspace holds."""

    what: str
    """dataset, split, run, prediction, events, model, export or plots."""
    name: str
    kind: Kind | None
    """Of the job that makes such a thing; None where none does."""
    job: Job | None
    """What made it or makes it; None where there is no such job, or its record is damaged."""
    record: Path | None
    """The directory of the job's records."""
    results: tuple[Path, ...]
    """What stands of it."""
    trouble: str = ""
    """What is wrong with its record; empty where nothing is."""

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"{self.what} {self.name}"

    @property
    def paths(self) -> list[Path]:
        """Everything that stands for it; of a run its record is its result."""
        records = (self.record,) if self.record is not None and self.record.exists() else ()
        return list(dict.fromkeys((*records, *self.results)))

    def state(self, workspace: Workspace) -> str:
        """The state of its job, as `records.job_control` has it; `damaged`, or empty where it has no job."""
        if self.trouble:
            return "damaged"
        if self.job is None:
            return ""
        try:
            return state_of(workspace, self.job, outcome_of(workspace, self.job))
        except LhcqError:
            return "damaged"


def words() -> list[str]:
    """What holdings are called."""
    return [*(kind.makes for kind in KINDS.values()), *PLAIN]


def list_holdings(workspace: Workspace) -> list[Holding]:
    """Everything that the workspace holds, what jobs make first."""
    jobs, damaged = read_jobs(workspace)
    held = [_of_job(workspace, job) for job in jobs]
    for one in damaged:
        record = one.record.parent
        if (kind := KINDS.get(one.kind)) is not None:
            held.append(_of_name(workspace, kind, one.name, record=record, trouble=one.message))
        else:  # of a stage that this lhcq does not have
            unknown = Holding(
                what=one.kind,
                name=one.name,
                kind=None,
                job=None,
                record=record,
                results=(),
                trouble=one.message,
            )
            held.append(unknown)
    known = {(one.what, one.name) for one in held}
    for kind in KINDS.values():
        for name in _standing(workspace, kind.shelf):
            if (kind.makes, name) not in known:
                held.append(_of_name(workspace, kind, name))
    order = [*words(), *(one.what for one in held if one.kind is None)]
    held += [
        Holding(what=what, name=name, kind=None, job=None, record=None, results=(place(workspace, name),))
        for what, place in PLAIN.items()
        for name in _standing(workspace, place)
    ]
    return sorted(held, key=lambda one: (order.index(one.what), one.name))


def find_holding(workspace: Workspace, name: str, what: str | None = None) -> Holding:
    """The holding of that name; raises `NotThere`, and `BadInput` where several have it and `what` is not given."""
    found = [one for one in list_holdings(workspace) if one.name == name and what in (None, one.what)]
    if not found:
        called = f"no {what} is called" if what else "nothing is called"
        raise NotThere(f"{called} {name!r} in {workspace.root}. `lhcq ls` lists what there is.")
    if len(found) > 1:
        raise BadInput(
            f"{name!r} names {len(found)} things. Choose by --kind {'|'.join(one.what for one in found)}."
        )
    return found[0]


def in_the_way(workspace: Workspace, kind: str, name: str, result: Path) -> list[Holding]:
    """What stands under the name of a job that is asked for, or where its result goes."""
    return [
        one
        for one in list_holdings(workspace)
        if (one.kind is not None and (one.kind.name, one.name) == (kind, name)) or result in one.results
    ]


def dependents_of(workspace: Workspace, holding: Holding) -> list[Holding]:
    """What was made of it, or is being made."""
    ours = set(holding.results)
    return [
        other
        for other in list_holdings(workspace)
        if (other.what, other.name) != (holding.what, holding.name)
        and other.job is not None
        and other.kind is not None
        and ours.intersection(other.kind.made_of(workspace, other.job))
    ]


def refuse_removal(workspace: Workspace, holding: Holding, going: Iterable[Holding] = ()) -> None:
    """Raise `BadInput` where it is being made, or something was made of it that is not among what is `going` too."""
    if holding.state(workspace) in NOT_ENDED and holding.job is not None:
        raise BadInput(
            f"{holding.title}: {holding.job.title} has not ended. End it first by `lhcq cancel {holding.name} "
            f"--kind {holding.job.kind}`, or remove it by `{_forced(holding)}`."
        )
    gone = {(one.what, one.name) for one in going}
    left = [one for one in dependents_of(workspace, holding) if (one.what, one.name) not in gone]
    if left:
        was, that = ("was", "that") if len(left) == 1 else ("were", "those")
        raise BadInput(
            f"{holding.title}: {', '.join(one.title for one in left)} {was} made of it. Remove {that} first, or it "
            f"alone by `{_forced(holding)}`."
        )


def _forced(holding: Holding) -> str:
    return f"lhcq rm {holding.name} --kind {holding.what} --force"


def remove_holding(
    workspace: Workspace, holding: Holding, *, wait_for_workers: Callable[[Job], None]
) -> Path | None:
    """Remove a job's record, which stops who works for it, and all that stands of it, each in one step.

    `wait_for_workers` gives them the time to notice; what they left meanwhile goes too, unless the name was given to
    a new job, whose it may be. Gives a file outside of the workspace that stays, since it is not what the job made,
    or not any more.
    """
    keep = foreign_result(holding)
    open_before = holding.state(workspace) in NOT_ENDED
    with exclusive(workspace.jobs_lock):  # what a new job of that name makes comes after this
        if holding.record is not None:
            release_name(holding.record)
        gone = _take_away(holding.paths, keep)
    if holding.job is not None and open_before:
        wait_for_workers(holding.job)
        with exclusive(workspace.jobs_lock):
            gone += _take_away(_left_of(workspace, holding), keep)
    for directory in gone:
        shutil.rmtree(directory, ignore_errors=True)
    return keep


def _take_away(paths: Iterable[Path], keep: Path | None) -> list[Path]:
    """Take what stands from its name; gives the directories that are to be removed yet, which may take long."""
    gone = []
    for path in paths:
        if path == keep:
            continue
        if path.is_dir() and not path.is_symlink():
            with explained_os_errors(path):
                gone.append(set_aside(path, path.parent))
        else:
            remove_file(path)
    return gone


def _left_of(workspace: Workspace, holding: Holding) -> list[Path]:
    """What stands of a holding without a record: nothing where a job of its name was recorded since."""
    if holding.kind is None or holding.record is None or (holding.record / RECORD).exists():
        return []
    return _of_name(workspace, holding.kind, holding.name, record=holding.record).paths


def foreign_result(holding: Holding) -> Path | None:
    """A result outside of the workspace that is another file by now, or was never told by its hash."""
    if holding.job is None or holding.kind is None or holding.kind.shelf is not None:
        return None
    for path in holding.results:
        made = (holding.record or path) / MADE
        if path.is_file() and not (made.is_file() and read_json(made)["sha256"] == sha256_of(path)):
            return path
    return None


def _of_job(workspace: Workspace, job: Job) -> Holding:
    kind = KINDS[job.kind]
    if kind.shelf is not None:
        return _of_name(workspace, kind, job.name, job=job, record=directory_of(workspace, job))
    result = result_of(workspace, job)
    return Holding(
        what=kind.makes,
        name=job.name,
        kind=kind,
        job=job,
        record=directory_of(workspace, job),
        results=(result,) if result.exists() else (),
    )


def _of_name(
    workspace: Workspace,
    kind: Kind,
    name: str,
    *,
    job: Job | None = None,
    record: Path | None = None,
    trouble: str = "",
) -> Holding:
    results = [kind.shelf(workspace, name), *kind.beside(workspace, name)] if kind.shelf else []
    return Holding(
        what=kind.makes,
        name=name,
        kind=kind,
        job=job,
        record=record,
        results=tuple(path for path in results if path.exists()),
        trouble=trouble,
    )


def _standing(workspace: Workspace, place: Callable[[Workspace, str], Path] | None) -> list[str]:
    """The names under which something stands."""
    if place is None:
        return []
    shelf = place(workspace, "any").parent
    return sorted(path.name for path in shelf.glob("[!.]*") if path.is_dir())
