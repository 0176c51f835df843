"""Jets of many events, and the table of their records."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lhcq.config import Axes, ClusterConfig
from lhcq.jets.compiling import one_at_a_time, room_of
from lhcq.jets.constituents import hardest_constituents
from lhcq.jets.desk import room_for
from lhcq.jets.kernels import are_orderly, find_jets, measure_jets
from lhcq.jets.libm import lanes_for_libm
from lhcq.jets.recombination import ANTIKT, CAMBRIDGE, KT
from lhcq.jets.substructure import N_LEADING, measure_substructure
from lhcq.jets.vectors import Floats, FourVectors, Integers, delta_phi, offsets_of
from lhcq.records.events import CONSTITUENT, LISTED_CONSTITUENTS, SUBSTRUCTURE, schema_of

_LARGEST = 1e100  # GeV
_POWERS = {"antikt": ANTIKT, "kt": KT, "cambridge": CAMBRIDGE}


@dataclass(frozen=True, kw_only=True)
class Jets:
    """The jets of many events, in each event by falling pt.

    `vectors` holds their momenta (GeV); jet k consists of the particles `members[starts[k]:starts[k + 1]]`, the
    hardest of which has pt `pt_lead[k]` (GeV). `substructure` (n_jets, 11) are the columns of
    `records.SUBSTRUCTURE`, of which only the two leading jets of an event have any; None where not asked for.
    """

    vectors: FourVectors
    starts: Integers
    members: Integers
    pt_lead: Floats
    ties: Integers
    """(n_events,): 1 where equal distances decided which particles merge, in the event or in one of the jets whose
    substructure was measured (`lhcq.jets.ties`)."""
    substructure: Floats | None = None

    @cached_property
    def n_constituents(self) -> Integers:
        """How many particles each has: (n_jets,)."""
        return np.diff(self.starts)

    @cached_property
    def rank(self) -> Integers:
        """The place of each in its event, from 0: (n_jets,)."""
        return np.arange(len(self.pt_lead)) - np.repeat(self.vectors.offsets[:-1], self.vectors.counts)


def cluster_events(
    particles: Floats,
    config: ClusterConfig,
    *,
    rows: Integers,
    labels: NDArray[np.int8] | None,
    n_particles: Integers | None = None,
) -> pa.Table:
    """The records of `cluster_and_count` alone."""
    return cluster_and_count(particles, config, rows=rows, labels=labels, n_particles=n_particles)[0]


def cluster_and_count(
    particles: Floats,
    config: ClusterConfig,
    *,
    rows: Integers,
    labels: NDArray[np.int8] | None,
    n_particles: Integers | None = None,
) -> tuple[pa.Table, int]:
    """Cluster events into the records that `config` asks for, one a row of the input and in its order.

    Beside them, in how many events equal distances decided.

    `particles` (n_events, n_slots, 3) holds (pt in GeV, eta, phi), in any order, and pt == 0 where a slot is
    empty; `rows` (n_events,) are the rows of the source file, `labels` (n_events,) 1 for signal and 0 for
    background, or None where unknown; `n_particles` (n_events,) are the slots that are not empty, where they were
    counted. The bits of an event do not depend on its neighbours.
    """
    vectors = FourVectors.massless(particles, n_particles, fleeting=True)
    jets = cluster_four_vectors(vectors, config)
    listed = _list_constituents(jets, particles, vectors.counts, config) if config.constituents else None
    return _build_table(jets, vectors.counts, rows, labels, config, listed), int(np.count_nonzero(jets.ties))


def compile_kernels() -> None:
    """Have the loops compiled, or loaded from the cache, before a process forks: 20 s once, then 2 s."""
    two = np.array([[[1.0, 0.0, 0.0], [1.0, 0.5, 0.5]]])
    config = ClusterConfig(pt_min=0.0, features="full", constituents=1)
    with one_at_a_time(measure_jets):
        cluster_events(two, config, rows=np.zeros(1, np.int64), labels=None)


def cluster_four_vectors(vectors: FourVectors, config: ClusterConfig) -> Jets:
    """All jets above `config.pt_min` of events given as four-vectors; `config.max_jets` is not applied.

    Raises `ValueError` where a momentum is not a number or beyond 1e100 GeV, which the loops could not order.
    """
    if not are_orderly(vectors.px, vectors.py, vectors.pz, vectors.e, _LARGEST):
        raise ValueError(f"a momentum that is not a number or beyond {_LARGEST:g} GeV")
    n_particles = len(vectors.px)
    found = room_of("jets", 7 * n_particles + 1)
    momenta, rest = found[: 4 * n_particles].reshape(4, n_particles), found[4 * n_particles :]
    pt_lead, members = rest[:n_particles], rest[n_particles : 2 * n_particles].view(np.int64)
    starts = rest[2 * n_particles : 3 * n_particles + 1].view(np.int64)
    counts = np.zeros(len(vectors.counts), np.int64)
    ties = np.empty_like(counts)
    room = room_of("desk", room_for(int(vectors.counts.max(initial=1))))
    order = np.argsort(vectors.counts, kind="stable")
    find_jets(
        vectors.px,
        vectors.py,
        vectors.pz,
        vectors.e,
        vectors.offsets,
        order,
        _POWERS[config.algorithm],
        config.radius,
        config.pt_min,
        lanes_for_libm("directions"),
        room,
        counts,
        momenta,
        starts,
        members,
        pt_lead,
        ties,
    )
    n_jets = int(counts.sum())
    px, py, pz, e = (component[:n_jets].copy() for component in momenta)
    jets = Jets(
        vectors=FourVectors(counts=counts, px=px, py=py, pz=pz, e=e),
        starts=starts[: n_jets + 1].copy(),
        members=members[: starts[n_jets]].copy(),
        pt_lead=pt_lead[:n_jets].copy(),
        ties=ties,
    )
    if config.features == "jets":
        return jets
    return _measure_leading(jets, vectors, config.axes)


def _measure_leading(jets: Jets, particles: FourVectors, axes: Axes) -> Jets:
    leading = np.flatnonzero(jets.rank < N_LEADING)
    columns, ties = np.zeros((len(jets.pt_lead), len(SUBSTRUCTURE))), jets.ties.copy()
    columns[leading], of_jets = measure_substructure(
        particles, jets.starts, jets.members, leading, jets.vectors.pt[leading], axes
    )
    event_of = np.repeat(np.arange(len(ties)), jets.vectors.counts)
    np.bitwise_or.at(ties, event_of[leading], of_jets)
    return replace(jets, substructure=columns, ties=ties)


def _build_table(
    jets: Jets,
    n_particles: Integers,
    rows: Integers,
    labels: NDArray[np.int8] | None,
    config: ClusterConfig,
    constituents: pa.ListArray | None,
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
    if constituents is not None:
        columns["constituents"] = constituents
    schema = schema_of(config.features, constituents=constituents is not None)
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


def _list_constituents(
    jets: Jets, particles: Floats, n_particles: Integers, config: ClusterConfig
) -> pa.ListArray:
    """The column `LISTED_CONSTITUENTS`, of the `particles` that `cluster_events` has."""
    n_leading = min(N_LEADING, config.max_jets or N_LEADING)
    leading = np.flatnonzero(jets.rank < n_leading)
    axes = np.column_stack([jets.vectors.eta[leading], jets.vectors.phi[leading]])
    counts, found = hardest_constituents(
        particles, n_particles, jets.starts, jets.members, leading, axes, config.constituents
    )
    records = pa.StructArray.from_arrays([pa.array(one) for one in found], fields=list(CONSTITUENT))
    of_event = LISTED_CONSTITUENTS.type
    of_jet = pa.ListArray.from_arrays(offsets_of(counts).astype(np.int32), records, type=of_event.value_type)
    n_listed = np.minimum(jets.vectors.counts, n_leading)
    return pa.ListArray.from_arrays(offsets_of(n_listed).astype(np.int32), of_jet, type=of_event)


def _list_jets(jets: Jets, config: ClusterConfig) -> pa.ListArray:
    """The `jets` column: the leading `config.max_jets` of each event."""
    vectors, max_jets, rank = jets.vectors, config.max_jets, jets.rank
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
    listed = schema_of(config.features).field("jets").type
    arrays = {name: pa.array(values[kept]) for name, values in columns.items()}
    if jets.substructure is not None:
        others = rank[kept] >= N_LEADING
        for field, column in zip(SUBSTRUCTURE, jets.substructure[kept].T, strict=True):
            arrays[field.name] = pa.array(column, mask=others)
    fields = list(listed.value_type)
    records = pa.StructArray.from_arrays([arrays[field.name] for field in fields], fields=fields)
    return pa.ListArray.from_arrays(offsets_of(counts).astype(np.int32), records, type=listed)
