"""Training and validation: a chain of segments on the `gpu` queue, a validation for each checkpoint.

A segment trains from the newest checkpoint to the next, commits it, publishes its validation, then the next
segment. A committed checkpoint without a validation is by that fact a validation to publish, so nothing is lost
when a trainer dies between the two. What alarms lead to is decided between segments, by `records.run_state`.
"""

import logging
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lhcq.errors import PermanentError
from lhcq.records.checkpoints import adapter_sha256, require_checkpoint
from lhcq.records.commits import is_commit, make_way
from lhcq.records.job_control import wish_of
from lhcq.records.jobs import Job, end_job, find_job, list_jobs, outcome_of
from lhcq.records.journal import CheckpointLine, RemovedLine, StepLine, ValidationLine, write_line
from lhcq.records.metrics import Metrics
from lhcq.records.run_state import Alarm, best_step, current_course
from lhcq.records.specs import PredictSpec, TrainSpec, TrainTerms
from lhcq.version import version as own_version
from lhcq.workspace import RunPaths, Workspace
from tasks.app import app, own_workspace
from tasks.engine.execute import perform
from tasks.engine.publish import publish_unit
from tasks.jobs.leases import Lease
from tasks.jobs.planner import pending_units
from tasks.jobs.train import segment_unit, test_unit, validate_unit
from tasks.jobs.units import Unit
from tasks.observe.tracing import note_span
from tasks.stages.alarms import SegmentWatch, begin_segment, judge_validations
from tasks.stages.model import model_of_job

_VERSIONED = ("lhcq", "torch", "transformers", "peft", "bitsandbytes")
_PAGE_SECONDS = 30.0
"""So old a run's page may get while the run goes on: drawing takes a core some two seconds."""

log = logging.getLogger(__name__)


@app.task(
    name="lhcq.train_segment",
    bind=True,
    work=staticmethod(lambda workspace, job, _, held: _train(workspace, job, held, [])),
)
def train_segment(self: Any, run: str) -> str:
    """Train a run to its next checkpoint."""
    committed: list[int] = []
    alarms: list[Alarm] = []

    def work(workspace: Workspace, job: Job, _: Unit, held: Lease) -> None:
        committed.extend(_train(workspace, job, held, alarms))

    status = perform(segment_unit(run), work, done=_trained)
    for step in committed:
        self.send_event("lhcq-checkpoint", run=run, step=step)
    _send_alarms(self, run, alarms)
    if status == "done":
        for unit in _after_segment(run, committed):
            publish_unit(unit)
    return status


@app.task(
    name="lhcq.validate",
    bind=True,
    work=staticmethod(lambda workspace, job, unit, held: _validate(workspace, job, unit.number, held, [])),
)
def validate(self: Any, run: str, step: int) -> str:
    """Score a checkpoint on the validation subset."""
    alarms: list[Alarm] = []
    status = perform(
        validate_unit(run, step),
        lambda workspace, job, _, held: _validate(workspace, job, step, held, alarms),
        done=lambda workspace, job: is_commit(workspace.validation(run, step)),
    )
    _send_alarms(self, run, alarms)
    if status == "done":
        for unit in _after_validation(run):
            publish_unit(unit)
    return status


@app.task(name="lhcq.test", work=staticmethod(lambda workspace, job, _, held: _test(workspace, job, held)))
def test(run: str) -> str:
    """Score the best checkpoint on the test subset, and end the run."""
    return perform(
        test_unit(run), lambda workspace, job, _, held: _test(workspace, job, held), done=lambda *_: False
    )


def _send_alarms(task: Any, run: str, alarms: list[Alarm]) -> None:
    """For people who look at events; the truth is the record."""
    for alarm in alarms:
        task.send_event("lhcq-alarm", run=run, **alarm.model_dump())


def _after_segment(run: str, committed: list[int]) -> list[Unit]:
    """What a segment publishes: the validation of what it committed, then the next segment, or the test.

    Validations of earlier checkpoints were published by their own segments, or will be by the reconciler. So is the
    test when its run's last checkpoint is being validated; here it follows an alarm that ends the training.
    """
    wanted = [*(validate_unit(run, step) for step in committed), segment_unit(run), test_unit(run)]
    return [unit for unit in _pending(run) if unit in wanted]


def _after_validation(run: str) -> list[Unit]:
    """What a validation publishes: the test, or the segment that has waited for it."""
    workspace = own_workspace()
    job = find_job(workspace, "train", run)
    if job is None:
        return []
    run_dir = workspace.run(run)
    waited = job.spec_of(TrainSpec).config.waits_for_validation or current_course(run_dir).demand
    wanted = [test_unit(run), *([segment_unit(run)] if waited else [])]
    return [unit for unit in _pending(run) if unit in wanted]


def _pending(run: str) -> list[Unit]:
    workspace = own_workspace()
    job = find_job(workspace, "train", run)
    return pending_units(workspace, job) if job else []


def _trained(workspace: Workspace, job: Job) -> bool:
    return is_commit(workspace.checkpoint(job.name, job.spec_of(TrainSpec).checkpoint_steps[-1]))


def _train(workspace: Workspace, job: Job, held: Lease, alarms: list[Alarm]) -> list[int]:
    """Train one segment; gives the step committed, or nothing when the run is held or must answer an alarm first."""
    from lhcq.model.checkpoint import write_checkpoint
    from lhcq.model.loop import StepRecord, train_segment
    from lhcq.model.ranks import ranks_here

    spec = job.spec_of(TrainSpec)
    config = spec.config
    run_dir = workspace.run(job.name)
    judge_validations(workspace, job, alarms)
    if segment_unit(job.name) not in pending_units(workspace, job):
        return []
    course = begin_segment(run_dir)
    until = min(step for step in spec.checkpoint_steps if step > course.step)
    watch = SegmentWatch(run_dir, config, course, alarms)

    told: list[tuple[int, dict[str, float]]] = []

    def on_step(record: StepRecord) -> bool:
        write_line(run_dir, StepLine(**record.model_dump()))
        told.append((record.step, record.model_dump(exclude={"step"})))
        watch.see(record.step, record.loss, record.grad_norm)
        return not held.lost and not watch.ends_segment and wish_of(workspace, job) == "run"

    prompts, labels, _ = _subset(workspace, job, "train")
    state = None
    with model_of_job(workspace, job, spec, held) as base, watch.refused_numbers():
        state = train_segment(
            base,
            prompts=prompts,
            labels=labels,
            config=config,
            checkpoint=workspace.checkpoint(job.name, course.origin) if course.origin else None,
            until_step=until,
            on_step=on_step,
            after_step=course.step,
            rate_factor=course.rate_factor,
            ranks=ranks_here(),
        )
    held.check()
    if watch.failure is not None:
        raise watch.failure
    if state is None or state.stopped:
        return []
    make_way(workspace.checkpoint(job.name, until))
    write_checkpoint(
        workspace.checkpoint(job.name, until),
        state,
        config_hash=spec.config_sha256,
        extra={
            "of": job.identity,
            "versions": {"lhcq": own_version()} | {name: version(name) for name in _VERSIONED},
            **watch.summary(),
        },
    )
    write_line(run_dir, CheckpointLine(step=until))
    note_span(step=until, events=(until - course.step) * config.batch_size * config.accumulation)
    _track(workspace, job, told)
    return [until]


def _track(workspace: Workspace, job: Job, values: list[tuple[int, dict[str, float]]]) -> None:
    """Tell the tracker that the run was asked to tell, if any. Nothing depends on it, so nothing fails with it."""
    name = job.terms_of(TrainTerms).track
    if name is None:
        return
    from lhcq.model.tracking import tell_tracker

    try:
        tell_tracker(name, workspace.run(job.name), values)
    except Exception as error:
        log.warning("%s: %s was not told (%s: %s)", job.title, name, type(error).__name__, error)


def _subset(workspace: Workspace, job: Job, subset: str) -> tuple[list[str], Any, Any]:
    """Prompts, labels and rows of one subset of the run's split."""
    from lhcq.records.subsets import read_subset, split_of_run

    spec = job.spec_of(TrainSpec)
    split = workspace.split(spec.split)
    split_of_run(split, job.name, spec.split_sha256)
    table = read_subset(split, subset, ["prompt", "label", "row"])
    return table["prompt"].to_pylist(), table["label"].to_numpy(), table["row"].to_numpy()


def _validate(workspace: Workspace, job: Job, step: int, held: Lease, alarms: list[Alarm]) -> None:
    from lhcq.evaluate.retention import remove_checkpoints

    started = time.time()
    run_dir = workspace.run(job.name)
    metrics = _score(
        workspace, job, step, "validation", workspace.validation(job.name, step), held
    ).model_dump()
    write_line(run_dir, ValidationLine(step=step, seconds=time.time() - started, **metrics))
    judge_validations(workspace, job, alarms)
    told = {
        key: metrics[key]
        for key in ("accuracy", "generated_accuracy", "auc", "max_sic", "nll", "ece")
        if metrics[key] is not None
    }
    _track(workspace, job, [(step, {f"validation/{key}": value for key, value in told.items()})])
    keep = job.spec_of(TrainSpec).config.keep
    if keep is not None:
        for removed in remove_checkpoints(run_dir, keep, in_use=_predicting(workspace, job.name)):
            write_line(run_dir, RemovedLine(step=removed))
    if _page_is_due(workspace, job):
        _write_page(workspace, job)


def _page_is_due(workspace: Workspace, job: Job) -> bool:
    """Whether a run's page is not there, or older than it may be, or whatever follows may be long in coming."""
    run_dir = workspace.run(job.name)
    try:
        age = time.time() - RunPaths(run_dir).page.stat().st_mtime
    except FileNotFoundError:
        return True
    fresh = 0 <= age < _PAGE_SECONDS  # of another host's clock nothing is believed
    return not fresh or wish_of(workspace, job) != "run" or current_course(run_dir).demand is not None


def _write_page(workspace: Workspace, job: Job) -> None:
    from lhcq.evaluate.comparison import compare_scores
    from lhcq.report.page import write_report

    write_report(workspace, job.name, compare_scores)


def _predicting(workspace: Workspace, run: str) -> set[int]:
    """The checkpoints with which predictions are still being made."""
    predictions = [(job, job.spec) for job in list_jobs(workspace) if isinstance(job.spec, PredictSpec)]
    return {spec.step for job, spec in predictions if spec.run == run and outcome_of(workspace, job) is None}


def _test(workspace: Workspace, job: Job, held: Lease) -> None:
    run_dir = workspace.run(job.name)
    final = RunPaths(run_dir).test
    judge_validations(workspace, job, [])
    step = best_step(run_dir)
    if step is None:
        _leave_recipe(workspace, job)
        end_job(workspace, job, "done", "trained; the validation subset is empty")
        return
    if not is_commit(final):
        _score(workspace, job, step, "test", final, held)
    _calibrate(workspace, job, step, held)
    _leave_recipe(workspace, job)
    stop = current_course(run_dir).stop
    end_job(
        workspace, job, "done", f"best checkpoint: step {step}" + (f"; ended early: {stop}" if stop else "")
    )
    _write_page(workspace, job)


def _leave_recipe(workspace: Workspace, job: Job) -> None:
    """Write what makes the run again; one whose dataset's record is damaged ends without it."""
    from lhcq.requests.recorded_recipe import write_recipe

    try:
        write_recipe(workspace, job.name)
    except PermanentError as error:
        log.warning("%s: no recipe of it could be written: %s", job.title, error)


def _calibrate(workspace: Workspace, job: Job, step: int, held: Lease) -> None:
    """Fit temperature and thresholds to the tested checkpoint on the calibration subset; show them on the test's."""
    from lhcq.evaluate.calibration import calibrated_metrics, fit_calibration
    from lhcq.records.subsets import match_rows, split_of_run
    from lhcq.records.validations import require_scores, write_calibrated

    run_dir = workspace.run(job.name)
    paths = RunPaths(run_dir)
    if not is_commit(paths.calibration):
        _score(workspace, job, step, "calibration", paths.calibration, held)
    fitted, shown = require_scores(paths.calibration), require_scores(paths.test)
    calibration = fit_calibration(fitted.labels, fitted.p_signal)
    spec = job.spec_of(TrainSpec)
    split = workspace.split(spec.split)
    features = split_of_run(split, job.name, spec.split_sha256)["features"]
    masses = match_rows(split, "test", shown.rows, ["mjj"]) if "mjj" in features else None
    write_calibrated(
        run_dir,
        calibrated_metrics(
            calibration, shown.labels, shown.p_signal, shown.answers, masses["mjj"] if masses else None
        ),
    )


def _score(workspace: Workspace, job: Job, step: int, subset: str, final: Path, held: Lease) -> Metrics:
    """Score one subset with one checkpoint and commit the metrics."""
    from lhcq.evaluate.validation import write_validation
    from lhcq.model.score import score_prompts
    from lhcq.records.validations import read_report

    spec = job.spec_of(TrainSpec)
    checkpoint = require_checkpoint(workspace.checkpoint(job.name, step), what=f"checkpoint {step}")
    prompts, labels, rows = _subset(workspace, job, subset)
    note_span(events=len(prompts))
    with model_of_job(workspace, job, spec, held) as base:
        scores = score_prompts(
            base,
            checkpoint=workspace.checkpoint(job.name, step),
            config=spec.config,
            prompts=prompts,
            batch_size=spec.config.evaluation_batch,
            on_batch=lambda _: held.check(),
        )
    make_way(final)
    metrics = write_validation(
        final,
        step=step,
        rows=rows,
        labels=labels,
        p_signal=scores.p_signal,
        answers=scores.answers,
        of=job.identity,
        checkpoint_sha256=adapter_sha256(checkpoint),
        training=checkpoint.get("training"),
    )
    log.info("%s, step %d, %s subset:\n%s", job.name, step, subset, read_report(final))
    return metrics
