"""Everything a report shows of a run, from the records in the workspace.

A run may be looked at while it is under way: what is not there yet is None, and nothing here waits for it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lhcq.errors import NotThere
from lhcq.records.checkpoints import versions_of
from lhcq.records.commits import digests_of
from lhcq.records.job_control import state_of
from lhcq.records.jobs import find_job, outcome_of
from lhcq.records.journal import CheckpointLine, Line, StepLine, read_journal
from lhcq.records.run_state import (
    alarms_of,
    answer_to,
    best_of,
    committed_steps,
    read_judgement,
    validated_steps,
)
from lhcq.records.specs import TrainSpec
from lhcq.records.subsets import match_rows, read_split
from lhcq.records.validations import find_baseline, find_calibrated, find_evaluation, read_metrics
from lhcq.report.views import Checkpoint, History, RunView
from lhcq.storage import MANIFEST
from lhcq.workspace import RunPaths, Workspace

MASSES = ("mjj", "m_heavy", "m_light")
"""Columns of a split that a report draws, GeV."""
_REPLACED = (
    "The split {!r} has been made again of other events since, so boosted trees, jet masses and whatever else is of "
    "today's split are left out here. The run's own metrics are those of the events that it was made of."
)


def collect_run(workspace: Workspace, run: str) -> RunView:
    """The view of a run; `NotThere` when there is no such run, `BadInput` when a record is damaged."""
    directory = workspace.run(run)
    job = find_job(workspace, "train", run)
    if job is None:
        raise NotThere(f"run {run!r} does not exist in {workspace.root}. `lhcq status` lists what does.")
    spec, outcome = job.spec_of(TrainSpec), outcome_of(workspace, job)
    lines = read_journal(directory)
    history = history_of(lines)
    validated = validated_steps(directory)
    checkpoints = _checkpoints(directory, spec, lines, history, validated)
    best = best_of(directory, validated)
    test = find_evaluation(RunPaths(directory).test)
    validation = find_evaluation(workspace.validation(run, best)) if best is not None else None
    split = workspace.split(spec.split)
    manifest = _manifest_of(split, spec)
    replaced = manifest is None and (split / MANIFEST).is_file()
    shown = test or validation
    return RunView(
        name=run,
        state=state_of(workspace, job, outcome),
        message=outcome.message if outcome else "",
        created=job.created,
        finished=outcome.finished if outcome else None,
        model=spec.model,
        split=spec.split,
        total_steps=spec.total_steps,
        config=spec.recorded()["config"],
        history=history,
        checkpoints=checkpoints,
        best_step=best,
        alarms=tuple((alarm, answer_to(directory, alarm)) for alarm in alarms_of(directory)),
        calibrated=find_calibrated(directory),
        validation=validation,
        test=test,
        baseline=find_baseline(
            workspace.baseline(spec.split),
            split_sha256=spec.split_sha256,
            split_stands=manifest is not None,
        ),
        manifest=manifest,
        replaced=_REPLACED.format(split.name) if replaced else "",
        masses=match_rows(split, "test" if test else "validation", shown.scores.rows, MASSES)
        if manifest and shown
        else None,
        versions=_versions(workspace, run, checkpoints),
    )


def _manifest_of(split: Path, spec: TrainSpec) -> dict[str, Any] | None:
    """The manifest of the split that the run was made of; None where another stands under its name, or none."""
    if not (split / MANIFEST).is_file():
        return None
    manifest = read_split(split)
    return manifest if digests_of(manifest) == spec.split_sha256 else None


def history_of(lines: Iterable[Line]) -> History:
    """The training by step. A step that was repeated after a crash counts as it went the last time."""
    by_step = {line.step: line for line in lines if isinstance(line, StepLine)}
    steps = [by_step[step] for step in sorted(by_step)]
    return History(
        steps=np.array([line.step for line in steps], dtype=np.int64),
        loss=np.array([line.loss for line in steps], dtype=np.float64),  # None becomes NaN
        learning_rate=np.array([line.learning_rate for line in steps], dtype=np.float64),
        samples_per_second=np.array([line.samples_per_second for line in steps], dtype=np.float64),
    )


def _checkpoints(
    directory: Path, spec: TrainSpec, lines: Iterable[Line], history: History, validated: Sequence[int]
) -> tuple[Checkpoint, ...]:
    written = {line.step for line in lines if isinstance(line, CheckpointLine)}
    written |= {*committed_steps(directory), *validated}
    steps = sorted({*spec.checkpoint_steps, *written})
    return tuple(
        Checkpoint(
            step=step,
            written=step in written,
            train_loss=_mean_loss(history, before, step),
            metrics=read_metrics(RunPaths(directory).validation(step)) if step in validated else None,
            judgement=read_judgement(directory, step),
        )
        for before, step in zip([0, *steps], steps, strict=False)
    )


def _mean_loss(history: History, after: int, until: int) -> float | None:
    """Over the steps (after, until]; None when none of them was logged with a number."""
    there = (history.steps > after) & (history.steps <= until) & np.isfinite(history.loss)
    return float(history.loss[there].mean()) if there.any() else None


def _versions(workspace: Workspace, run: str, checkpoints: Iterable[Checkpoint]) -> dict[str, str]:
    """Package versions from the newest checkpoint's manifest that has them."""
    versions: dict[str, str] = {}
    for checkpoint in checkpoints:
        versions |= versions_of(workspace.checkpoint(run, checkpoint.step))
    return versions
