"""All that the plots and the page of a dataset show, counted from its events, one quantity in memory at a time."""

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lhcq.errors import BadInput
from lhcq.records.events import read_dataset, read_schema
from lhcq.records.labels import LABELS, UNLABELLED
from lhcq.report.quantities import (
    Floats,
    Quantity,
    plan_edges,
    plan_quantities,
    read_labels,
    read_values,
)
from lhcq.workspace import Workspace

CLASSES = {**{name: label for label, name in enumerate(LABELS)}, UNLABELLED: -1}
"""Names of the classes in the order in which they are drawn, and their labels in memory."""

_SHOWN = (0.002, 0.998)  # quantiles of each class that the axis covers
_BINS = (24, 50)

# Names of the released files, and how to cite them. Source: Zenodo.
_RELEASED = (
    (r"events_anomalydetection.*", "10.5281/zenodo.6466204"),
    (r"events_LHCO2020_.*", "10.5281/zenodo.4536624"),
)


@dataclass(frozen=True, kw_only=True)
class ClassSpectrum:
    """A quantity of the events of one class."""

    counts: NDArray[np.int64]
    """(n_bins,): events; the first and the last bin hold what lies beyond the edges."""
    n_events: int
    """Events that have a value."""
    n_missing: int
    """Events of the class that have none."""
    mean: float
    median: float
    low: float
    """The smallest value."""
    high: float

    @property
    def shares(self) -> Floats:
        """Counts normalised to a sum of one."""
        return self.counts / self.n_events

    @property
    def errors(self) -> Floats:
        """Statistical errors of the shares: the root of each count."""
        return np.sqrt(self.counts) / self.n_events


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """A quantity in bins, by class; a class without a single value is absent."""

    quantity: Quantity
    edges: Floats
    """(n_bins + 1,), in the unit of the quantity."""
    classes: dict[str, ClassSpectrum]


@dataclass(frozen=True, kw_only=True)
class DatasetView:
    """A dataset as its plots and its page see it."""

    name: str
    manifest: dict[str, Any]
    n_events: int
    n_by_class: dict[str, int]
    """Only the classes that have events, in the order of `CLASSES`."""
    spectra: tuple[Spectrum, ...]
    left_out: dict[str, str]
    """By name of the quantity: why it is not drawn."""

    @property
    def source(self) -> str:
        """The name of the file that the events are from."""
        return PurePath(str(self.manifest.get("source", ""))).name or "unknown source"

    @property
    def doi(self) -> str | None:
        """How to cite the source, where its name is that of a released file."""
        return next((doi for name, doi in _RELEASED if re.fullmatch(name, self.source)), None)


def collect_dataset(workspace: Workspace, name: str) -> DatasetView:
    """Count the events of a dataset. Raises `NotThere` when there is no such dataset, `BadInput` when it is empty."""
    directory = workspace.dataset(name)
    manifest = read_dataset(directory)
    n_events: int = manifest["rows"]
    if n_events == 0:
        raise BadInput(f"{name}: holds no events, so there is nothing to draw.")
    quantities, left_out = plan_quantities(read_schema(directory))
    labels = read_labels(directory, n_events)
    spectra = []
    for quantity in quantities:
        spectrum = bin_values(quantity, read_values(directory, quantity, n_events), labels)
        if spectrum is None:
            left_out[quantity.name] = f"{quantity.title}: no event has one"
        else:
            spectra.append(spectrum)
    counts = {kind: int((labels == label).sum()) for kind, label in CLASSES.items()}
    return DatasetView(
        name=name,
        manifest=manifest,
        n_events=n_events,
        n_by_class={kind: count for kind, count in counts.items() if count},
        spectra=tuple(spectra),
        left_out=left_out,
    )


def bin_values(quantity: Quantity, values: Floats, labels: NDArray[np.int8]) -> Spectrum | None:
    """Bin `values` (n_events,), NaN where there is none, by class; None where no event has a value."""
    by_class = {kind: values[labels == label] for kind, label in CLASSES.items()}
    there = {kind: found[np.isfinite(found)] for kind, found in by_class.items()}
    there = {kind: found for kind, found in there.items() if found.size}
    if not there:
        return None
    ranges = np.array([np.quantile(found, _SHOWN) for found in there.values()])
    smallest = min(found.size for found in there.values())
    bins = int(
        np.clip(round(2 * smallest ** (1 / 3)), *_BINS)
    )  # Rice's rule, for the class with fewest events
    low, high = float(ranges[:, 0].min()), float(ranges[:, 1].max())
    low = 0.0 if 0 < low < 0.1 * high else low  # an axis that nearly starts at zero does
    edges = plan_edges(low, high, bins=bins, whole=quantity.whole)
    return Spectrum(
        quantity=quantity,
        edges=edges,
        classes={
            kind: _summarize(found, edges, n_missing=by_class[kind].size - found.size)
            for kind, found in there.items()
        },
    )


def _summarize(values: Floats, edges: Floats, *, n_missing: int) -> ClassSpectrum:
    inside = np.clip(values, edges[0], np.nextafter(edges[-1], edges[0]))
    return ClassSpectrum(
        counts=np.histogram(inside, edges)[0],
        n_events=values.size,
        n_missing=n_missing,
        mean=float(values.mean()),
        median=float(np.median(values)),
        low=float(values.min()),
        high=float(values.max()),
    )
