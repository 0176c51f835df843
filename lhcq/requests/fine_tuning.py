"""Asking for a search by a language model: how that is trained, and what it takes."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lhcq.config import TRAIN_PRESETS, TREES, RegionsConfig, TrainConfig
from lhcq.environment import Settings
from lhcq.errors import BadInput
from lhcq.model.duration import pace_here, scoring_seconds, step_seconds
from lhcq.model.identity import identify
from lhcq.model.plan import plan_run, recommended_learning_rate
from lhcq.model.preflight import check_memory, check_packages, device_here, estimate_needs
from lhcq.model.sources import obtain
from lhcq.model.tokens import encode_prompts
from lhcq.prompts.features import record_columns
from lhcq.prompts.templates import render_as
from lhcq.records.events import find_dataset, read_event_stretch, read_events, read_schema
from lhcq.records.jobs import Job
from lhcq.records.specs import FineTuning, ScanSpec, SearchSpec
from lhcq.requests.forecast import duration_in_words
from lhcq.requests.search import in_range
from lhcq.workspace import Workspace

_PROBED = 1000
"""Events whose prompts are counted, to tell how long trainings take."""


def training_config(config: RegionsConfig, **training: Any) -> TrainConfig | None:
    """The configuration of each training of a search's or a scan's language model; None with trees.

    `training` are values of it, None for those that were not asked for. Both labels come equally often
    (`evaluate.weak.drawn_rows`), so the classes need no weights, and the words are not learnt (`answer_weight` 0):
    nobody asks these models for an answer, each is gone once it has scored its fold. Raises `BadInput` for what
    cannot be, such as a training of trees.
    """
    given = {key: value for key, value in training.items() if value is not None}
    if config.model == TREES:
        if given:
            options = ", ".join(f"--{key.replace('_', '-')}" for key in given)
            raise BadInput(f"{options}: of a language model's training. Trees have none; name a --model.")
        return None
    own = {"answer_weight": 0.0, "sampling": "balanced", "seed": config.seed}
    return TrainConfig.checked(**{**TRAIN_PRESETS["default"].model_dump(), **own, **given})


def fine_tuning(
    workspace: Workspace,
    dataset: str,
    model: str,
    training: TrainConfig | None,
    *,
    say: Callable[[str], None],
) -> FineTuning | None:
    """How a search or a scan of a dataset trains its language model, which is obtained if need be; None with trees.

    `training` is what `training_config` gives. Raises `NotThere` without the dataset, `BadInput` for a model that
    cannot be had.
    """
    if training is None:
        return None
    find_dataset(workspace.dataset(dataset))  # before a model is fetched for it
    directory = obtain(model, workspace, say=say)
    if training.learning_rate is None:
        training = training.model_copy(update={"learning_rate": recommended_learning_rate(directory)})
    return FineTuning(
        model=model,
        model_dir=workspace.relative(directory),
        base=identify(directory, workspace.digests),
        config=training,
    )


def effort_of(workspace: Workspace, job: Job) -> list[str]:
    """What a search or a scan by a language model takes, in lines: its trainings, and what is known of this machine.
    Empty where trees do it.

    Without a broker of one's own it is this machine that trains; raises `BadInput` where it has not the memory.
    """
    spec = job.spec
    if not isinstance(spec, SearchSpec | ScanSpec) or spec.tuning is None:
        return []
    tuning, config = spec.tuning, spec.config
    directory = workspace.root / tuning.model_dir
    records = read_event_stretch(
        workspace.dataset(spec.dataset),
        0,
        _PROBED,
        record_columns(read_schema(workspace.dataset(spec.dataset))),
    )
    tokens = [len(ids) for ids in encode_prompts(directory)(render_as(spec.template, records))]
    mjj = read_events(workspace.dataset(spec.dataset), ["mjj"])["mjj"].fill_null(np.nan).to_numpy()
    mjj = mjj[in_range(mjj, config)]
    steps = [
        plan_run(_drawn(mjj, region, config.sideband, config.folds), tuning.config).total_steps
        for region in (config.regions if isinstance(spec, SearchSpec) else [spec.region])
    ]
    n_trainings, n_events = _trainings_of(spec)
    said = f"{n_trainings:,} trainings of {tuning.model}, of {min(steps):,}"
    lines = [f"{said}{f' to {max(steps):,}' if min(steps) < max(steps) else ''} steps each"]
    if Settings.from_environment().broker_url is not None:
        return lines
    check_packages(directory)
    device, pace, longest = device_here(), pace_here(), max(tokens)
    needs = estimate_needs(directory, tuning.config, longest=longest, bfloat16=device.bfloat16)
    if needs is not None:
        lines.append(f"training {check_memory(needs, device, tuning.config, longest=longest)}")
    if pace is not None:
        mean = float(np.mean(tokens))
        seconds = float(np.mean(steps)) * step_seconds(directory, tuning.config, mean, pace)
        seconds += scoring_seconds(directory, n_events // config.folds, mean, pace)
        lines.append(
            f"about {duration_in_words(seconds)} a training, {duration_in_words(n_trainings * seconds)} for all, "
            "where this machine has nothing else to do"
        )
    return lines


def _trainings_of(spec: SearchSpec | ScanSpec) -> tuple[int, int]:
    """How many trainings there are, and of how many events each scores a fold."""
    if isinstance(spec, ScanSpec):
        return len(spec.config.points) * spec.config.folds, spec.n_background
    config = spec.config
    shuffled = config.shuffles * len(config.regions) * config.folds * config.seeds
    return config.n_trainings + shuffled, spec.n_events


def _drawn(mjj: NDArray[np.float64], region: tuple[float, float], sideband: float, folds: int) -> int:
    """About how many rows a training in a region is given, of masses in the fit's range: `drawn_rows`."""
    low, high = region
    edges = [low - sideband, low, high, high + sideband]
    below, inside, above = np.histogram(mjj, edges)[0]
    return max(2, int((inside + 2 * max(below, above)) * (folds - 1) / folds))
