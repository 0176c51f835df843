"""Jets of many events by FastJet's multi-event interface."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import awkward as ak
import fastjet
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lhcq.config import ClusterConfig, FeatureSet
from lhcq.jets.records import SUBSTRUCTURE, schema_of
from lhcq.jets.vectors import Floats, FourVectors, Integers, delta_phi, offsets_of

# Events in one FastJet call. Measured at R=1.0: 10 events cost half as much again, 50 to 250 are alike, 1,000
# are slower because they leave the cache.
BATCH = 100

_ALGORITHMS = {
    "antikt": fastjet.antikt_algorithm,
    "kt": fastjet.kt_algorithm,
    "cambridge": fastjet.cambridge_algorithm,
}

# FastJet prints its banner on standard output, where a command's JSON goes. What it asks to be cited is in the
# README.
fastjet.ClusterSequenceAreaBase.set_fastjet_banner_stream(None)


@dataclass(frozen=True, kw_only=True)
class Jets:
    """The jets of many events, in each event by falling pt.

    `vectors` holds their momenta (GeV), `n_constituents` (n_jets,) how many particles each has, and `pt_lead`
    (n_jets,) the pt of the hardest of these (GeV). `substructure` (n_jets, 11) are the columns of
    `records.SUBSTRUCTURE`, NaN for all but the two leading jets of an event; None where it was not asked for.
    """

    vectors: FourVectors
    n_constituents: Integers
    pt_lead: Floats
    substructure: Floats | None = None


def cluster_events(
    particles: Floats,
    config: ClusterConfig,
    *,
    rows: Integers,
    labels: NDArray[np.int8] | None,
    batch: int = BATCH,
) -> pa.Table:
    """Cluster events into records of `records.schema_of(config.features)`, one a row of the input and in its order.

    `particles` (n_events, n_slots, 3) holds (pt in GeV, eta, phi), in any order, and pt == 0 where a slot is
    empty; `rows` (n_events,) are the rows of the source file, `labels` (n_events,) 1 for signal and 0 for
    background, or None where unknown. `batch` is for speed alone: the bits of the result do not depend on it.
    """
    parts = [
        (np.zeros(0, np.int64), _no_jets(0, config.features)),
        *_cluster_batches(particles, config, batch),
    ]
    n_particles = np.concatenate([counts for counts, _ in parts])
    return _build_table(_concatenate([jets for _, jets in parts]), n_particles, rows, labels, config)


def cluster_four_vectors(vectors: FourVectors, config: ClusterConfig) -> Jets:
    """All jets above `config.pt_min` of events given as four-vectors; `config.max_jets` is not applied."""
    if not vectors.px.size:
        return _no_jets(len(vectors.counts), config.features)
    definition = fastjet.JetDefinition(_ALGORITHMS[config.algorithm], config.radius)
    sequence = fastjet.ClusterSequence(_to_awkward(vectors), definition)
    found = sequence.inclusive_jets(min_pt=config.pt_min)
    px, py, pz, e = (column.data for column in found.layout.content.contents)
    counts = np.diff(found.layout.offsets.data).astype(np.int64)
    if not counts.any():
        return _no_jets(len(counts), config.features)
    starts, members = _list_constituents(sequence, config.pt_min, vectors, counts)
    # A jet has at least one constituent, so that no segment of `reduceat` is empty.
    pt_lead = np.maximum.reduceat(vectors.pt[members], starts[:-1])
    # One stable sort for everything that belongs to a jet; jets of equal pt stay in FastJet's order.
    pt = FourVectors(counts=counts, px=px, py=py, pz=pz, e=e).pt
    order = np.lexsort((-pt, np.repeat(np.arange(len(counts)), counts)))
    jets = Jets(
        vectors=FourVectors(counts=counts, px=px[order], py=py[order], pz=pz[order], e=e[order]),
        n_constituents=np.diff(starts)[order],
        pt_lead=pt_lead[order],
    )
    if config.features == "jets":
        return jets
    return replace(jets, substructure=_measure_leading(jets, vectors, starts, members, order))


def _cluster_batches(particles: Floats, config: ClusterConfig, batch: int) -> Iterator[tuple[Integers, Jets]]:
    for start in range(0, len(particles), batch):
        vectors = FourVectors.massless(particles[start : start + batch])
        yield vectors.counts, cluster_four_vectors(vectors, config)


def _to_awkward(vectors: FourVectors) -> ak.Array:
    columns = [ak.contents.NumpyArray(column) for column in (vectors.px, vectors.py, vectors.pz, vectors.e)]
    momenta = ak.contents.RecordArray(columns, ["px", "py", "pz", "E"])
    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(vectors.offsets), momenta))


def _list_constituents(
    sequence: fastjet.ClusterSequence, pt_min: float, vectors: FourVectors, n_jets: Integers
) -> tuple[Integers, Integers]:
    """Jet k of the batch, in FastJet's order, consists of the particles `members[starts[k]:starts[k + 1]]`."""
    lists = sequence.constituent_index(min_pt=pt_min).layout.content
    starts = lists.offsets.data.astype(np.int64)
    event_start = np.repeat(vectors.offsets[:-1], n_jets)
    # FastJet's buffer has room for every particle; beyond the last jet's constituents it is not filled.
    return starts, lists.content.data[: starts[-1]] + np.repeat(event_start, np.diff(starts))


def _measure_leading(
    jets: Jets, particles: FourVectors, starts: Integers, members: Integers, order: Integers
) -> Floats:
    """The `substructure` of `jets`; `order` says where each stands in FastJet's order."""
    from lhcq.jets.substructure import N_LEADING, measure_substructure

    leading = np.flatnonzero(_rank(jets.vectors) < N_LEADING)
    columns = np.full((len(order), len(SUBSTRUCTURE)), np.nan)
    columns[leading] = measure_substructure(
        particles, starts, members, order[leading], jets.vectors.pt[leading]
    )
    return columns


def _rank(jets: FourVectors) -> Integers:
    """The place of each jet in its event, from 0: (n_jets,)."""
    return np.arange(len(jets.px)) - np.repeat(jets.offsets[:-1], jets.counts)


def _no_jets(n_events: int, features: FeatureSet) -> Jets:
    none = np.zeros(0)
    return Jets(
        vectors=FourVectors(counts=np.zeros(n_events, np.int64), px=none, py=none, pz=none, e=none),
        n_constituents=np.zeros(0, np.int64),
        pt_lead=none,
        substructure=np.zeros((0, len(SUBSTRUCTURE))) if features == "full" else None,
    )


def _concatenate(parts: list[Jets]) -> Jets:
    substructure = [part.substructure for part in parts if part.substructure is not None]
    return Jets(
        vectors=FourVectors(
            counts=np.concatenate([part.vectors.counts for part in parts]),
            px=np.concatenate([part.vectors.px for part in parts]),
            py=np.concatenate([part.vectors.py for part in parts]),
            pz=np.concatenate([part.vectors.pz for part in parts]),
            e=np.concatenate([part.vectors.e for part in parts]),
        ),
        n_constituents=np.concatenate([part.n_constituents for part in parts]),
        pt_lead=np.concatenate([part.pt_lead for part in parts]),
        substructure=np.concatenate(substructure) if substructure else None,
    )


def _build_table(
    jets: Jets,
    n_particles: Integers,
    rows: Integers,
    labels: NDArray[np.int8] | None,
    config: ClusterConfig,
) -> pa.Table:
    n_jets = jets.vectors.counts
    fewer = n_jets < 2
    pairs = _measure_pairs(jets.vectors)
    columns: dict[str, pa.Array] = {
        "row": pa.array(rows, pa.int64()),
        "label": pa.nulls(len(rows), pa.int8()) if labels is None else pa.array(labels, pa.int8()),
        "n_particles": pa.array(n_particles.astype(np.int32)),
        "n_jets": pa.array(n_jets.astype(np.int32)),
        "jets": _list_jets(jets, config),
        "h_t": pa.array(_sum_pt(jets.vectors)),
        **{name: pa.array(values, mask=fewer) for name, values in pairs.items()},
    }
    schema = schema_of(config.features)
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _measure_pairs(jets: FourVectors) -> dict[str, Floats]:
    """What belongs to the two leading jets, by column, (n_events,) each; 0.0 where there are fewer."""
    has_pair = jets.counts >= 2
    first = jets.offsets[:-1][has_pair]
    second = first + 1
    pair = FourVectors(
        counts=np.ones(len(first), np.int64),
        px=jets.px[first] + jets.px[second],
        py=jets.py[first] + jets.py[second],
        pz=jets.pz[first] + jets.pz[second],
        e=jets.e[first] + jets.e[second],
    )
    eta, phi = jets.eta, jets.phi
    along, around = eta[first] - eta[second], delta_phi(phi[first], phi[second])
    values = {
        "mjj": pair.m,
        "delta_r": np.sqrt(along * along + around * around),
        "delta_eta": np.abs(along),
    }
    columns = {name: np.zeros(len(has_pair)) for name in values}
    for name, column in columns.items():
        column[has_pair] = values[name]
    return columns


def _sum_pt(jets: FourVectors) -> Floats:
    """Sum of pt over the jets of each event, (n_events,), hardest first whatever the batch; GeV."""
    pt, total = jets.pt, np.zeros(len(jets.counts))
    for rank in range(jets.counts.max(initial=0)):
        has = jets.counts > rank
        total[has] += pt[jets.offsets[:-1][has] + rank]
    return total


def _list_jets(jets: Jets, config: ClusterConfig) -> pa.ListArray:
    """The `jets` column: the leading `config.max_jets` of each event."""
    vectors, max_jets = jets.vectors, config.max_jets
    kept = slice(None) if max_jets is None else np.flatnonzero(_rank(vectors) < max_jets)
    counts = vectors.counts if max_jets is None else np.minimum(vectors.counts, max_jets)
    columns: dict[str, NDArray[Any]] = {
        "pt": vectors.pt,
        "eta": vectors.eta,
        "phi": vectors.phi,
        "m": vectors.m,
        "px": vectors.px,
        "py": vectors.py,
        "pz": vectors.pz,
        "e": vectors.e,
        "n_constituents": jets.n_constituents.astype(np.int32),
        "pt_lead": jets.pt_lead,
    }
    listed = schema_of(config.features).field("jets").type
    arrays = {name: pa.array(values[kept]) for name, values in columns.items()}
    if jets.substructure is not None:
        measured = jets.substructure[kept]
        for index, field in enumerate(SUBSTRUCTURE):
            arrays[field.name] = pa.array(measured[:, index], from_pandas=True)  # NaN becomes null
    fields = list(listed.value_type)
    records = pa.StructArray.from_arrays([arrays[field.name] for field in fields], fields=fields)
    return pa.ListArray.from_arrays(offsets_of(counts).astype(np.int32), records, type=listed)
