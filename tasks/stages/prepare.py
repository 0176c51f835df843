"""Prompts: one task that writes a split, chained to one that fits the boosted-tree baseline on it."""

import shutil
from pathlib import Path

from lhcq.commits import differing
from lhcq.config import SplitConfig
from lhcq.errors import BadInput, NameTaken
from lhcq.storage import MANIFEST, read_manifest
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.engine.execute import perform
from tasks.engine.publish import publish_unit
from tasks.jobs.leases import Lease
from tasks.jobs.planner import Unit
from tasks.jobs.store import Job, end_job


@app.task(name="lhcq.prepare")
def prepare(split: str) -> str:
    """Write the prompts of a split."""
    unit = Unit(task="lhcq.prepare", args=(split,))
    status = perform(
        "prepare", unit, _prepare, done=lambda workspace, job: (workspace.split(job.name) / MANIFEST).exists()
    )
    if status in ("done", "already"):
        publish_unit(Unit(task="lhcq.baseline", args=(split,)))
    return status


@app.task(name="lhcq.baseline")
def baseline(split: str) -> str:
    """Fit boosted trees on the split's features, and score its validation and test parts."""
    return perform("prepare", Unit(task="lhcq.baseline", args=(split,)), _baseline, done=lambda *_: False)


def _refuse_another_split(workspace: Workspace, job: Job) -> None:
    """Raise `NameTaken` where the split that stands was made of something else than was asked for."""
    split = workspace.split(job.name)
    manifest = read_manifest(split, what=f"split {job.name!r}", remedy="Make it with `lhcq prepare`.")
    wanted = {field: job.spec[field] for field in ("dataset", "dataset_sha256", "config")}
    if different := differing(manifest, wanted):
        raise NameTaken(f"{split}: exists already, with another {', '.join(different)}. Choose another name.")


def _prepare(workspace: Workspace, job: Job, _: Lease) -> None:
    from lhcq.model.tokens import encode_prompts
    from lhcq.prompts.writing import write_split

    model_dir = job.spec["model_dir"]
    dataset = workspace.dataset(job.spec["dataset"])
    _refuse_another_dataset(dataset, job)
    write_split(
        dataset,
        workspace.split(job.name),
        config=SplitConfig.checked(**job.spec["config"]),
        encode=encode_prompts(workspace.permitted(workspace.root / model_dir)) if model_dir else None,
        max_tokens=job.spec["max_tokens"],
        model_name=job.spec["model"],
    )


def _refuse_another_dataset(dataset: Path, job: Job) -> None:
    from lhcq.records.events import events_sha256

    manifest = read_manifest(dataset, what=f"dataset {dataset.name!r}", remedy="Make it with `lhcq cluster`.")
    if events_sha256(manifest) != job.spec["dataset_sha256"]:
        raise BadInput(
            f"{dataset}: is not the dataset that {job.title} began with. Run the same command again."
        )


def _baseline(workspace: Workspace, job: Job, _: Lease) -> None:
    from lhcq.evaluate.baseline import fit_baseline
    from lhcq.records.validations import is_of_another_split

    _refuse_another_split(workspace, job)
    split, final = workspace.split(job.name), workspace.baseline(job.name)
    if is_of_another_split(final, split):
        shutil.rmtree(final)
    fit_baseline(split, final)
    end_job(workspace, job, "done", f"prompts in {split}")
