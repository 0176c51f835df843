"""Prompts: one task that writes a split, chained to one that fits the boosted trees beside it."""

import shutil
from pathlib import Path

from lhcq.errors import BadInput, NameTaken
from lhcq.manifests import read_manifest
from lhcq.records.commits import differing
from lhcq.records.jobs import Job, end_job
from lhcq.records.specs import PrepareSpec
from lhcq.storage import MANIFEST
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.engine.execute import perform
from tasks.engine.publish import publish_unit
from tasks.jobs.kinds import baseline_unit
from tasks.jobs.leases import Lease
from tasks.jobs.units import Unit


def _refuse_another_split(workspace: Workspace, job: Job) -> None:
    """Raise `NameTaken` where the split that stands was made of something else than was asked for."""
    split = workspace.split(job.name)
    manifest = read_manifest(split, what=f"split {job.name!r}", remedy="Make it with `lhcq prepare`.")
    asked = job.spec_of(PrepareSpec).recorded()
    wanted = {field: asked[field] for field in ("dataset", "dataset_sha256", "config")}
    if different := differing(manifest, wanted):
        raise NameTaken(f"{split}: exists already, with another {', '.join(different)}. Choose another name.")


def _prepare(workspace: Workspace, job: Job, _: Unit, held: Lease) -> None:
    from lhcq.model.tokens import encode_prompts
    from lhcq.prompts.writing import write_split

    spec = job.spec_of(PrepareSpec)
    dataset = workspace.dataset(spec.dataset)
    _refuse_another_dataset(dataset, job, spec)
    encode = None
    if spec.model_dir:
        encode = encode_prompts(workspace.permitted(workspace.root / spec.model_dir))
    held.check()
    write_split(
        dataset,
        workspace.split(job.name),
        config=spec.config,
        encode=encode,
        max_tokens=spec.max_tokens,
        model_name=spec.model,
    )


def _refuse_another_dataset(dataset: Path, job: Job, spec: PrepareSpec) -> None:
    from lhcq.records.events import events_sha256, find_dataset

    if events_sha256(find_dataset(dataset)) != spec.dataset_sha256:
        raise BadInput(
            f"{dataset}: is not the dataset that {job.title} began with. Run the same command again."
        )


def _baseline(workspace: Workspace, job: Job, _: Unit, held: Lease) -> None:
    from lhcq.evaluate.baseline import fit_baseline
    from lhcq.records.validations import is_of_another_split

    _refuse_another_split(workspace, job)
    split, final = workspace.split(job.name), workspace.baseline(job.name)
    if is_of_another_split(final, split):
        shutil.rmtree(final)
    fit_baseline(split, final)
    held.check()
    end_job(workspace, job, "done", f"prompts in {workspace.relative(split)}")


@app.task(name="lhcq.prepare", work=staticmethod(_prepare))
def prepare(split: str) -> str:
    """Write the prompts of a split."""
    status = perform(
        Unit(task="lhcq.prepare", args=(split,)),
        _prepare,
        done=lambda workspace, job: (workspace.split(job.name) / MANIFEST).exists(),
    )
    if status in ("done", "already"):
        publish_unit(baseline_unit(split))
    return status


@app.task(name="lhcq.baseline", work=staticmethod(_baseline))
def baseline(split: str) -> str:
    """Fit boosted trees on the prompts' numbers and on all features, and score validation and test subsets."""
    return perform(baseline_unit(split), _baseline, done=lambda *_: False)
