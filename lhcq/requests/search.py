"""Asking for a search for a resonance."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lhcq.config import LONGEST_NAME, TREES, RegionsConfig, SearchConfig
from lhcq.errors import BadInput
from lhcq.prompts.templates import describe_template
from lhcq.records.commits import OF
from lhcq.records.duplicates import duplicates_sha256, read_firsts
from lhcq.records.events import (
    events_sha256,
    read_dataset,
    read_events,
    read_schema,
)
from lhcq.records.jobs import Job, find_job
from lhcq.records.searches import finished_searches
from lhcq.records.specs import FineTuning, SearchSpec, Template
from lhcq.storage import check_room
from lhcq.workspace import Workspace

_CHUNK = 50
"""Pseudo-experiments of one task: some seconds."""
_BYTES_PER_SCORE = 10
_RISE = 4.0
"""Standard deviations."""
_ALIKE = ("low", "high", "width", "fit_low", "fit_high", "folds", "selections")
"""What of their configurations two searches have to share, so that their rows can stand beside each other."""


def search_config(
    *,
    regions: tuple[float, float, float] = (2900.0, 5100.0, 400.0),
    sideband: float | None = None,
    fit: tuple[float, float] | None = None,
    shuffles: int | None = None,
    model: str = TREES,
    **config: Any,
) -> SearchConfig:
    """A search's configuration with every default resolved; `regions` are from, to, width, all in GeV.

    `sideband` None is a width; `fit` None reaches from half a width below the regions, or from a narrower sideband,
    to six widths above them, where the spectrum has long ended. `shuffles` None are 10 with trees, and none with a
    language model, since each would be a training for every region and fold. Raises `BadInput` for what cannot be.
    """
    if shuffles is not None:
        config["shuffles"] = shuffles
    elif model != TREES:
        config["shuffles"] = 0
    return SearchConfig.checked(**resolve_regions(regions, sideband, fit), model=model, **config)


def resolve_regions(
    regions: tuple[float, float, float], sideband: float | None, fit: tuple[float, float] | None
) -> dict[str, float]:
    """The fields of a `RegionsConfig` that say where, as `search_config` has them, all in GeV."""
    low, high, width = regions
    beside = width if sideband is None else sideband
    start, end = fit or (low - min(beside, width / 2), min(high + 6 * width, 13_500.0))
    return {
        "low": low, "high": high, "width": width, "sideband": beside, "fit_low": start, "fit_high": end,
    }  # fmt: skip


def search_request(
    workspace: Workspace,
    dataset: str,
    config: SearchConfig,
    *,
    name: str | None = None,
    tuning: FineTuning | None = None,
    beside: str | None = None,
) -> Job:
    """The job that looks for a resonance in a dataset; `name` None is the dataset's, with the language model's.

    `tuning` is what `requests.fine_tuning` gives. `beside` names the finished search by trees whose rows are shown
    beside a language model's; None is one of the same dataset, regions, folds, selections and fit, if there is one.

    Labels are not looked at. Raises `NotThere` without the dataset, `BadInput` where it lacks m_jj or a column of the
    template, and for a search that cannot stand beside this one.
    """
    if (tuning is None) != (config.model == TREES):
        raise ValueError("a search by a language model needs to know how that is trained, and no other does")
    name = name or default_name(dataset, config.model)
    workspace.search(name)
    manifest, template, mjj, events = read_masses(workspace, dataset, config, beside=("row",))
    kept = in_range(mjj, config)
    n_events = int(kept.sum())
    spec = SearchSpec.resolved(
        dataset=dataset,
        dataset_sha256=events_sha256(manifest),
        duplicates_sha256=duplicates_sha256(manifest),
        config=config.model_dump(),
        template=template.model_dump(),
        n_events=n_events,
        per_chunk=min(_CHUNK, config.pseudo_experiments),
        **({} if tuning is None else {"tuning": tuning.model_dump()}),
        **_beside(workspace, name, dataset, events_sha256(manifest), config, beside),
    )
    directory = workspace.dataset(dataset)
    rows = events["row"].to_numpy()[kept]
    refuse_few(rows, mjj[kept], config, config.regions, [config.seed], directory, manifest)
    check_room(workspace.root, _BYTES_PER_SCORE * n_events * config.n_trainings // config.folds)
    return Job(kind=spec.kind, name=name, spec=spec, parts=sum(rounds_of(spec)))


def read_masses(
    workspace: Workspace, dataset: str, config: RegionsConfig, *, beside: Sequence[str]
) -> tuple[dict[str, Any], Template, NDArray[np.float64], pa.Table]:
    """A dataset's manifest, the template on its records, its m_jj (n_events,), GeV or NaN, and the columns `beside`.

    Raises `NotThere` without the dataset, and `BadInput` where nothing can be looked for in it.
    """
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
    events = read_events(directory, ["mjj", *beside])
    mjj: NDArray[np.float64] = events["mjj"].fill_null(np.nan).to_numpy()
    _check_falls(mjj, config, dataset)
    return manifest, template, mjj, events.select(beside)


def default_name(dataset: str, model: str) -> str:
    """Of a search: the dataset's, and with a language model its name as well, so that the trees' keep theirs."""
    if model == TREES:
        return dataset
    return f"{dataset}-{re.sub('[^A-Za-z0-9._-]+', '-', Path(model).name)}"[:LONGEST_NAME]


def _beside(
    workspace: Workspace, name: str, dataset: str, sha256: str, config: SearchConfig, asked: str | None
) -> dict[str, Any]:
    """The field of the search whose rows stand beside this one's, if there is one.

    A search that was recorded without being told which keeps what it found then, so that the same command goes on.
    """
    if config.model == TREES:
        if asked is not None:
            raise BadInput("--beside: is what a language model's search is compared with. Name a --model.")
        return {}
    earlier = find_job(workspace, SearchSpec.model_fields["kind"].default, name)
    if asked is None and earlier is not None and isinstance(earlier.spec, SearchSpec):
        recorded = earlier.spec.beside
        return {} if recorded is None else {"beside": recorded.model_dump()}
    finished = finished_searches(workspace)
    candidates = [asked] if asked is not None else [dataset, *sorted(finished.keys() - {dataset})]
    for one in candidates:
        if one not in finished:
            different = "it is not there, or not finished"
        else:
            unlike = _unlike(finished[one], sha256, config)
            if not unlike:
                return {"beside": {"name": one, "identity": finished[one][OF]}}
            different = f"it has another {', '.join(unlike)}"
        if asked is not None:
            raise BadInput(
                f"--beside {asked}: no search by trees that could stand beside this one: {different}. "
                "`lhcq ls --kind search` shows those that there are."
            )
    return {}


def _unlike(manifest: dict[str, Any], sha256: str, config: SearchConfig) -> list[str]:
    """In what a finished search differs from one that its rows could stand beside."""
    there, here = manifest["config"], config.model_dump(mode="json")
    different = [] if manifest["dataset_sha256"] == sha256 else ["dataset"]
    different += [] if there["model"] == TREES else ["learner than trees"]
    return different + [one for one in _ALIKE if there[one] != here[one]]


def _check_falls(mjj: NDArray[np.float64], config: RegionsConfig, dataset: str) -> None:
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


def refuse_few(
    rows: NDArray[np.int64],
    mjj: NDArray[np.float64],
    config: RegionsConfig,
    regions: Sequence[tuple[float, float]],
    seeds: Sequence[int],
    directory: Path,
    manifest: dict[str, Any],
) -> None:
    """Refuse, before hours of trainings, regions of which one has too few of the events (n,) to learn from.

    That is asked of the folds that each of the seeds deals.
    """
    from lhcq.evaluate.weak import WeakEvents, check_enough

    firsts = read_firsts(directory, manifest, rows)
    for seed in seeds:
        folds = deal_folds(firsts, manifest, config.folds, seed)
        events = WeakEvents(rows=rows, mjj=mjj, folds=folds, values=np.zeros((len(rows), 0)))
        try:
            check_enough(events, regions, config.sideband)
        except BadInput as error:
            raise BadInput(f"{directory.name}: {error}") from error


def deal_folds(
    firsts: NDArray[np.int64], manifest: dict[str, Any], n_folds: int, seed: int
) -> NDArray[np.int8]:
    """The fold of each event (n,) of a dataset, of which `firsts` are the first rows with the same event."""
    from lhcq.evaluate.weak import assign_folds

    return assign_folds(firsts, n_folds, f"{manifest['source_sha256']} {seed}")


def in_range(mjj: NDArray[np.float64], config: RegionsConfig) -> NDArray[np.bool_]:
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
