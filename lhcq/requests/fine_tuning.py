"""Asking for a search by a language model: how that is trained, and what it takes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lhcq.config import TREES, WEAK_TRAINING, RegionsConfig, TrainConfig
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
from lhcq.records.events import read_event_stretch, read_events, read_schema
from lhcq.records.jobs import Job
from lhcq.records.specs import FineTuning, ScanSpec, SearchSpec
from lhcq.requests.forecast import duration_in_words
from lhcq.requests.search import in_range, read_masses
from lhcq.workspace import Workspace

_FEWEST_STEPS = 64
"""Of an epoch, as far as smaller steps give more."""
_PROBED = 1000
"""Events whose prompts are counted, to tell how long trainings take."""


def training_config(config: RegionsConfig, **training: Any) -> TrainConfig | None:
    """The configuration of each training of a search's or a scan's language model; None with trees.

    `training` are values of it, None for those that were not asked for, which are those of `WEAK_TRAINING` then. A
    batch size that was asked for is a step's. Raises `BadInput` for what cannot be, such as a training of trees.
    """
    given = {key: value for key, value in training.items() if value is not None}
    if config.model == TREES:
        if given:
            options = ", ".join(f"--{key.replace('_', '-')}" for key in given)
            raise BadInput(f"{options}: of a language model's training. Trees have none; name a --model.")
        return None
    own = WEAK_TRAINING.model_dump(exclude_unset=True) | (
        {"accumulation": 1} if "batch_size" in given else {}
    )
    return TrainConfig.checked(**{**own, "seed": config.seed, **given})


def fine_tuning(
    workspace: Workspace,
    dataset: str,
    config: RegionsConfig,
    training: TrainConfig | None,
    *,
    say: Callable[[str], None],
) -> FineTuning | None:
    """How a search or a scan of a dataset trains its language model, which is obtained if need be; None with trees.

    `training` is what `training_config` gives; of few events a step has fewer prompts. Raises `NotThere` without the
    dataset, `BadInput` where nothing can be looked for in it, and for a model that cannot be had.
    """
    if training is None:
        return None
    _, _, mjj, _ = read_masses(workspace, dataset, config, beside=())  # before a model is fetched for it
    directory = obtain(config.model, workspace, say=say)
    prompts = int(np.median(_drawn(mjj, config, config.regions)))
    passes = prompts // (_FEWEST_STEPS * training.batch_size)
    follows: dict[str, Any] = {"accumulation": min(max(passes, 1), training.accumulation)}
    if training.learning_rate is None:
        follows["learning_rate"] = recommended_learning_rate(directory)
    training = training.model_copy(update=follows)
    return FineTuning(
        model=config.model,
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
    regions = config.regions if isinstance(spec, SearchSpec) else [spec.region]
    steps = [plan_run(drawn, tuning.config).total_steps for drawn in _drawn(mjj, config, regions)]
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


def _drawn(
    mjj: NDArray[np.float64], config: RegionsConfig, regions: Sequence[tuple[float, float]]
) -> list[int]:
    """About how many rows a training in each region is given, of events with these masses (n,): `drawn_rows`."""
    mjj = mjj[in_range(mjj, config)]
    drawn = []
    for low, high in regions:
        edges = [low - config.sideband, low, high, high + config.sideband]
        below, inside, above = np.histogram(mjj, edges)[0]
        drawn.append(max(2, int((inside + 2 * max(below, above)) * (config.folds - 1) / config.folds)))
    return drawn
