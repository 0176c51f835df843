"""Prediction: one task a stretch of events on the queue of validations, merged by a chord into one directory.

The first chunks score the background of the split's calibration subset, which p-values are taken against; the others
score the dataset. Where a finished prediction has the same scores, there are no chunks: one task on the queue `cpu`
selects from them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lhcq.errors import BadInput, RowsMissing
from lhcq.records.checkpoints import adapter_sha256, require_checkpoint
from lhcq.records.failures import Failure
from lhcq.records.jobs import Job
from lhcq.records.specs import PredictSpec, PredictTerms
from lhcq.requests.predict import REFERENCE, stretches_of
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.jobs.leases import Lease
from tasks.jobs.store import summary_of
from tasks.observe.tracing import note_span
from tasks.stages.cluster import read_key
from tasks.stages.fanout import chunk_work, merge_work, perform_chunk, perform_merge
from tasks.stages.model import model_of_job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lhcq.jets.plan import Chunk

REMADE = "Predict again, under another name."


def _make(workspace: Workspace, job: Job, index: int, path: Path, held: Lease) -> None:
    from lhcq.evaluate.predictions import write_scored
    from lhcq.model.score import score_prompts

    spec = job.spec_of(PredictSpec)
    reference, events = stretches_of(spec)
    if index < len(reference):
        columns, prompts = _read_reference(workspace, spec, reference[index])
    else:
        columns, prompts = _read_events(workspace, spec, events[index - len(reference)])
    note_span(events=len(prompts))
    checkpoint = workspace.checkpoint(spec.run, spec.step)
    _refuse_another_checkpoint(spec, checkpoint)
    with model_of_job(workspace, job, spec, held) as base:
        scores = score_prompts(
            base,
            checkpoint=checkpoint,
            config=spec.config,
            prompts=prompts,
            batch_size=spec.config.evaluation_batch,
            on_batch=lambda _: held.check(),
        )
    write_scored(path, **columns, p_signal=scores.p_signal, answers=scores.answers)


def _refuse_another_checkpoint(spec: PredictSpec, checkpoint: Path) -> None:
    """The run's name may mean another run by now, or its checkpoint may have been made again."""
    manifest = require_checkpoint(checkpoint, remedy=REMADE)
    if adapter_sha256(manifest) != spec.checkpoint_sha256:
        raise BadInput(f"{checkpoint}: is not what this prediction began with. {REMADE}")


def _read_reference(
    workspace: Workspace, spec: PredictSpec, stretch: "Chunk"
) -> tuple[dict[str, Any], list[str]]:
    """Rows, labels and masses of the background of a stretch of the calibration subset, and its prompts as they were
    made."""
    import pyarrow.compute as pc

    from lhcq.records.subsets import read_split, read_subset_stretch

    split = _split_of(workspace, spec)
    mass = ["mjj"] if "mjj" in read_split(split, remedy=REMADE)["features"] else []
    columns = ["row", "label", "prompt", *mass]
    table = read_subset_stretch(split, REFERENCE, stretch.start, stretch.stop, columns)
    table = table.filter(pc.equal(table["label"], 0))
    mjj = table["mjj"] if mass else None
    return {"rows": table["row"], "labels": table["label"], "mjj": mjj}, table["prompt"].to_pylist()


def _read_events(
    workspace: Workspace, spec: PredictSpec, stretch: "Chunk"
) -> tuple[dict[str, Any], list[str]]:
    """Rows, labels and masses of a stretch of the dataset, and its prompts as the run's split would have them."""
    from lhcq.prompts.features import record_columns
    from lhcq.prompts.templates import read_beside, render_as
    from lhcq.records.events import events_sha256, read_dataset, read_event_stretch, read_schema

    dataset = workspace.dataset(spec.dataset)
    _refuse_remade(dataset, events_sha256(read_dataset(dataset, remedy=REMADE)), spec.dataset_sha256)
    columns = record_columns(read_schema(dataset), *read_beside(spec.template))
    records = read_event_stretch(dataset, stretch.start, stretch.stop, columns)
    prompts = render_as(spec.template, records)
    mjj = records["mjj"] if "mjj" in columns else None
    return {"rows": records["row"], "labels": records["label"], "mjj": mjj}, prompts


def _split_of(workspace: Workspace, spec: PredictSpec) -> Path:
    """The split of the run, whose reference must be what the prediction began with."""
    from lhcq.records.subsets import read_split, subset_sha256

    split = workspace.split(spec.split)
    found = subset_sha256(read_split(split, remedy=REMADE), REFERENCE)
    _refuse_remade(split, found, spec.reference_sha256)
    return split


def _refuse_remade(directory: Path, sha256: str, recorded: str) -> None:
    if sha256 != recorded:
        raise BadInput(f"{directory}: is not what this prediction began with. {REMADE}")


def _merge(workspace: Workspace, job: Job, chunks: dict[int, Path], lost: dict[int, Failure]) -> str:
    from lhcq.evaluate.predictions import ScoredEvents, read_finished, read_parts, write_prediction
    from lhcq.report.prediction import prediction_verdict, render_prediction

    if lost:
        raise RowsMissing(summary_of(list(lost.values())))
    spec, terms = job.spec_of(PredictSpec), job.terms_of(PredictTerms)

    def read() -> tuple[ScoredEvents, ScoredEvents]:
        if terms.scores_of is not None:
            return read_finished(workspace.prediction(terms.scores_of), spec)
        paths, n_reference = [chunks[index] for index in sorted(chunks)], len(stretches_of(spec).reference)
        labels = read_key(workspace, terms.labels, spec.labels_sha256, spec.n_source)
        return read_parts(paths[:n_reference]), read_parts(paths[n_reference:], labels)

    summary = write_prediction(
        workspace.prediction(job.name),
        read=read,
        n_events=spec.n_events,
        largest_p_value=spec.largest_p_value,
        of=spec.identity(),
        subsets=_subsets_of(workspace, spec) if spec.trained_on else None,
        shared=terms.shared,
        fields={"name": job.name, **spec.recorded()},
        page=render_prediction,
    )
    return " ".join(prediction_verdict(summary)[:2])


def _subsets_of(workspace: Workspace, spec: PredictSpec) -> "dict[str, NDArray[np.int64]]":
    """The rows of each subset of the run's split."""
    from lhcq.records.subsets import rows_of_subsets

    return rows_of_subsets(_split_of(workspace, spec))


@app.task(name="lhcq.predict_part", work=staticmethod(chunk_work(_make)))
def predict_part(name: str, index: int) -> str:
    """Score one stretch of events."""
    return perform_chunk("predict", name, index, _make)


@app.task(name="lhcq.predict_merge", work=staticmethod(merge_work(_merge)))
def predict_merge(name: str) -> str:
    """Merge all scores, and say what they amount to."""
    return perform_merge("predict", name, _merge)


@app.task(name="lhcq.predict_select", work=staticmethod(merge_work(_merge)))
def predict_select(name: str) -> str:
    """Select from the scores of a finished prediction, and say what that amounts to."""
    return perform_merge("predict", name, _merge)
