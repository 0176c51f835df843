"""The events of a dataset as searches and scans see them, read once a process."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lhcq.config import RegionsConfig
from lhcq.errors import BadInput
from lhcq.records.specs import ScanSpec, SearchSpec, Template
from lhcq.requests.search import deal_folds, in_range
from lhcq.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lhcq.evaluate.weak import WeakEvents

REMADE = "Ask again, under another name."


@dataclass(frozen=True, kw_only=True)
class Searched:
    """The events in the range of the fit; all arrays have n events."""

    events: "WeakEvents"
    labels: "NDArray[np.int8]"
    """-1 where unknown: no search looks at them but to say what its tests were worth."""
    firsts: "NDArray[np.int64]"
    """The first row with the same event."""
    key: str
    """Of the dataset, for folds: `evaluate.weak.assign_folds` is given it with a seed."""
    looks: "dict[str, NDArray[np.float64]]"
    """The features by which people know events, where the dataset has them."""


def read_searched(workspace: Workspace, spec: SearchSpec | ScanSpec) -> Searched:
    """The events of a job; raises `BadInput` where its dataset is another by now."""
    dataset = workspace.dataset(spec.dataset)
    status = (dataset / ".").stat()
    standing = (status.st_ino, status.st_mtime_ns)
    return _read(
        workspace, spec.kind, spec.dataset, spec.dataset_sha256, spec.template, spec.config, standing
    )


@functools.lru_cache(maxsize=2)
def _read(
    workspace: Workspace,
    kind: str,
    name: str,
    sha256: str,
    template: Template,
    config: RegionsConfig,
    _: tuple[int, int],
) -> Searched:
    """Each task of a job asks, and its merge for all of it."""
    import numpy as np
    import pyarrow as pa

    from lhcq.evaluate.excess import LOOKS
    from lhcq.evaluate.weak import WeakEvents
    from lhcq.prompts.features import KNOWN, compute_features, record_columns
    from lhcq.prompts.templates import check_renders
    from lhcq.records.duplicates import read_firsts
    from lhcq.records.events import events_sha256, read_dataset, read_event_batches, read_schema

    dataset = workspace.dataset(name)
    manifest = read_dataset(dataset, remedy=REMADE)
    if events_sha256(manifest) != sha256:
        raise BadInput(f"{dataset}: is not what this {kind} began with. {REMADE}")
    check_renders(template, read_schema(dataset))
    wanted = [one for one in KNOWN if one.name in {*template.columns, *LOOKS}]
    rows, masses, values, labels, looks = [], [], [], [], []
    for batch in read_event_batches(dataset, record_columns(read_schema(dataset))):
        records = pa.Table.from_batches([batch])
        mjj = records["mjj"].fill_null(np.nan).to_numpy()
        kept = in_range(mjj, config)
        features = compute_features(records, wanted)
        rows.append(records["row"].to_numpy()[kept])
        masses.append(mjj[kept])
        values.append(np.column_stack([features[name][kept] for name in template.columns]))
        labels.append(records["label"].fill_null(-1).to_numpy()[kept].astype(np.int8))
        looks.append({name: features[name][kept] for name in features if name in LOOKS})
    found = np.concatenate(rows)
    firsts = read_firsts(dataset, manifest, found)
    return Searched(
        events=WeakEvents(
            rows=found,
            mjj=np.concatenate(masses),
            folds=deal_folds(firsts, manifest, config.folds, config.seed),
            values=np.concatenate(values),
        ),
        labels=np.concatenate(labels),
        firsts=firsts,
        key=manifest["source_sha256"],
        looks={name: np.concatenate([part[name] for part in looks]) for name in looks[0]},
    )


def edges_of(config: RegionsConfig) -> "NDArray[np.float64]":
    """The bins in which spectra are fitted, GeV."""
    from lhcq.evaluate.hunt import bin_edges

    return bin_edges(config.fit_low, config.fit_high, config.regions[0])
