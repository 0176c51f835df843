"""What is left to do for a job: a pure reading of the workspace, used to publish at first and to heal later."""

from collections.abc import Callable, Iterable
from pathlib import Path

from lhcq.config import Frozen, TrainConfig
from lhcq.errors import BadInput
from lhcq.records.run_control import wish_of
from lhcq.records.run_state import committed_steps, current_course, validated_steps
from lhcq.storage import MANIFEST
from lhcq.workspace import Workspace
from tasks.jobs.store import Job, Kind, failures_of

_QUEUES = {
    "lhcq.train_segment": "gpu",
    **dict.fromkeys(("lhcq.validate", "lhcq.test", "lhcq.predict_part", "lhcq.predict_merge"), "validate"),
}
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("lhcq.prepare", "lhcq.baseline"), "prepare"),
    **dict.fromkeys(("lhcq.train_segment", "lhcq.validate", "lhcq.test"), "train"),
}
PART_SUFFIX = {"generate": ".npy", "cluster": ".parquet", "predict": ".parquet"}


class Unit(Frozen):
    """One message: a task, its arguments and its queue."""

    task: str
    args: tuple[str | int, ...]

    @property
    def queue(self) -> str:
        """Where its message goes."""
        return _QUEUES.get(self.task, "cpu")

    @property
    def key(self) -> str:
        """Names the unit's lease, attempts and failure: `lhcq.cluster_part:NAME:3`."""
        return unit_key(self.task, self.args)


def unit_key(task: str, arguments: Iterable[str | int]) -> str:
    """The key of the unit that a message asks for."""
    return ":".join((task, *(str(argument) for argument in arguments)))


def kind_of(task: str) -> Kind:
    """The kind of job that a task works for."""
    kind: Kind = _KINDS.get(task) or task.removeprefix("lhcq.").rpartition("_")[0]  # type: ignore[assignment]
    return kind


def unit_of_key(key: str) -> Unit:
    """The unit that has this key; names hold no colon."""
    try:
        task, name, *index = key.split(":")
        return Unit(task=task, args=(name, *map(int, index)))
    except ValueError as error:
        raise BadInput(f"{key!r} is the key of no unit.") from error


def part_path(workspace: Workspace, job: Job, index: int) -> Path:
    """Where the output of part `index` stands once it is done."""
    return _parts(workspace, job) / f"{index:06d}{PART_SUFFIX[job.kind]}"


def _parts(workspace: Workspace, job: Job) -> Path:
    """Of the job as it was recorded, so that what is made for an earlier one of its name is never among them."""
    return workspace.inside(workspace.job(job.kind, job.name) / "parts" / job.identity)


def finished_parts(workspace: Workspace, job: Job) -> set[int]:
    """Indices of the parts whose output stands."""
    directory = _parts(workspace, job)
    return {int(path.stem) for path in directory.glob(f"[0-9]*{PART_SUFFIX[job.kind]}")}


def pending_units(workspace: Workspace, job: Job) -> list[Unit]:
    """The units whose turn it is, without those that were given up. Empty: nothing can be done."""
    given_up = {failure.unit for failure in failures_of(workspace, job)}
    units = [unit for unit in _PENDING[job.kind](workspace, job) if unit.key not in given_up]
    if not units and job.kind in PART_SUFFIX and merge_unit(job).key not in given_up:
        return [merge_unit(job)]
    return units


def part_unit(job: Job, index: int) -> Unit:
    """The unit that makes part `index`."""
    return Unit(task=f"lhcq.{job.kind}_part", args=(job.name, index))


def merge_unit(job: Job) -> Unit:
    """The unit that merges all parts."""
    return Unit(task=f"lhcq.{job.kind}_merge", args=(job.name,))


def validate_unit(run: str, step: int) -> Unit:
    """The unit that scores a checkpoint on the validation part."""
    return Unit(task="lhcq.validate", args=(run, step))


def segment_unit(run: str) -> Unit:
    """The unit that trains to the next checkpoint."""
    return Unit(task="lhcq.train_segment", args=(run,))


def test_unit(run: str) -> Unit:
    """The unit that scores the best checkpoint on the test part and ends the run."""
    return Unit(task="lhcq.test", args=(run,))


def last_unit(job: Job) -> Unit:
    """The unit that ends the job when all goes well."""
    if job.kind == "train":
        return test_unit(job.name)
    if job.kind == "prepare":
        return Unit(task="lhcq.baseline", args=(job.name,))
    return merge_unit(job)


def config_of(job: Job) -> TrainConfig:
    """The configuration of a run; what an older run does not say is as it is by default."""
    return TrainConfig.checked(**job.spec.get("config", {}))


def _of_parts(workspace: Workspace, job: Job) -> list[Unit]:
    missing = sorted(set(range(job.parts)) - finished_parts(workspace, job))
    return [part_unit(job, index) for index in missing]


def _of_split(workspace: Workspace, job: Job) -> list[Unit]:
    if not (workspace.split(job.name) / MANIFEST).exists():
        return [Unit(task="lhcq.prepare", args=(job.name,))]
    return [Unit(task="lhcq.baseline", args=(job.name,))]


def _of_run(workspace: Workspace, job: Job) -> list[Unit]:
    """A validation for each checkpoint that has none, then the next segment, or the test once training has ended.

    A checkpoint that was removed has its validation still, so it was reached and is no work any more.
    """
    directory = workspace.run(job.name)
    validated = validated_steps(directory)
    units = [validate_unit(job.name, step) for step in committed_steps(directory) if step not in validated]
    course = current_course(directory)
    if not course.ends(job.spec["checkpoint_steps"][-1]):
        waits = course.demand is not None or config_of(job).waits_for_validation
        if wish_of(workspace, job.name) == "run" and not (waits and units):
            units.append(segment_unit(job.name))
    elif not units:
        units.append(test_unit(job.name))
    return units


_PENDING: dict[str, Callable[[Workspace, Job], list[Unit]]] = {
    "generate": _of_parts,
    "cluster": _of_parts,
    "prepare": _of_split,
    "train": _of_run,
    "predict": _of_parts,
}
