"""Asking for a search for a resonance."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lhcq.config import SearchConfig
from lhcq.errors import BadInput
from lhcq.prompts.templates import describe_template
from lhcq.records.duplicates import duplicates_sha256
from lhcq.records.events import events_sha256, read_dataset, read_events, read_schema
from lhcq.records.jobs import Job
from lhcq.records.specs import SearchSpec
from lhcq.storage import check_room
from lhcq.workspace import Workspace

_CHUNK = 50
"""Pseudo-experiments of one task: some seconds."""
_BYTES_PER_SCORE = 10
_RISE = 4.0
"""Standard deviations."""


def search_config(
    *,
    regions: tuple[float, float, float] = (2900.0, 5100.0, 400.0),
    sideband: float | None = None,
    fit: tuple[float, float] | None = None,
    model: str = "trees",
    **config: Any,
) -> SearchConfig:
    """A search's configuration with every default resolved; `regions` are from, to, width, all in GeV.

    `sideband` None is half a width; `fit` None reaches from the first sideband to six widths above the regions, where
    the spectrum has long ended. Raises `BadInput` for what cannot be.
    """
    if model != "trees":
        raise BadInput(
            f"{model!r}: searches are made with trees alone yet, since a language model would have to be trained for "
            "each region and fold. Train one by `lhcq train`, select by `lhcq predict`, or use --model trees."
        )
    low, high, width = regions
    beside = width / 2 if sideband is None else sideband
    start, end = fit or (low - beside, min(high + 6 * width, 13_500.0))
    return SearchConfig.checked(
        low=low, high=high, width=width, sideband=beside, fit_low=start, fit_high=end, **config
    )


def search_request(
    workspace: Workspace, dataset: str, config: SearchConfig, *, name: str | None = None
) -> Job:
    """The job that looks for a resonance in a dataset; `name` None is the dataset's.

    Labels are not looked at. Raises `NotThere` without the dataset, `BadInput` where it lacks m_jj or a column of the
    template.
    """
    name = name or dataset
    workspace.search(name)
    directory = workspace.dataset(dataset)
    manifest = read_dataset(directory)
    schema = read_schema(directory)
    if "mjj" not in schema.names:
        raise BadInput(
            f"{dataset}: has no m_jj to look for a resonance in. Cluster its events, or import them."
        )
    try:
        template = describe_template(config.template, schema)
    except BadInput as error:
        raise BadInput(f"{dataset}: {error}") from error
    mjj = read_events(directory, ["mjj"])["mjj"].fill_null(np.nan).to_numpy()
    _check_falls(mjj, config, dataset)
    n_events = int(in_range(mjj, config).sum())
    spec = SearchSpec.resolved(
        dataset=dataset,
        dataset_sha256=events_sha256(manifest),
        duplicates_sha256=duplicates_sha256(manifest),
        config=config.model_dump(),
        template=template.model_dump(),
        n_events=n_events,
        per_chunk=min(_CHUNK, config.pseudo_experiments),
    )
    check_room(workspace.root, _BYTES_PER_SCORE * n_events * config.n_trainings // config.folds)
    return Job(kind=spec.kind, name=name, spec=spec, parts=sum(rounds_of(spec)))


def _check_falls(mjj: NDArray[np.float64], config: SearchConfig, dataset: str) -> None:
    """Refuse a fit that begins where the spectrum still rises, as it does up to a trigger's threshold.

    The function that is fitted falls everywhere, so it would be too low above such a place, and a selection of
    background alone show an excess there. Looked at are the first two regions' widths, in pieces of half of one.
    """
    edges = config.fit_low + config.width / 2 * np.arange(5)
    counts = np.histogram(mjj[np.isfinite(mjj)], edges)[0]
    most = int(np.argmax(counts))
    if counts[most] - counts[0] > _RISE * np.sqrt(counts[most] + counts[0]):
        raise BadInput(
            f"{dataset}: m_jj rises from {config.fit_low:,.0f} GeV, where the fit begins, until about "
            f"{edges[most]:,.0f} GeV ({counts[0]:,} and {counts[most]:,} events in {config.width / 2:g} GeV), as "
            "below a trigger's threshold; background falls in every fit, so that would look like signal. Begin "
            "regions and fit above: --regions, --fit."
        )


def in_range(mjj: NDArray[np.float64], config: SearchConfig) -> NDArray[np.bool_]:
    """Which events (n,) with these masses, GeV or NaN, are in the range of the fit, (n,)."""
    with np.errstate(invalid="ignore"):
        return np.asarray((mjj >= config.fit_low) & (mjj < config.fit_high))


class Training(NamedTuple):
    """A chunk that trains on all folds but one, and scores that."""

    region: int
    seed: int
    fold: int


class Shuffle(NamedTuple):
    """A chunk that searches in one region with the m_jj of other events."""

    shuffle: int
    region: int


class Experiments(NamedTuple):
    """A chunk of pseudo-experiments [first, end)."""

    first: int
    end: int


def rounds_of(spec: SearchSpec) -> tuple[int, int]:
    """How many chunks can be made at once, and how many then: pseudo-experiments, which need all trainings."""
    config = spec.config
    trained = config.n_trainings + config.shuffles * len(config.regions)
    return trained, -(-config.pseudo_experiments // spec.per_chunk)


def chunk_of(spec: SearchSpec, index: int) -> Training | Shuffle | Experiments:
    """What the chunk of this index does: trainings come first, then shuffles, pseudo-experiments last."""
    config = spec.config
    if index < config.n_trainings:
        region, rest = divmod(index, config.seeds * config.folds)
        return Training(region, *divmod(rest, config.folds))
    trained, _ = rounds_of(spec)
    if index < trained:
        return Shuffle(*divmod(index - config.n_trainings, len(config.regions)))
    first = (index - trained) * spec.per_chunk
    return Experiments(first, min(first + spec.per_chunk, config.pseudo_experiments))
