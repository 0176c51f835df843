"""Whether what stands in the workspace can be read: records of jobs, manifests, and the sizes of what these name.

No file is hashed: who reads a result does that.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lhcq.errors import Damaged, Denied, LhcqError, NewerFormat
from lhcq.records.failures import FAILED
from lhcq.records.job_control import wish_of
from lhcq.records.jobs import MADE, Job, directory_of, outcome_of, read_jobs
from lhcq.storage import MANIFEST, read_json
from lhcq.workspace import RunPaths, Workspace
from tasks.doctor.finding import Finding
from tasks.jobs.holdings import Holding, list_holdings

_CHECK = "records"
_NEWER = "Use the lhcq that wrote it, or a newer one."


def record_findings(workspace: Workspace) -> list[Finding]:
    """A finding for each record that cannot be read, with a remedy by which nothing that is finished is lost."""
    if not workspace.root.is_dir():
        return []
    jobs, damaged = read_jobs(workspace)
    found = []
    for one in damaged:
        if one.denied:
            found.append(Finding.of_error(_CHECK, Denied(one.message)))
            continue
        remedy = (
            "Give the command that asked for it again: it restores the record, and what is finished is kept."
            if "not readable as JSON" in one.message
            else "Use the lhcq that wrote it, or clear it away by `lhcq rm`."
        )
        found.append(_damage(one.message, _NEWER if one.newer else remedy))
    for job in jobs:
        found += _as_far_as_may_be_seen(_of_job(workspace, job))
    holdings = list_holdings(workspace)
    for holding in holdings:
        found += _as_far_as_may_be_seen(_of_results(holding))
    if found:
        return found
    said = f"{len(jobs)} jobs and {len(holdings)} results can be read"
    return [Finding(check=_CHECK, state="ok", found=said)]


def _as_far_as_may_be_seen(findings: Iterator[Finding]) -> list[Finding]:
    """What was found until a directory that this user may not look into, and that."""
    found = []
    try:
        for one in findings:
            found.append(one)
    except PermissionError as error:
        found.append(Finding.of_error(_CHECK, Denied.of(error)))
    return found


def _of_job(workspace: Workspace, job: Job) -> Iterator[Finding]:
    directory = directory_of(workspace, job)
    resume = f"`lhcq resume {job.name} --kind {job.kind}`"
    yield from _tried(
        lambda: outcome_of(workspace, job),
        f"Run {resume}: its end is recorded anew by what stands, and nothing that is finished is done again.",
    )
    yield from _tried(
        lambda: wish_of(workspace, job), f"Run {resume}, or `lhcq pause`: either writes it anew."
    )
    for path in sorted((directory / FAILED).glob("[!.]*.json")):
        yield from _tried(
            lambda path=path: read_json(path),  # type: ignore[misc]
            f"Run {resume}: what it says was given up is tried again.",
        )
    yield from _tried(
        lambda: read_json(directory / MADE)["sha256"],
        "Give the command that asked for it again, with --force.",
    )


def _of_results(holding: Holding) -> Iterator[Finding]:
    if holding.kind is None or holding.kind.shelf is None:
        return
    again = f"`lhcq rm {holding.name} --kind {holding.what} --force`, then make it again."
    for result in holding.results:
        if (result / MANIFEST).exists():
            yield from _tried(lambda result=result: _look(result), again)  # type: ignore[misc]
        paths = RunPaths(result)
        for commit in sorted([*paths.checkpoints.glob("[0-9]*"), *paths.validations.glob("[0-9]*")]):
            yield from _tried(
                lambda commit=commit: _look(commit),  # type: ignore[misc]
                f"Move {commit} elsewhere, then `lhcq resume {holding.name} --kind train`.",
            )


def _look(directory: Path) -> None:
    """Raise `Damaged` unless a committed directory has its manifest, and its files have the sizes that this names."""
    try:
        files = read_json(directory / MANIFEST)["files"]
    except FileNotFoundError:
        raise Damaged(f"{directory}: has no {MANIFEST}.") from None
    if not isinstance(files, dict):
        raise Damaged(f"{directory / MANIFEST}: has no list of files.")
    for name, facts in files.items():
        path = directory / name
        if not path.is_file():
            raise Damaged(f"{path}: missing, though its manifest names it.")
        if "bytes" in facts and path.stat().st_size != facts["bytes"]:
            raise Damaged(f"{path}: has {path.stat().st_size:,} bytes, its manifest says {facts['bytes']:,}.")


def _tried(read: Callable[[], Any], remedy: str) -> Iterator[Finding]:
    try:
        read()
    except FileNotFoundError:
        return
    except NewerFormat as error:
        yield _damage(str(error), _NEWER)
    except (Denied, PermissionError) as error:
        yield Finding.of_error(_CHECK, Denied.of(error) if isinstance(error, PermissionError) else error)
    except (LhcqError, OSError, TypeError, AttributeError) as error:
        yield _damage(str(error), remedy)


def _damage(message: str, remedy: str) -> Finding:
    found = message.removesuffix(" `lhcq doctor` says what to do.").rstrip(".")
    return Finding(check=_CHECK, state="error", found=found, remedy=remedy)
