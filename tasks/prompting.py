"""Prompts: one task that writes a split, chained to one that fits the boosted-tree baseline on it."""

from lhcq.config import SplitConfig
from lhcq.workspace import MANIFEST, Workspace
from tasks.app import app
from tasks.flows import publish_unit
from tasks.jobs import Job, end_job
from tasks.leases import Lease
from tasks.pending import Unit
from tasks.work import perform


@app.task(name="lhcq.prepare")
def prepare(split: str) -> str:
    """Write the prompts of a split."""
    unit = Unit(task="lhcq.prepare", args=(split,))
    status = perform("prepare", unit, _prepare, done=_split_stands)
    if status in ("done", "already"):
        publish_unit(Unit(task="lhcq.baseline", args=(split,)))
    return status


@app.task(name="lhcq.baseline")
def baseline(split: str) -> str:
    """Fit boosted trees on the split's features, and score its validation and test parts."""
    return perform("prepare", Unit(task="lhcq.baseline", args=(split,)), _baseline, done=lambda *_: False)


def _split_stands(workspace: Workspace, job: Job) -> bool:
    return (workspace.split(job.name) / MANIFEST).exists()


def _prepare(workspace: Workspace, job: Job, _: Lease) -> None:
    from lhcq.model.tokens import encode_prompts
    from lhcq.prompts.writing import write_split

    model_dir = job.spec["model_dir"]
    write_split(
        workspace.dataset(job.spec["dataset"]),
        workspace.split(job.name),
        config=SplitConfig.checked(**job.spec["config"]),
        encode=encode_prompts(workspace.root / model_dir) if model_dir else None,
        max_tokens=job.spec["max_tokens"],
        model_name=job.spec["model"],
    )


def _baseline(workspace: Workspace, job: Job, _: Lease) -> None:
    from lhcq.evaluate.baseline import fit_baseline

    final = workspace.baseline(job.name)
    if not (final / MANIFEST).exists():
        fit_baseline(workspace.split(job.name), final)
    end_job(workspace, job, "done", f"prompts in {workspace.split(job.name)}")
