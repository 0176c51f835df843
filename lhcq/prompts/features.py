"""Feature columns of events, from the records of a dataset's `events.parquet`."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EVENTS_FILE = "events.parquet"
RECORD_COLUMNS = ("row", "label", "n_particles", "n_jets", "jets", "mjj", "delta_r")

# Of the two leading jets by pt, `heavy` is the one with the larger mass. Masses and pt are in GeV.
FEATURES = (
    "mjj",  # GeV, invariant mass of the two leading jets
    "m_heavy",  # GeV
    "m_light",  # GeV
    "pt_heavy",  # GeV
    "pt_light",  # GeV
    "n_heavy",  # constituents
    "n_light",  # constituents
    "delta_r",  # distance of the two leading jets in eta and phi
    "n_particles",  # particles in the event
    "n_jets",  # jets above the dataset's pt_min
)

_OF_JETS = (("m", "m"), ("pt", "pt"), ("n_constituents", "n"))


def compute_features(records: pa.Table) -> dict[str, Floats]:
    """The columns `FEATURES`, each (n_events,), of records as clustering writes them.

    NaN stands for what an event with fewer than two jets does not have. An event with one jet has it as `heavy`.
    """
    features = {
        name: _to_floats(records[name]) for name in ("mjj", "delta_r", "n_particles", "n_jets")
    } | _compute_jet_features(records)
    return {name: features[name] for name in FEATURES}


def flatten_jets(records: pa.Table) -> tuple[NDArray[np.int64], dict[str, NDArray[np.generic]]]:
    """The jets of all events in flat columns, and the (n_events + 1,) offsets of each event's in them."""
    lists = records["jets"].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):  # a table without rows has no chunk to combine
        lists = lists.chunk(0) if lists.num_chunks else pa.array([], lists.type)
    offsets = lists.offsets.to_numpy().astype(np.int64)
    jets = lists.flatten()
    fields = (jets.type.field(index).name for index in range(jets.type.num_fields))
    return offsets - offsets[0], {name: jets.field(name).to_numpy(zero_copy_only=False) for name in fields}


def _compute_jet_features(records: pa.Table) -> dict[str, Floats]:
    offsets, jets = flatten_jets(records)
    counts = np.diff(offsets)
    first, second = counts >= 1, counts >= 2
    leading, subleading = offsets[:-1][first], offsets[:-1][second] + 1

    def pick(field: str) -> tuple[Floats, Floats]:
        one, two = np.full(len(counts), np.nan), np.full(len(counts), np.nan)
        one[first], two[second] = jets[field][leading], jets[field][subleading]
        return one, two

    mass_one, mass_two = pick("m")
    swapped = mass_two > mass_one  # False where a jet is absent
    features = {}
    for field, name in _OF_JETS:
        one, two = pick(field)
        features[f"{name}_heavy"] = np.where(swapped, two, one)
        features[f"{name}_light"] = np.where(swapped, one, two)
    return features


def _to_floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
