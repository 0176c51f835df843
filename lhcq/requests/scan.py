"""Asking what a search would find of so many signal events."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lhcq.config import TREES, ScanConfig
from lhcq.errors import BadInput
from lhcq.records.duplicates import duplicates_sha256
from lhcq.records.events import events_sha256
from lhcq.records.jobs import Job
from lhcq.records.specs import FineTuning, ScanSpec
from lhcq.requests.search import default_name, in_range, read_masses, refuse_few, resolve_regions
from lhcq.storage import check_room
from lhcq.workspace import Workspace

IDEALISED, SUPERVISED = "idealised", "supervised"
_BYTES_PER_SCORE = 10


def scan_config(
    put_in: Sequence[int],
    *,
    regions: tuple[float, float, float] = (2900.0, 5100.0, 400.0),
    sideband: float | None = None,
    fit: tuple[float, float] | None = None,
    model: str = TREES,
    **config: Any,
) -> ScanConfig:
    """A scan's configuration with every default resolved, as `requests.search.search_config` resolves a search's.

    `put_in` are the numbers of signal events. Raises `BadInput` for what cannot be.
    """
    where = resolve_regions(regions, sideband, fit)
    return ScanConfig.checked(**where, model=model, put_in=tuple(put_in), **config)


def scan_request(
    workspace: Workspace,
    dataset: str,
    config: ScanConfig,
    *,
    name: str | None = None,
    tuning: FineTuning | None = None,
) -> Job:
    """The job that puts signal of a labelled dataset among its background; `name` None is as that of a search.

    `tuning` is what `requests.fine_tuning` gives. Of the regions the one with most of the dataset's signal is tested.
    Raises `NotThere` without the dataset, and `BadInput` where a search in it could not be, where events have no
    label, and where there is too little signal.
    """
    from lhcq.evaluate.injection import check_injectable

    if (tuning is None) != (config.model == TREES):
        raise ValueError("a scan by a language model needs to know how that is trained, and no other does")
    name = name or default_name(dataset, config.model)
    workspace.scan(name)
    manifest, template, mjj, events = read_masses(workspace, dataset, config, beside=("label", "row"))
    kept = in_range(mjj, config)
    labels = events["label"].fill_null(-1).to_numpy()[kept]
    if n_unknown := int((labels < 0).sum()):
        raise BadInput(
            f"{dataset}: {n_unknown:,} of the {len(labels):,} events in the fit's range have no label, and a scan "
            "puts signal that is known among background that is known. Scan generated events, or the research set."
        )
    signal = mjj[kept][labels == 1]
    try:
        check_injectable(len(signal), max(config.put_in))
    except BadInput as error:
        raise BadInput(f"{dataset}: {error}") from error
    region = _fullest(signal, config.regions)
    # With all signal put in: a point that puts in less may still have too few, which its training says.
    seeds = sorted({seed for _, seed in config.points})
    rows = events["row"].to_numpy()[kept]
    refuse_few(rows, mjj[kept], config, [region], seeds, workspace.dataset(dataset), manifest)
    n_background = len(labels) - len(signal)
    spec = ScanSpec.resolved(
        dataset=dataset,
        dataset_sha256=events_sha256(manifest),
        duplicates_sha256=duplicates_sha256(manifest),
        config=config.model_dump(),
        region=region,
        template=template.model_dump(),
        n_background=n_background,
        n_signal=len(signal),
        tuning=None if tuning is None else tuning.model_dump(),
    )
    n_scores = (n_background + max(config.put_in)) * len(config.points) * len(learners_of(spec))
    check_room(workspace.root, _BYTES_PER_SCORE * n_scores)
    return Job(kind=spec.kind, name=name, spec=spec, parts=len(config.points) * config.folds)


def _fullest(signal: NDArray[np.float64], regions: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return max(regions, key=lambda region: int(((signal >= region[0]) & (signal < region[1])).sum()))


def learners_of(spec: ScanSpec) -> list[str]:
    """Who scores the events, the search's own first: a language model has the trees beside it."""
    searching = [TREES] if spec.tuning is None else [spec.config.model, TREES]
    return [*searching, IDEALISED, SUPERVISED]


class Injection(NamedTuple):
    """A chunk: one fold of so many signal events among the background, drawn by a seed, scored by all learners."""

    n_signal: int
    seed: int
    fold: int


def chunk_of(spec: ScanSpec, index: int) -> Injection:
    """What the chunk of this index does: folds, then seeds, then numbers of signal events."""
    point, fold = divmod(index, spec.config.folds)
    return Injection(*spec.config.points[point], fold)
