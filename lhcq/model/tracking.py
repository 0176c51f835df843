"""Experiment trackers, by accelerate's classes for them: a copy of a run's journal for people who watch it elsewhere.

Nothing in a run depends on a tracker. It is told after each segment and each validation, so a tracker that is slow or
away delays no step, and what a death kept from it is missing there and nowhere else.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lhcq.errors import BadInput
from lhcq.storage import read_json, write_record
from lhcq.workspace import RunPaths

_PROJECT = "lhcq"


def require_tracker(name: str) -> None:
    """Raise `BadInput` unless the tracker is installed here."""
    if find_spec(name) is None:
        raise BadInput(
            f"--track {name}: it is not installed. Run `pip install {name}` where the workers run, and here."
        )


def tell_tracker(name: str, run_dir: Path, values: Iterable[tuple[int, dict[str, float]]]) -> None:
    """Tell a tracker the values of some steps of a run, after what it knows of it."""
    from accelerate import PartialState

    PartialState()  # without it accelerate's classes refuse to log what they do
    tracker = _TRACKERS[name](run_dir)
    tracker.start()
    try:
        for step, of_step in values:
            tracker.log(of_step, step=step)
        if name == "mlflow":
            write_record(RunPaths(run_dir).tracked, {"run_id": tracker.tracker.info.run_id})
    finally:
        tracker.finish()


def _tensorboard(run_dir: Path) -> Any:
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker("tensorboard", logging_dir=run_dir)


def _mlflow(run_dir: Path) -> Any:
    from accelerate.tracking import MLflowTracker

    known = RunPaths(run_dir).tracked
    run_id = read_json(known)["run_id"] if known.exists() else None
    return MLflowTracker(experiment_name=_PROJECT, run_id=run_id, run_name=run_dir.name)


def _wandb(run_dir: Path) -> Any:
    from accelerate.tracking import WandBTracker

    return WandBTracker(_PROJECT, name=run_dir.name, id=run_dir.name, resume="allow", dir=str(run_dir))


def _trackio(run_dir: Path) -> Any:
    from accelerate.tracking import TrackioTracker

    return TrackioTracker(_PROJECT, name=run_dir.name, resume="allow")


_TRACKERS = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb, "trackio": _trackio}
