"""Asking for the prompts of a dataset."""

from collections.abc import Callable
from pathlib import Path

from lhcq.config import SplitConfig
from lhcq.extras import missing_for_training
from lhcq.model.sources import default_at_hand, obtain
from lhcq.records.events import events_sha256, find_dataset
from lhcq.records.jobs import Job
from lhcq.records.specs import PrepareSpec
from lhcq.workspace import Workspace


def prepare_request(
    workspace: Workspace,
    dataset: str,
    split: str,
    config: SplitConfig,
    *,
    model: str | None = None,
    model_dir: Path | None = None,
    max_tokens: int = 512,
) -> Job:
    """The job that makes the split `split` of a dataset.

    `model` in `model_dir` is the one whose tokens are counted (None: none is); a prompt of more than `max_tokens` of
    them is refused.
    """
    workspace.split(split)
    manifest = find_dataset(workspace.dataset(dataset))
    spec = PrepareSpec.resolved(
        dataset=dataset,
        dataset_sha256=events_sha256(manifest),
        config=config.model_dump(),
        model=model,
        model_dir=workspace.relative(model_dir) if model_dir else None,
        max_tokens=max_tokens,
    )
    return Job(kind=spec.kind, name=split, spec=spec)


def model_for_tokens(
    model: str | None, workspace: Workspace, say: Callable[[str], None]
) -> tuple[str | None, Path | None]:
    """The model to count tokens for, as asked and as a directory; none where lhcq[train] is not installed."""
    if model is None and missing_for_training() is not None:
        say("tokens are not counted here (lhcq[train] is not installed); training counts them.")
        return None, None
    name = model or default_at_hand(workspace)
    return name, obtain(name, workspace, say=say)
