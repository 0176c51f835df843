"""Training and validation: a chain of segments on the `gpu` queue, a validation for each checkpoint.

A segment trains from the newest checkpoint to the next, commits it, publishes its validation, then the next
segment. A committed checkpoint without a validation is by that fact a validation to publish, so nothing is lost
when a trainer dies between the two.
"""

import logging
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lhcq.config import TrainConfig
from lhcq.errors import BadInput
from lhcq.workspace import MANIFEST, Workspace, append_line, read_manifest
from tasks.app import app, workspace
from tasks.controls import wish_of
from tasks.flows import publish_unit
from tasks.jobs import Job, end_job, find_job
from tasks.leases import Lease
from tasks.pending import Unit, pending_units, segment_unit, test_unit, validate_unit
from tasks.work import perform

_VERSIONED = ("lhcq", "torch", "transformers", "peft", "bitsandbytes")

log = logging.getLogger(__name__)


@app.task(name="lhcq.train_segment", bind=True)
def train_segment(self: Any, run: str) -> str:
    """Train a run to its next checkpoint."""
    committed: list[int] = []

    def work(place: Workspace, job: Job, held: Lease) -> None:
        committed.extend(_train(place, job, held))

    status = perform("train", segment_unit(run), work, done=_trained)
    for step in committed:
        self.send_event("lhcq-checkpoint", run=run, step=step)
    if status == "done":
        for unit in _after_segment(run, committed):
            publish_unit(unit)
    return status


@app.task(name="lhcq.validate")
def validate(run: str, step: int) -> str:
    """Score a checkpoint on the validation part."""
    status = perform(
        "train",
        validate_unit(run, step),
        lambda place, job, held: _validate(place, job, step, held),
        done=lambda place, job: (place.validation(run, step) / MANIFEST).exists(),
    )
    if status == "done":
        for unit in _pending(run):
            if unit == test_unit(run):
                publish_unit(unit)
    return status


@app.task(name="lhcq.test")
def test(run: str) -> str:
    """Score the best checkpoint on the test part, and end the run."""
    return perform("train", test_unit(run), _test, done=lambda *_: False)


def _after_segment(run: str, committed: list[int]) -> list[Unit]:
    """What a segment publishes: the validation of what it committed, then the next segment.

    Validations of earlier checkpoints were published by their own segments, or will be by the reconciler.
    """
    wanted = [*(validate_unit(run, step) for step in committed), segment_unit(run)]
    return [unit for unit in _pending(run) if unit in wanted]


def _pending(run: str) -> list[Unit]:
    place = workspace()
    job = find_job(place, "train", run)
    return pending_units(place, job) if job else []


def _trained(place: Workspace, job: Job) -> bool:
    last: int = job.spec["checkpoint_steps"][-1]
    return (place.checkpoint(job.name, last) / MANIFEST).exists()


def _train(place: Workspace, job: Job, held: Lease) -> list[int]:
    """Train one segment; gives the step committed, or nothing when the run was paused or cancelled."""
    from lhcq.model.checkpoint import newest_checkpoint, write_checkpoint
    from lhcq.model.loop import StepRecord, train_segment
    from lhcq.model.resident import resident_base

    if wish_of(place, job.name) != "run":
        return []
    journal = place.run(job.name) / "events.jsonl"
    newest = newest_checkpoint(place.run(job.name) / "checkpoints")
    reached = newest[0] if newest else 0
    until = min(step for step in job.spec["checkpoint_steps"] if step > reached)

    def on_step(record: StepRecord) -> bool:
        append_line(journal, {"event": "step", "time": time.time(), **record.model_dump()})
        return not held.lost and wish_of(place, job.name) == "run"

    prompts, labels, _ = _part(place, job, "train")
    state = train_segment(
        resident_base(place.root / job.spec["model_dir"]),
        prompts=prompts,
        labels=labels,
        config=TrainConfig.checked(**job.spec["config"]),
        checkpoint=newest[1] if newest else None,
        until_step=until,
        on_step=on_step,
    )
    held.check()
    if state.stopped:
        return []
    versions = {name: version(name) for name in _VERSIONED}
    write_checkpoint(
        place.checkpoint(job.name, until),
        state,
        config_hash=job.spec["config_sha256"],
        extra={"versions": versions},
    )
    append_line(journal, {"event": "checkpoint", "time": time.time(), "step": until})
    return [until]


def _part(place: Workspace, job: Job, part: str) -> tuple[list[str], Any, Any]:
    """Prompts, labels and rows of one part of the run's split."""
    import pyarrow.parquet as pq

    split = place.split(job.spec["split"])
    manifest = read_manifest(
        split, what=f"split {split.name!r}", remedy="Make it again with the same `lhcq prepare`."
    )
    if {name: facts["sha256"] for name, facts in manifest["files"].items()} != job.spec["split_sha256"]:
        raise BadInput(
            f"{split}: is not the split that run {job.name!r} began with. Train under another name."
        )
    table = pq.read_table(split / f"{part}.parquet", columns=["prompt", "label", "row"])
    return table["prompt"].to_pylist(), table["label"].to_numpy(), table["row"].to_numpy()


def _validate(place: Workspace, job: Job, step: int, held: Lease) -> None:
    from lhcq.report.page import write_report

    started = time.time()
    figures = _score(place, job, step, "validation", place.validation(job.name, step), held)
    line = {"event": "validation", "step": step, "seconds": time.time() - started}
    append_line(place.run(job.name) / "events.jsonl", {**line, "time": time.time(), **figures})
    write_report(place, job.name)


def _test(place: Workspace, job: Job, held: Lease) -> None:
    from lhcq.evaluate.validation import best_step
    from lhcq.report.page import write_report

    final = place.run(job.name) / "test"
    step = best_step(place.run(job.name))
    if step is None:
        end_job(place, job, "done", "trained; the validation part is empty")
        return
    if not (final / MANIFEST).exists():
        _score(place, job, step, "test", final, held)
    end_job(place, job, "done", f"best checkpoint: step {step}")
    write_report(place, job.name)


def _score(place: Workspace, job: Job, step: int, part: str, final: Path, held: Lease) -> dict[str, Any]:
    """Score one part with one checkpoint and commit the figures."""
    from lhcq.evaluate.validation import write_validation
    from lhcq.model.resident import resident_base
    from lhcq.model.score import score_prompts

    config = TrainConfig.checked(**job.spec["config"])
    prompts, labels, rows = _part(place, job, part)
    scores = score_prompts(
        resident_base(place.root / job.spec["model_dir"]),
        checkpoint=place.checkpoint(job.name, step),
        config=config,
        prompts=prompts,
        batch_size=config.evaluation_batch,
        on_batch=lambda _: held.check(),
    )
    figures = write_validation(
        final, step=step, rows=rows, labels=labels, p_signal=scores.p_signal, unknown=scores.unknown
    )
    log.info("%s, step %d, %s part:\n%s", job.name, step, part, (final / "report.txt").read_text("utf-8"))
    return figures.model_dump()
