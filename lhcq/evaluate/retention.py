"""Which checkpoints stay. A removed one keeps its validation, which is small, and so is no work to be done again."""

import shutil
from collections.abc import Collection
from pathlib import Path

from lhcq.records.run_state import best_step, committed_steps, validated_steps
from lhcq.records.tags import tags_of
from lhcq.storage import exclusive
from lhcq.workspace import RunPaths


def plan_retention(
    committed: Collection[int],
    *,
    validated: Collection[int],
    best: int | None,
    tagged: Collection[int],
    in_use: Collection[int],
    keep: int,
) -> list[int]:
    """The committed steps to remove.

    All but the newest `keep`, the best, the tagged, those in use elsewhere and those not yet validated.
    """
    newest = sorted(committed)[-keep:]
    kept = {*newest, *tagged, *in_use, best}
    return sorted(step for step in committed if step in validated and step not in kept)


def remove_checkpoints(run_dir: Path, keep: int, *, in_use: Collection[int]) -> list[int]:
    """Remove the checkpoints of a run that need not stay; gives their steps.

    Each is renamed to a name that no reader takes for a checkpoint, and then removed: a reader sees it whole or not
    at all, and what a death leaves under that name is removed the next time.
    """
    paths = RunPaths(run_dir)
    with exclusive(paths.retention_lock):
        steps = plan_retention(
            committed_steps(run_dir),
            validated=validated_steps(run_dir),
            best=best_step(run_dir),
            tagged=tags_of(run_dir).values(),
            in_use=in_use,
            keep=keep,
        )
        for step in steps:
            paths.checkpoint(step).rename(paths.removed_checkpoint(step))
        for removed in paths.removed_checkpoints():
            shutil.rmtree(removed, ignore_errors=True)
    return steps
