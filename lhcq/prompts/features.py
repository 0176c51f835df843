"""Feature columns of events, from what a dataset's records of events hold."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lhcq.records.events import names_of_jet

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One number of an event, and where in its record it comes from."""

    name: str
    columns: tuple[str, ...]
    """One column, or two for their ratio."""
    jet: Literal["heavy", "light"] | None = None
    """Which jet's; None for a column of the event. Of the two leading jets by pt, `heavy` is the one with the larger
    mass."""


# By name of the feature: the columns of a jet that it is made of.
_OF_JETS: dict[str, tuple[str, ...]] = {
    "m": ("m",),
    "pt": ("pt",),
    "n": ("n_constituents",),
    "pt_lead": ("pt_lead",),
    "tau21": ("tau2", "tau1"),
    "tau32": ("tau3", "tau2"),
    "tau43": ("tau4", "tau3"),
    "m_sd": ("m_sd",),
    "z_g": ("z_g",),
    "width": ("width",),
    "z1": ("z1",),
    "z2": ("z2",),
    "c2": ("c2",),
    "d2": ("d2",),
    "m_over_pt": ("m", "pt"),
    "m_sd_over_pt": ("m_sd", "pt"),
}
_WITHOUT_SCALE = ("m_over_pt", "m_sd_over_pt")


def _of_event(name: str) -> Feature:
    return Feature(name=name, columns=(name,))


def _of_both_jets(*names: str) -> list[Feature]:
    return [
        Feature(name=f"{name}_{jet}", columns=_OF_JETS[name], jet=jet)
        for name in names
        for jet in ("heavy", "light")
    ]


# What there can be; a dataset has those whose columns it has.
FEATURES: tuple[Feature, ...] = (
    _of_event("mjj"),
    *_of_both_jets("m", "pt", "n"),
    _of_event("delta_r"),
    _of_event("n_particles"),
    _of_event("n_jets"),
    _of_event("delta_eta"),
    _of_event("h_t"),
    *_of_both_jets(*(name for name in _OF_JETS if name not in ("m", "pt", "n", *_WITHOUT_SCALE))),
)

RATIOS: tuple[Feature, ...] = tuple(_of_both_jets(*_WITHOUT_SCALE))
"""What prompts without a mass hold in its place. They say nothing that `FEATURES` do not, so a split has them only
where its prompts do."""

KNOWN: tuple[Feature, ...] = (*FEATURES, *RATIOS)

_JETS = {"heavy": "heavier", "light": "lighter"}

# What each is and the unit that it is in; of a jet's, which jet is said beside. docs/dataset.md defines the columns.
_MEANINGS: dict[str, tuple[str, str]] = {
    "mjj": ("invariant mass of the two leading jets", "GeV"),
    "delta_r": ("distance of the two leading jets in eta and phi", ""),
    "n_particles": ("particles in the event", ""),
    "n_jets": ("jets above the dataset's pt_min", ""),
    "delta_eta": ("distance of the two leading jets in eta, not negative", ""),
    "h_t": ("sum of the pt of the jets above the dataset's pt_min", "GeV"),
    "m": ("mass", "GeV"),
    "pt": ("transverse momentum", "GeV"),
    "n": ("constituents", ""),
    "pt_lead": ("pt of the hardest constituent", "GeV"),
    "m_over_pt": ("mass over transverse momentum", ""),
    "m_sd_over_pt": ("groomed (soft-drop) mass over transverse momentum", ""),
    "tau21": ("N-subjettiness ratio tau2/tau1", ""),
    "tau32": ("N-subjettiness ratio tau3/tau2", ""),
    "tau43": ("N-subjettiness ratio tau4/tau3", ""),
    "m_sd": ("groomed (soft-drop) mass", "GeV"),
    "z_g": ("momentum fraction of the splitting that soft drop kept", ""),
    "width": ("pt-weighted mean distance of its constituents to the jet", ""),
    "z1": ("pt of the harder of two kt subjets over the jet's", ""),
    "z2": ("pt of the softer of two kt subjets over the jet's", ""),
    "c2": ("energy correlation C2", ""),
    "d2": ("energy correlation D2", ""),
}


def meaning_of(feature: str) -> tuple[str, str]:
    """What a feature is, in words, and its unit: `GeV`, or empty for a pure number."""
    if feature in _MEANINGS:
        return _MEANINGS[feature]
    name, _, jet = feature.rpartition("_")
    meaning, unit = _MEANINGS[name]
    return f"{meaning} of the {_JETS[jet]} jet", unit


def features_of(schema: pa.Schema, among: Iterable[Feature] = FEATURES) -> tuple[Feature, ...]:
    """Those features that records of this schema have, in the order of `among`."""
    of_event = set(schema.names)
    of_jet = set(names_of_jet(schema))
    return tuple(
        feature for feature in among if (of_jet if feature.jet else of_event).issuperset(feature.columns)
    )


def compute_features(records: pa.Table, among: Iterable[Feature] = FEATURES) -> dict[str, Floats]:
    """The columns of those features that the records have, each (n_events,).

    NaN stands for what an event does not have: one with fewer than two jets lacks all that needs two, and has its
    only jet as `heavy`; a ratio lacks its value where the denominator is 0.
    """
    offsets, jets = flatten_jets(records)
    pairs = _Pairs(offsets, jets)
    return {
        feature.name: pairs.pick(feature) if feature.jet else _to_floats(records[feature.columns[0]])
        for feature in features_of(records.schema, among)
    }


def second_is_heavier(records: pa.Table) -> NDArray[np.bool_]:
    """Whether of the two leading jets by pt the second has the larger mass, (n_events,)."""
    return _Pairs(*flatten_jets(records)).swapped


def record_columns(schema: pa.Schema, *others: str) -> list[str]:
    """The columns of a dataset that features are made of, and those of the `others` that it has."""
    wanted = {"row", "label", "jets", *(name for one in FEATURES if not one.jet for name in one.columns)}
    return [name for name in schema.names if name in wanted | set(others)]


def flatten_jets(records: pa.Table) -> tuple[NDArray[np.int64], dict[str, NDArray[np.generic]]]:
    """The jets of all events in flat columns, and the (n_events + 1,) offsets of each event's in them."""
    lists = records["jets"].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):  # a table without rows has no chunk to combine
        lists = lists.chunk(0) if lists.num_chunks else pa.array([], lists.type)
    offsets = lists.offsets.to_numpy().astype(np.int64)
    jets = lists.flatten()
    columns = {name: jets.field(name).to_numpy(zero_copy_only=False) for name in names_of_jet(records.schema)}
    return offsets - offsets[0], columns


class _Pairs:
    """The two leading jets of each event, by falling mass."""

    def __init__(self, offsets: NDArray[np.int64], jets: dict[str, NDArray[np.generic]]) -> None:
        counts = np.diff(offsets)
        self._jets = jets
        self._has_one, self._has_two = counts >= 1, counts >= 2
        self._first, self._second = offsets[:-1][self._has_one], offsets[:-1][self._has_two] + 1
        one, two = self._by_pt("m")
        self.swapped: NDArray[np.bool_] = two > one  # False where a jet is absent

    def pick(self, feature: Feature) -> Floats:
        """A feature of one jet, (n_events,)."""
        values = [self._by_mass(column, heavy=feature.jet == "heavy") for column in feature.columns]
        if len(values) == 1:
            return values[0]
        numerator, denominator = values
        ratio = np.full(len(numerator), np.nan)
        np.divide(numerator, denominator, out=ratio, where=denominator > 0)  # False for NaN
        return ratio

    def _by_mass(self, column: str, *, heavy: bool) -> Floats:
        one, two = self._by_pt(column)
        return np.asarray(np.where(self.swapped == heavy, two, one), dtype=np.float64)

    def _by_pt(self, column: str) -> tuple[Floats, Floats]:
        one, two = (np.full(len(self._has_one), np.nan) for _ in range(2))
        one[self._has_one] = self._jets[column][self._first]
        two[self._has_two] = self._jets[column][self._second]
        return one, two


def _to_floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
