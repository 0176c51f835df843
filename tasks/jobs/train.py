"""The units of a training, for `tasks.jobs.kinds`: what is left of a run, and what each unit is about."""

from collections.abc import Callable
from pathlib import Path

from lhcq.records.job_control import wish_of
from lhcq.records.jobs import Job
from lhcq.records.run_state import committed_steps, current_course, reached_step, validated_steps
from lhcq.records.specs import TrainSpec
from lhcq.workspace import Workspace
from tasks.jobs.units import Caption, Unit


def segment_unit(run: str) -> Unit:
    """The unit that trains to the next checkpoint."""
    return Unit(task="lhcq.train_segment", args=(run,))


def validate_unit(run: str, step: int) -> Unit:
    """The unit that scores a checkpoint on the validation subset."""
    return Unit(task="lhcq.validate", args=(run, step))


def test_unit(run: str) -> Unit:
    """The unit that scores the best checkpoint on the test subset and ends the run."""
    return Unit(task="lhcq.test", args=(run,))


def plan_run(workspace: Workspace, job: Job) -> list[Unit]:
    """A validation for each checkpoint that has none, then the next segment, or the test once training has ended.

    A checkpoint that was removed has its validation still, so it was reached and is no work any more.
    """
    spec, directory = job.spec_of(TrainSpec), workspace.run(job.name)
    validated = validated_steps(directory)
    units = [validate_unit(job.name, step) for step in committed_steps(directory) if step not in validated]
    course = current_course(directory)
    if not course.ends(spec.checkpoint_steps[-1]):
        waits = course.demand is not None or spec.config.waits_for_validation
        if wish_of(workspace, job) == "run" and not (waits and units):
            units.append(segment_unit(job.name))
    elif not units:
        units.append(test_unit(job.name))
    return units


def parents_of_run(workspace: Workspace, job: Job) -> list[Path]:
    """The split and the model that a run is made of."""
    spec = job.spec_of(TrainSpec)
    return [workspace.split(spec.split), workspace.root / spec.model_dir]


def describe_run(workspace: Workspace, job: Job) -> Callable[[Unit], Caption]:
    """Tells of each unit which steps of the run it is about."""

    def describe(unit: Unit) -> Caption:
        return {"run": job.name, **steps(unit)}

    def steps(unit: Unit) -> Caption:
        """The steps that a unit trains, or the checkpoint that it scores."""
        if unit.number is not None:
            return {"step": str(unit.number)}
        if unit != segment_unit(job.name):
            return {}
        reached = reached_step(workspace.run(job.name))
        checkpoints = job.spec_of(TrainSpec).checkpoint_steps
        until = min((step for step in checkpoints if step > reached), default=reached)
        return {"steps": f"{reached + 1}-{until}"}

    return describe
