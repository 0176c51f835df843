"""Jets of many events by FastJet's multi-event interface."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import awkward as ak
import fastjet
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lhcq.config import ClusterConfig
from lhcq.jets.records import JET, SCHEMA
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
    (n_jets,) the pt of the hardest of these (GeV).
    """

    vectors: FourVectors
    n_constituents: Integers
    pt_lead: Floats


def cluster_events(
    particles: Floats,
    config: ClusterConfig,
    *,
    rows: Integers,
    labels: NDArray[np.int8] | None,
    batch: int = BATCH,
) -> pa.Table:
    """Cluster events into records of `records.SCHEMA`, one a row of the input and in its order.

    `particles` (n_events, n_slots, 3) holds (pt in GeV, eta, phi), in any order, and pt == 0 where a slot is
    empty; `rows` (n_events,) are the rows of the source file, `labels` (n_events,) 1 for signal and 0 for
    background, or None where unknown. `batch` is for speed alone: the bits of the result do not depend on it.
    """
    n_particles, jets = _concatenate(_cluster_batches(particles, config, batch))
    return _build_table(jets, n_particles, rows, labels, config.max_jets)


def cluster_four_vectors(vectors: FourVectors, config: ClusterConfig) -> Jets:
    """All jets above `config.pt_min` of events given as four-vectors; `config.max_jets` is not applied."""
    if not vectors.px.size:
        return _no_jets(len(vectors.counts))
    definition = fastjet.JetDefinition(_ALGORITHMS[config.algorithm], config.radius)
    sequence = fastjet.ClusterSequence(_to_awkward(vectors), definition)
    found = sequence.inclusive_jets(min_pt=config.pt_min)
    px, py, pz, e = (column.data for column in found.layout.content.contents)
    counts = np.diff(found.layout.offsets.data).astype(np.int64)
    if not counts.any():
        return _no_jets(len(counts))
    n_constituents, pt_lead = _measure_constituents(sequence, config.pt_min, vectors, counts)
    # One stable sort for everything that belongs to a jet; jets of equal pt stay in FastJet's order.
    pt = FourVectors(counts=counts, px=px, py=py, pz=pz, e=e).pt
    order = np.lexsort((-pt, np.repeat(np.arange(len(counts)), counts)))
    return Jets(
        vectors=FourVectors(counts=counts, px=px[order], py=py[order], pz=pz[order], e=e[order]),
        n_constituents=n_constituents[order],
        pt_lead=pt_lead[order],
    )


def _cluster_batches(particles: Floats, config: ClusterConfig, batch: int) -> Iterator[tuple[Integers, Jets]]:
    for start in range(0, len(particles), batch):
        vectors = FourVectors.massless(particles[start : start + batch])
        yield vectors.counts, cluster_four_vectors(vectors, config)


def _to_awkward(vectors: FourVectors) -> ak.Array:
    columns = [ak.contents.NumpyArray(column) for column in (vectors.px, vectors.py, vectors.pz, vectors.e)]
    momenta = ak.contents.RecordArray(columns, ["px", "py", "pz", "E"])
    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(vectors.offsets), momenta))


def _measure_constituents(
    sequence: fastjet.ClusterSequence, pt_min: float, vectors: FourVectors, n_jets: Integers
) -> tuple[Integers, Floats]:
    """How many constituents each jet has, and the largest pt among them; jets in FastJet's order."""
    lists = sequence.constituent_index(min_pt=pt_min).layout.content
    starts = lists.offsets.data.astype(np.int64)
    n_constituents = np.diff(starts)
    event_start = np.repeat(vectors.offsets[:-1], n_jets)
    # FastJet's buffer has room for every particle; beyond the last jet's constituents it is not filled.
    particle = lists.content.data[: starts[-1]] + np.repeat(event_start, n_constituents)
    # A jet has at least one constituent, so that no segment of `reduceat` is empty.
    return n_constituents, np.maximum.reduceat(vectors.pt[particle], starts[:-1])


def _no_jets(n_events: int) -> Jets:
    none = np.zeros(0)
    return Jets(
        vectors=FourVectors(counts=np.zeros(n_events, np.int64), px=none, py=none, pz=none, e=none),
        n_constituents=np.zeros(0, np.int64),
        pt_lead=none,
    )


def _concatenate(batches: Iterator[tuple[Integers, Jets]]) -> tuple[Integers, Jets]:
    pairs = [(np.zeros(0, np.int64), _no_jets(0)), *batches]
    jets = [pair[1] for pair in pairs]
    joined = Jets(
        vectors=FourVectors(
            counts=np.concatenate([part.vectors.counts for part in jets]),
            px=np.concatenate([part.vectors.px for part in jets]),
            py=np.concatenate([part.vectors.py for part in jets]),
            pz=np.concatenate([part.vectors.pz for part in jets]),
            e=np.concatenate([part.vectors.e for part in jets]),
        ),
        n_constituents=np.concatenate([part.n_constituents for part in jets]),
        pt_lead=np.concatenate([part.pt_lead for part in jets]),
    )
    return np.concatenate([pair[0] for pair in pairs]), joined


def _build_table(
    jets: Jets,
    n_particles: Integers,
    rows: Integers,
    labels: NDArray[np.int8] | None,
    max_jets: int | None,
) -> pa.Table:
    mjj, delta_r = _measure_pairs(jets.vectors)
    n_jets = jets.vectors.counts
    columns = [
        pa.array(rows, pa.int64()),
        pa.nulls(len(rows), pa.int8()) if labels is None else pa.array(labels, pa.int8()),
        pa.array(n_particles.astype(np.int32)),
        pa.array(n_jets.astype(np.int32)),
        _list_jets(jets, max_jets),
        pa.array(mjj, mask=n_jets < 2),
        pa.array(delta_r, mask=n_jets < 2),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _measure_pairs(jets: FourVectors) -> tuple[Floats, Floats]:
    """Invariant mass and distance of the two leading jets, (n_events,) each; 0.0 where there are fewer."""
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
    mjj, delta_r = np.zeros(len(has_pair)), np.zeros(len(has_pair))
    mjj[has_pair] = pair.m
    delta_r[has_pair] = np.sqrt(along * along + around * around)
    return mjj, delta_r


def _list_jets(jets: Jets, max_jets: int | None) -> pa.ListArray:
    """The `jets` column: the leading `max_jets` of each event."""
    vectors = jets.vectors
    rank = np.arange(len(vectors.px)) - np.repeat(vectors.offsets[:-1], vectors.counts)
    kept = slice(None) if max_jets is None else np.flatnonzero(rank < max_jets)
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
    fields = [JET.field(index) for index in range(JET.num_fields)]
    records = pa.StructArray.from_arrays([columns[field.name][kept] for field in fields], fields=fields)
    return pa.ListArray.from_arrays(
        offsets_of(counts).astype(np.int32), records, type=SCHEMA.field("jets").type
    )
