"""Prediction: one task a stretch of events on the queue of validations, merged by a chord into one directory.

The first parts score the background of the split's calibration subset, which p-values are taken against; the others
score the dataset.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lhcq.config import TrainConfig
from lhcq.errors import BadInput, RowsMissing
from lhcq.records.checkpoints import adapter_sha256, require_checkpoint
from lhcq.storage import MANIFEST
from lhcq.workspace import Workspace
from tasks.app import app, workspace
from tasks.jobs.leases import Lease
from tasks.jobs.store import Failure, Job, summary_of
from tasks.observe.tracing import note_span
from tasks.stages.cluster import key_of
from tasks.stages.fanout import perform_merge, perform_part

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lhcq.jets.plan import Chunk

REFERENCE = "calibration"
"""The subset of the split whose background p-values are taken against."""
REMADE = "Predict again, under another name."


class Stretches(NamedTuple):
    """What the parts of a prediction score, the reference first, each by positions in its file."""

    reference: "list[Chunk]"
    events: "list[Chunk]"


@app.task(name="lhcq.predict_part")
def predict_part(name: str, index: int) -> str:
    """Score one stretch of events."""
    return perform_part("predict", name, index, _make)


@app.task(name="lhcq.predict_merge")
def predict_merge(name: str) -> str:
    """Merge all scores, and say what they amount to."""
    return perform_merge("predict", name, _merge)


def stretches_of(spec: dict[str, Any]) -> Stretches:
    """The stretches of a prediction, by the spec of its job."""
    from lhcq.jets.plan import plan_chunks

    target = spec["events_per_chunk"]
    return Stretches(
        *(plan_chunks(spec[count], storage_rows=1, target=target) for count in ("n_reference", "n_events"))
    )


def _make(job: Job, index: int, path: Path, held: Lease) -> None:
    _score(workspace(), job, index, path, held)


def _score(workspace: Workspace, job: Job, index: int, path: Path, held: Lease) -> None:
    from lhcq.evaluate.predictions import write_scored
    from lhcq.model.model_cache import resident_base
    from lhcq.model.score import score_prompts

    reference, events = stretches_of(job.spec)
    if index < len(reference):
        columns, prompts = _read_reference(workspace, job, reference[index])
    else:
        columns, prompts = _read_events(workspace, job, events[index - len(reference)])
    note_span(events=len(prompts))
    config = TrainConfig.checked(**job.spec["config"])
    checkpoint = workspace.checkpoint(job.spec["run"], job.spec["step"])
    _refuse_another_checkpoint(job, checkpoint)
    scores = score_prompts(
        resident_base(
            workspace.permitted(workspace.root / job.spec["model_dir"]),
            recorded=job.spec.get("base"),
            cache=workspace.digests,
        ),
        checkpoint=checkpoint,
        config=config,
        prompts=prompts,
        batch_size=config.evaluation_batch,
        on_batch=lambda _: held.check(),
    )
    write_scored(path, **columns, p_signal=scores.p_signal, unknown=scores.unknown)


def _refuse_another_checkpoint(job: Job, checkpoint: Path) -> None:
    """The run's name may mean another run by now, or its checkpoint may have been made again."""
    manifest = require_checkpoint(checkpoint, remedy=REMADE)
    if adapter_sha256(manifest) != job.spec["checkpoint_sha256"]:
        raise BadInput(f"{checkpoint}: is not what this prediction began with. {REMADE}")


def _read_reference(workspace: Workspace, job: Job, stretch: "Chunk") -> tuple[dict[str, Any], list[str]]:
    """Rows and labels of the background of a stretch of the calibration subset, and its prompts as they were made."""
    import pyarrow.compute as pc

    from lhcq.records.subsets import read_subset_stretch

    split = _split(workspace, job)
    table = read_subset_stretch(split, REFERENCE, stretch.start, stretch.stop, ["row", "label", "prompt"])
    table = table.filter(pc.equal(table["label"], 0))
    return {"rows": table["row"], "labels": table["label"], "mjj": None}, table["prompt"].to_pylist()


def _read_events(workspace: Workspace, job: Job, stretch: "Chunk") -> tuple[dict[str, Any], list[str]]:
    """Rows, labels and masses of a stretch of the dataset, and its prompts as the run's split would have them."""
    from lhcq.prompts.features import record_columns
    from lhcq.prompts.templates import Template, render_as
    from lhcq.records.events import events_sha256, read_dataset, read_event_stretch, read_schema

    dataset = workspace.dataset(job.spec["dataset"])
    _refuse_remade(dataset, events_sha256(read_dataset(dataset, remedy=REMADE)), job.spec["dataset_sha256"])
    columns = record_columns(read_schema(dataset))
    records = read_event_stretch(dataset, stretch.start, stretch.stop, columns)
    prompts = render_as(Template.checked(**job.spec["template"]), records)
    mjj = records["mjj"] if "mjj" in columns else None
    return {"rows": records["row"], "labels": records["label"], "mjj": mjj}, prompts


def _split(workspace: Workspace, job: Job) -> Path:
    """The split of the run, whose reference must be what the prediction began with."""
    from lhcq.records.subsets import read_split, subset_sha256

    split = workspace.split(job.spec["split"])
    _refuse_remade(
        split, subset_sha256(read_split(split, remedy=REMADE), REFERENCE), job.spec["reference_sha256"]
    )
    return split


def _refuse_remade(directory: Path, sha256: str, recorded: str) -> None:
    if sha256 != recorded:
        raise BadInput(f"{directory}: is not what this prediction began with. {REMADE}")


def _merge(workspace: Workspace, job: Job, parts: dict[int, Path], lost: dict[int, Failure]) -> str:
    from lhcq.evaluate.predictions import write_prediction
    from lhcq.report.prediction import prediction_verdict, render_prediction

    if lost:
        raise RowsMissing(summary_of(list(lost.values())))
    final = workspace.prediction(job.name)
    paths = [parts[index] for index in sorted(parts)]
    if (final / MANIFEST).exists():  # the parts may be gone
        paths = []
    n_reference = len(stretches_of(job.spec).reference)
    summary = write_prediction(
        final,
        reference=paths[:n_reference],
        scored=paths[n_reference:],
        n_events=job.spec["n_events"],
        largest_p_value=job.spec["largest_p_value"],
        labels=key_of(job, job.spec["n_source"]),
        subsets=_subsets_of(workspace, job) if job.spec["trained_on"] else None,
        fields={"name": job.name, **job.spec},
        page=render_prediction,
    )
    return " ".join(prediction_verdict(summary)[:2])


def _subsets_of(workspace: Workspace, job: Job) -> "dict[str, NDArray[np.int64]]":
    """The rows of each subset of the run's split."""
    from lhcq.records.subsets import rows_of_subsets

    return rows_of_subsets(_split(workspace, job))
