"""Sequential recombination of eight events at once.

FastJet's algorithms, not its code: the E-scheme with the generalised-kt distances, by nearest neighbours in rapidity
and azimuth (hep-ph/0512210, arXiv:0802.1189). Eight events of about equal size are clustered in lockstep, each in a
lane of its own. A table of pseudojets has a row a slot and a column a lane:

                lane 0   lane 1  ...  lane 7
      slot 0      o        o            o         rapidity, azimuth, weight (pt^2p), name,
      slot 1      o        o            o         near: name of the nearest neighbour,
      slot 2      o        o            o         distance: R^2 to it or less,
        ...       o        .            o         merit: distance times weight
      slot n-1    o        .            .         (o a pseudojet, . an empty slot)

A round is one turn for each lane, then one pass over the slots for all lanes.

  turn: the slot of the smallest merit decides, for that is the smallest min(w_i, w_j) R_ij^2 of all pairs (of a pair,
      the one of smaller weight has the other for its neighbour). What is known of its neighbour?
        - the beam is nearer than any: a jet is complete; the last pseudojet of the lane takes its slot;
        - a pseudojet that still is in the table: both merge. The sum takes the lower slot, the last one the higher.
          The sum asks for a row;
        - one that is no more, or none yet: it asks for a row.
  pass: a row is the distances from the pseudojet that asked to all others of its lane. The smallest is its own
      nearest neighbour. A pseudojet to which the asking one is nearer than its `distance` has it for its neighbour
      from now on. On the way the smallest merit of each lane is found for the next turn.

No neighbour has to be known until its turn comes, and of most it never does: nine of ten particles are taken by
somebody else before. So at the start each particle gets from the particles next to it in azimuth either its nearest
neighbour, where these can be shown to contain it, or a distance below which there is none. The same row that looks
for a neighbour serves the new pseudojet, and no lane waits for another's kind of turn.

Every distance is the same expression of the same doubles whenever it is taken, so the smallest is what the smallest
of all pairs would be, and the order of merging is that of FastJet where no two distances are equal. Where two are
and one of them was taken, the lane is `tied`: `lhcq.jets.ties` does it again.
"""

import math
from typing import Any, NamedTuple

from lhcq.jets.exact import angle_of, log_of
from lhcq.jets.lanes import (
    N_LANES,
    Vector,
    add_fours,
    any_of,
    choose,
    get,
    get_int,
    inlined,
    int_row,
    least,
    look_up_four,
    magnitude,
    numbers,
    put,
    put_int,
    put_int_row,
    put_row,
    row,
    spread,
)

# The power of pt in the weight of a pseudojet, as `p` of generalised kt, doubled.
ANTIKT, CAMBRIDGE, KT = -2, 0, 2

BEYOND = 1e300  # farther than any pair, heavier than any weight
EVERYWHERE = 1e6  # R^2 of a clustering that has no beam: FastJet's `max_allowable_R`, squared
# Rapidity of a momentum along the beam: FastJet's `MaxRap`, to which it adds |pz| so that no two are alike.
_MAX_RAPIDITY = 1e5
_AWAY = 1e200  # rapidity of an empty slot: R^2 to it is infinite
# Instead of a nearest neighbour: the beam is nearer than any; or it is not known.
_BEAM, _UNKNOWN = -1, -2
_GONE = -1  # slot of a pseudojet that is no more
_NO_ROW = -1
_WINDOW = 8  # particles on each side in azimuth that a particle is compared with at the start
_SECTORS = 256  # of azimuth, into which particles are sorted
_PAD = _WINDOW + 1
_BLOCK = 4  # slots of which a pass notes the smallest merit
N_AXES = 4
# Rows of the notes of each lane: what a turn leaves for the pass, what the pass leaves for the next turn, and how far
# the lane is.
_ASKED_SLOT, _ASKED_NAME, _ASKED_RAP, _ASKED_PHI, _ASKED_WEIGHT, _MERGED = 0, 1, 2, 3, 4, 5
_NEAREST, _NEAREST_AT, _SMALLEST, _SMALLEST_AT = 6, 7, 8, 9
_CHOSEN, _CHOSEN_NAME, _CHOSEN_NEAR = 10, 11, 12
N_PARTICLES, _LEFT, _N_NODES, N_DONE = 13, 14, 15, 16
# Whether equal distances decided; for that, whether the row of a turn has two smallest, the last merit that was taken
# by a pair or the beam, and by which.
_TIED, _NEAREST_TIED, _TAKEN, _TAKEN_BY_BEAM, _NOTES = 17, 18, 19, 20, 21
# The record of a node, one line of memory: its momentum (px, py, pz, e), and while it is a pseudojet its weight, the
# name of its nearest neighbour, its slot, and whether another is as near.
RECORD = 8
_WEIGHT, _NEAR, _SLOT, _EQUAL = 4, 5, 6, 7


class Desk(NamedTuple):
    """Addresses of the tables of eight events of at most `most` particles."""

    most: int
    n_lanes: int  # which the compiler may not know, or it writes every turn eight times
    # a row of eight for each particle
    particle_rap: int
    particle_phi: int
    particle_pt2: int
    # a row of eight for each slot
    rap: int
    phi: int
    distance: int
    merit: int
    name: int
    weight: int  # of the particles, at the start
    # lane after lane: records, the two parents of each node, the complete nodes
    records: int
    links: int
    done: int
    # rows of eight, see above, momenta of the sums (8, 4), and scratch
    notes: int
    sums: int
    scratch: int
    # rows of eight for each particle in the order of azimuth, and for each sector
    sorted_rap: int
    sorted_phi: int
    sorted_edge: int
    sorted_slot: int
    found: int
    found_near: int
    sector: int
    sectors: int


_ROW = 8 * N_LANES  # bytes


def rows_of(most: int) -> tuple[int, ...]:
    """How many rows of eight doubles each table of a desk takes, in the order of `Desk`."""
    slots, ordered = most + _BLOCK, most + 1 + 2 * _PAD
    return (
        *(slots, slots, slots, slots, slots, slots, slots, slots, slots),
        *(2 * most * RECORD, 4 * most, most),
        *(_NOTES, 4, 4),
        *(ordered, ordered, ordered, ordered, ordered, ordered, slots, _SECTORS),
    )


def room_for(most: int) -> int:
    """Doubles that a desk for events of `most` particles takes."""
    return N_LANES * (sum(rows_of(most)) + 1)


_rows_of = inlined(rows_of)


@inlined
def lay_out(address: int, most: int, n_lanes: int) -> Any:
    """The desk in the `room_for(most)` doubles from an address on."""
    a = (address + _ROW - 1) & -_ROW
    rows = _rows_of(most)
    particle_rap = a
    particle_phi = particle_rap + rows[0] * _ROW
    particle_pt2 = particle_phi + rows[1] * _ROW
    rap = particle_pt2 + rows[2] * _ROW
    phi = rap + rows[3] * _ROW
    distance = phi + rows[4] * _ROW
    merit = distance + rows[5] * _ROW
    name = merit + rows[6] * _ROW
    weight = name + rows[7] * _ROW
    records = weight + rows[8] * _ROW
    links = records + rows[9] * _ROW
    done = links + rows[10] * _ROW
    notes = done + rows[11] * _ROW
    sums = notes + rows[12] * _ROW
    scratch = sums + rows[13] * _ROW
    sorted_rap = scratch + rows[14] * _ROW
    sorted_phi = sorted_rap + rows[15] * _ROW
    sorted_edge = sorted_phi + rows[16] * _ROW
    sorted_slot = sorted_edge + rows[17] * _ROW
    found = sorted_slot + rows[18] * _ROW
    found_near = found + rows[19] * _ROW
    sector = found_near + rows[20] * _ROW
    sectors = sector + rows[21] * _ROW
    return Desk(
        most,
        n_lanes,
        particle_rap,
        particle_phi,
        particle_pt2,
        rap,
        phi,
        distance,
        merit,
        name,
        weight,
        records,
        links,
        done,
        notes,
        sums,
        scratch,
        sorted_rap,
        sorted_phi,
        sorted_edge,
        sorted_slot,
        found,
        found_near,
        sector,
        sectors,
    )


@inlined
def directions_of(px: Vector, py: Vector, pz: Vector, e: Vector, by_libm: int, scratch: int) -> Any:
    """pt^2, rapidity and azimuth of eight momenta, rounded as FastJet does."""
    pt2 = px * px + py * py
    phi = angle_of(py, px, by_libm, scratch)
    phi = choose(phi < 0.0, phi + 2 * math.pi, phi)
    phi = choose(pt2 > 0.0, phi, 0.0)
    m2 = (e + pz) * (e - pz) - pt2
    m2 = choose(m2 > 0.0, m2, 0.0)
    p_plus = e + magnitude(pz)
    rap = log_of((pt2 + m2) / (p_plus * p_plus), by_libm, scratch) * -0.5
    along = (pt2 == 0.0) & (e == magnitude(pz))
    rap = choose(along, magnitude(pz) + _MAX_RAPIDITY, rap)
    return pt2, choose(pz > 0.0, rap, 0.0 - rap), phi


@inlined
def weights_of(pt2: Vector, power: int) -> Any:
    """pt^2p of eight pseudojets."""
    if power == ANTIKT:
        return choose(pt2 > 1.0 / BEYOND, 1.0 / pt2, BEYOND)
    if power == KT:
        return pt2
    return spread(1.0)


@inlined
def separations(rap1: Vector, phi1: Vector, rap2: Vector, phi2: Vector) -> Any:
    """Delta R squared in rapidity and azimuth."""
    along, around = rap1 - rap2, magnitude(phi1 - phi2)
    around = least(around, 2 * math.pi - around)
    return along * along + around * around


@inlined
def cluster(desk: Any, n_most: int, power: int, limit: float, by_libm: int, axes: int) -> None:
    """Cluster the events on the desk, the largest of which has `n_most` particles.

    A pseudojet that has none within R^2 = `limit` is complete when its turn comes: its node goes to `done`. If `axes`
    is not 0, the last four, three, two and one pseudojets of each lane are noted there.
    """
    notes = desk.notes
    for note in range(N_PARTICLES):
        put_int_row(notes, note, spread(0))
    for component in range(4):  # a lane that does not merge sums nothing; an ordinary momentum costs least
        put_row(desk.sums, component, spread(2.0))
    put_int_row(notes, _ASKED_SLOT, spread(_NO_ROW))
    put_row(notes, _ASKED_RAP, spread(-_AWAY))
    put_int_row(notes, N_DONE, spread(0))
    put_int_row(notes, _TIED, spread(0))
    put_row(notes, _TAKEN, spread(-1.0))
    put_int_row(notes, _LEFT, int_row(notes, N_PARTICLES))
    put_int_row(notes, _N_NODES, int_row(notes, N_PARTICLES))
    n_particles = int_row(notes, N_PARTICLES)
    for slot in range(n_most + _BLOCK - 1):
        filled = n_particles > slot
        put_row(desk.rap, slot, choose(filled, row(desk.particle_rap, slot), _AWAY))
        put_row(desk.phi, slot, row(desk.particle_phi, slot))
        put_row(desk.distance, slot, choose(filled, BEYOND, -1.0))
        put_row(desk.merit, slot, spread(math.inf))
        put_int_row(desk.name, slot, spread(slot))
        put_row(desk.weight, slot, weights_of(row(desk.particle_pt2, slot), power))
    _find_neighbours(desk, n_most, limit)
    n_slots = n_most
    while n_slots > 0:
        _pass(desk, n_slots, limit)
        n_slots, n_merged = 0, 0
        for lane in range(desk.n_lanes):
            _choose(desk, lane, axes)
        put_int_row(notes, _ASKED_SLOT, spread(_NO_ROW))
        put_row(notes, _ASKED_RAP, spread(-_AWAY))
        put_int_row(notes, _MERGED, spread(0))
        for lane in range(desk.n_lanes):  # apart, so that eight lanes wait for memory at once
            n_merged += _act(desk, lane)
            n_slots = max(n_slots, get_int(notes, N_LANES * _LEFT + lane))
        if n_merged > 0:
            px, py, pz, e = look_up_four(desk.sums, numbers())
            pt2, rap, phi = directions_of(px, py, pz, e, by_libm, desk.scratch)
            merged = int_row(notes, _MERGED) != 0
            put_row(notes, _ASKED_RAP, choose(merged, rap, row(notes, _ASKED_RAP)))
            put_row(notes, _ASKED_PHI, choose(merged, phi, row(notes, _ASKED_PHI)))
            weight = choose(merged, weights_of(pt2, power), row(notes, _ASKED_WEIGHT))
            put_row(notes, _ASKED_WEIGHT, weight)


@inlined
def _pass(desk: Any, n_slots: int, limit: float) -> None:
    """The smallest distance of each lane's row and its slot, and the smallest merit of each lane and its block."""
    notes = desk.notes
    rap, phi = row(notes, _ASKED_RAP), row(notes, _ASKED_PHI)
    # A sum may be as near to somebody as the neighbour it has. Who asks again cannot, but for its own neighbour.
    nudge = choose(int_row(notes, _MERGED) != 0, 1.0 - 2.0**-52, 1.0)
    nearest, smallest = spread(BEYOND), spread(math.inf)
    nearest_at, smallest_at, latest_at = spread(0), spread(0), spread(0)
    for block in range((n_slots + _BLOCK - 1) // _BLOCK):
        first = _BLOCK * block
        this = separations(rap, phi, row(desk.rap, first), row(desk.phi, first))
        closer = this * nudge < row(desk.distance, first)
        latest_at = choose(this <= nearest, first, latest_at)
        nearest_at, nearest = choose(this < nearest, first, nearest_at), least(this, nearest)
        merit = row(desk.merit, first)
        for slot in (first + 1, first + 2, first + 3):
            this = separations(rap, phi, row(desk.rap, slot), row(desk.phi, slot))
            closer = closer | (this * nudge < row(desk.distance, slot))
            latest_at = choose(this <= nearest, slot, latest_at)
            nearest_at, nearest = choose(this < nearest, slot, nearest_at), least(this, nearest)
            merit = least(row(desk.merit, slot), merit)
        if any_of(closer):  # of one event in a row or two
            _come_closer(desk, first)
            merit = least(row(desk.merit, first), row(desk.merit, first + 1))
            merit = least(least(row(desk.merit, first + 2), row(desk.merit, first + 3)), merit)
        smallest_at = choose(merit < smallest, first, smallest_at)
        smallest = least(merit, smallest)
    put_int_row(notes, _NEAREST_AT, choose(nearest < limit, nearest_at, _BEAM))
    put_int_row(notes, _NEAREST_TIED, latest_at - nearest_at)
    put_row(notes, _NEAREST, least(nearest, limit))
    put_row(notes, _SMALLEST, smallest)
    put_int_row(notes, _SMALLEST_AT, smallest_at)


@inlined
def _come_closer(desk: Any, slot: int) -> None:
    """Whoever asked is the nearest neighbour of those in a block to which it is nearer than what they know."""
    rap, phi = row(desk.notes, _ASKED_RAP), row(desk.notes, _ASKED_PHI)
    for k in range(_BLOCK):
        put_row(desk.scratch, k, separations(rap, phi, row(desk.rap, slot + k), row(desk.phi, slot + k)))
    for k in range(_BLOCK * N_LANES):
        at, this = N_LANES * slot + k, get(desk.scratch, k)
        if this < get(desk.distance, at):
            lane = k % N_LANES
            record = desk.records + 8 * RECORD * (2 * desk.most * lane + get_int(desk.name, at))
            put(desk.distance, at, this)
            put(desk.merit, at, this * get(record, _WEIGHT))
            put_int(record, _NEAR, get_int(desk.notes, N_LANES * _ASKED_NAME + lane))
            put_int(record, _EQUAL, 0)
        elif this == get(desk.distance, at):
            lane = k % N_LANES
            record = desk.records + 8 * RECORD * (2 * desk.most * lane + get_int(desk.name, at))
            if get_int(record, _NEAR) != get_int(desk.notes, N_LANES * _ASKED_NAME + lane):
                put_int(record, _EQUAL, 1)


@inlined
def _choose(desk: Any, lane: int, axes: int) -> None:
    """Put down the row that a lane has asked for, and see whose turn it is."""
    mine, records = desk.notes + 8 * lane, desk.records + 8 * RECORD * 2 * desk.most * lane
    left = get_int(mine, N_LANES * _LEFT)
    if left == 0:
        return
    slot, smallest = get_int(mine, N_LANES * _SMALLEST_AT), get(mine, N_LANES * _SMALLEST)
    at = N_LANES * slot + lane
    if get(desk.merit, at) != smallest:
        first = get(desk.merit, at + N_LANES) == smallest
        second = get(desk.merit, at + 2 * N_LANES) == smallest
        slot += 1 if first else (2 if second else 3)
    asked = get_int(mine, N_LANES * _ASKED_SLOT)
    if asked != _NO_ROW:
        at, record = N_LANES * asked + lane, records + 8 * RECORD * get_int(mine, N_LANES * _ASKED_NAME)
        distance, weight = get(mine, N_LANES * _NEAREST), get(mine, N_LANES * _ASKED_WEIGHT)
        near, merit = get_int(mine, N_LANES * _NEAREST_AT), distance * weight
        if near != _BEAM:
            near = get_int(desk.name, N_LANES * near + lane)
        put(desk.rap, at, get(mine, N_LANES * _ASKED_RAP))
        put(desk.phi, at, get(mine, N_LANES * _ASKED_PHI))
        put(desk.distance, at, distance)
        put(desk.merit, at, merit)
        put(record, _WEIGHT, weight)
        put_int(record, _NEAR, near)
        put_int(record, _EQUAL, get_int(mine, N_LANES * _NEAREST_TIED))
        if merit < smallest or (merit == smallest and asked < slot):
            slot = asked
    if axes != 0 and left <= N_AXES:
        note_axes(desk, lane, left, axes)
    name = get_int(desk.name, N_LANES * slot + lane)
    put_int(mine, N_LANES * _CHOSEN, slot)
    put_int(mine, N_LANES * _CHOSEN_NAME, name)
    put_int(mine, N_LANES * _CHOSEN_NEAR, get_int(records + 8 * RECORD * name, _NEAR))


@inlined
def _act(desk: Any, lane: int) -> int:
    """The turn of the chosen pseudojet of a lane; 1 if it merges."""
    mine, records = desk.notes + 8 * lane, desk.records + 8 * RECORD * 2 * desk.most * lane
    left = get_int(mine, N_LANES * _LEFT)
    if left == 0:
        return 0
    slot, name = get_int(mine, N_LANES * _CHOSEN), get_int(mine, N_LANES * _CHOSEN_NAME)
    near, record, at = (
        get_int(mine, N_LANES * _CHOSEN_NEAR),
        records + 8 * RECORD * name,
        N_LANES * slot + lane,
    )
    if near == _BEAM:
        _note_ties(desk, lane, get(desk.merit, at), 1)
        n_done = get_int(mine, N_LANES * N_DONE)
        put_int(desk.done, desk.most * lane + n_done, name)
        put_int(mine, N_LANES * N_DONE, n_done + 1)
        put_int(record, _SLOT, _GONE)
        put_int(mine, N_LANES * _LEFT, left - 1)
        _move_last(desk, lane, records, left - 1, slot)
        return 0
    other = _GONE
    if near != _UNKNOWN:
        other = get_int(records + 8 * RECORD * near, _SLOT)
    if other == _GONE:
        _ask(desk, lane, slot, name)
        put(mine, N_LANES * _ASKED_RAP, get(desk.rap, at))
        put(mine, N_LANES * _ASKED_PHI, get(desk.phi, at))
        put(mine, N_LANES * _ASKED_WEIGHT, get(record, _WEIGHT))
        put(desk.rap, at, _AWAY)
        return 0
    partner = records + 8 * RECORD * near
    merit, mutual = get(desk.merit, at), get_int(partner, _NEAR) == name
    _note_ties(desk, lane, merit, 0)
    if get_int(record, _EQUAL) != 0 or (
        get(desk.merit, N_LANES * other + lane) == merit and (not mutual or get_int(partner, _EQUAL) != 0)
    ):
        put_int(mine, N_LANES * _TIED, 1)
    node = get_int(mine, N_LANES * _N_NODES)
    sum_of = records + 8 * RECORD * node
    add_fours(record, partner, sum_of, desk.sums + 32 * lane)
    parents = desk.links + 16 * (2 * desk.most * lane + node)
    put_int(parents, 0, name if slot < other else near)
    put_int(parents, 1, near if slot < other else name)
    put_int(record, _SLOT, _GONE)
    put_int(partner, _SLOT, _GONE)
    slot, other = min(slot, other), max(slot, other)
    put_int(sum_of, _SLOT, slot)
    put_int(mine, N_LANES * _N_NODES, node + 1)
    put_int(mine, N_LANES * _LEFT, left - 1)
    put_int(mine, N_LANES * _MERGED, 1)
    put_int(desk.name, N_LANES * slot + lane, node)
    put(desk.rap, N_LANES * slot + lane, _AWAY)
    _ask(desk, lane, slot, node)
    _move_last(desk, lane, records, left - 1, other)
    return 1


@inlined
def _note_ties(desk: Any, lane: int, merit: float, by_beam: int) -> None:
    """Equal merits one after the other tie, but for those of two jets, which do not touch each other."""
    mine = desk.notes + 8 * lane
    if merit == get(mine, N_LANES * _TAKEN) and by_beam + get_int(mine, N_LANES * _TAKEN_BY_BEAM) < 2:
        put_int(mine, N_LANES * _TIED, 1)
    put(mine, N_LANES * _TAKEN, merit)
    put_int(mine, N_LANES * _TAKEN_BY_BEAM, by_beam)


@inlined
def tied(desk: Any, lane: int) -> Any:
    """Whether equal distances decided in the clustering of a lane."""
    return get_int(desk.notes, N_LANES * _TIED + lane) != 0


@inlined
def _ask(desk: Any, lane: int, slot: int, name: int) -> None:
    """Ask for the row of a slot, which until then has no merit."""
    put(desk.merit, N_LANES * slot + lane, math.inf)
    put_int(desk.notes, N_LANES * _ASKED_SLOT + lane, slot)
    put_int(desk.notes, N_LANES * _ASKED_NAME + lane, name)


@inlined
def _move_last(desk: Any, lane: int, records: int, last: int, to: int) -> None:
    """The pseudojet of the last slot takes another, and leaves its own empty."""
    here, there = N_LANES * last + lane, N_LANES * to + lane
    if last != to:
        name = get_int(desk.name, here)
        put_int(desk.name, there, name)
        put_int(records + 8 * RECORD * name, _SLOT, to)
        put(desk.rap, there, get(desk.rap, here))
        put(desk.phi, there, get(desk.phi, here))
        put(desk.distance, there, get(desk.distance, here))
        put(desk.merit, there, get(desk.merit, here))
    _empty(desk, here)


@inlined
def _empty(desk: Any, at: int) -> None:
    put(desk.rap, at, _AWAY)
    put(desk.distance, at, -1.0)
    put(desk.merit, at, math.inf)


@inlined
def record_of(desk: Any, lane: int, node: int) -> Any:
    """The address of a node's record; its momentum (px, py, pz, e) comes first."""
    return desk.records + 8 * RECORD * (2 * desk.most * lane + node)


@inlined
def set_count(desk: Any, lane: int, n: int) -> None:
    """Say how many particles a lane has; their momenta go to the records from 0 on."""
    put_int(desk.notes, N_LANES * N_PARTICLES + lane, n)
    put_int(desk.notes, N_LANES * _CHOSEN + lane, 2 * 2 * desk.most * lane)


@inlined
def set_directions(desk: Any, n_most: int, by_libm: int) -> None:
    """The directions of all particles, once their momenta are in the records."""
    n_particles, places = int_row(desk.notes, N_PARTICLES), int_row(desk.notes, _CHOSEN)
    for slot in range(n_most + _BLOCK - 1):
        filled = n_particles > slot
        # records are two fours long; where there is none, an ordinary momentum costs least
        px, py, pz, e = look_up_four(desk.records, choose(filled, places + 2 * slot, 0))
        px, py, pz, e = (
            choose(filled, px, 2.0),
            choose(filled, py, 2.0),
            choose(filled, pz, 2.0),
            choose(filled, e, 4.0),
        )
        pt2, rap, phi = directions_of(px, py, pz, e, by_libm, desk.scratch)
        put_row(desk.particle_pt2, slot, pt2)
        put_row(desk.particle_rap, slot, rap)
        put_row(desk.particle_phi, slot, phi)


@inlined
def _find_neighbours(desk: Any, n_most: int, limit: float) -> None:
    """The nearest neighbour of each particle or, where it is not certain, a distance below which there is none."""
    for sector in range(_SECTORS):
        put_int_row(desk.sectors, sector, spread(0))
    n_least = n_most
    for lane in range(desk.n_lanes):
        n = get_int(desk.notes, N_LANES * N_PARTICLES + lane)
        n_least = min(n_least, n) if n > 0 else n_least
        for slot in range(n):
            at = N_LANES * slot + lane
            sector = min(_SECTORS - 1, int(get(desk.phi, at) * (_SECTORS / (2 * math.pi))))
            put_int(desk.sector, at, sector)
            put_int(desk.sectors, N_LANES * sector + lane, get_int(desk.sectors, N_LANES * sector + lane) + 1)
    total = spread(0)
    for sector in range(_SECTORS):
        n_here = int_row(desk.sectors, sector)
        put_int_row(desk.sectors, sector, total)
        total = total + n_here
    for lane in range(desk.n_lanes):
        n = get_int(desk.notes, N_LANES * N_PARTICLES + lane)
        if n > 0:
            _sort_by_azimuth(desk, lane, n)
    _compare_in_order(desk, n_most, min(_WINDOW, n_least // 2), limit)
    for lane in range(desk.n_lanes):
        for index in range(get_int(desk.notes, N_LANES * N_PARTICLES + lane)):
            here = N_LANES * (index + _PAD) + lane
            there = N_LANES * get_int(desk.sorted_slot, here) + lane
            slot = get_int(desk.sorted_slot, here)
            record, distance, weight = (
                record_of(desk, lane, slot),
                get(desk.found, here),
                get(desk.weight, there),
            )
            put(desk.distance, there, distance)
            put(desk.merit, there, distance * weight)
            put(record, _WEIGHT, weight)
            put_int(record, _NEAR, get_int(desk.found_near, here))
            put_int(record, _EQUAL, 0)
            put_int(record, _SLOT, slot)


@inlined
def _sort_by_azimuth(desk: Any, lane: int, n: int) -> None:
    """One lane's particles by sectors of azimuth, and the pads, which make a circle of them."""
    for slot in range(n):
        at = N_LANES * slot + lane
        sector = get_int(desk.sector, at)
        place = get_int(desk.sectors, N_LANES * sector + lane)
        put_int(desk.sectors, N_LANES * sector + lane, place + 1)
        there = N_LANES * (place + _PAD) + lane
        put(desk.sorted_rap, there, get(desk.rap, at))
        put(desk.sorted_phi, there, get(desk.phi, at))
        put(desk.sorted_edge, there, sector * (2 * math.pi / _SECTORS))
        put_int(desk.sorted_slot, there, slot)
    for pad in range(_PAD):
        _copy_around(desk, lane, _PAD + n + pad, _PAD + pad % n, 2 * math.pi * (1 + pad // n))
        _copy_around(desk, lane, _PAD - 1 - pad, _PAD + n - 1 - pad % n, -2 * math.pi * (1 + pad // n))


@inlined
def _copy_around(desk: Any, lane: int, to: int, place: int, turns: float) -> None:
    here, there = N_LANES * place + lane, N_LANES * to + lane
    put(desk.sorted_rap, there, get(desk.sorted_rap, here))
    put(desk.sorted_phi, there, get(desk.sorted_phi, here))
    put(desk.sorted_edge, there, get(desk.sorted_edge, here) + turns)
    put_int(desk.sorted_slot, there, get_int(desk.sorted_slot, here))


@inlined
def _compare_in_order(desk: Any, n_most: int, window: int, limit: float) -> None:
    """Compare each particle with `window` before and after it in azimuth; all others are beyond the next ones."""
    for index in range(_PAD, _PAD + n_most):
        rap, phi = row(desk.sorted_rap, index), row(desk.sorted_phi, index)
        nearest, near, latest = spread(BEYOND), spread(_UNKNOWN), spread(_UNKNOWN)
        for step in range(1, window + 1):
            for side in (index - step, index + step):
                this = separations(rap, phi, row(desk.sorted_rap, side), row(desk.sorted_phi, side))
                latest = choose(this <= nearest, int_row(desk.sorted_slot, side), latest)
                near = choose(this < nearest, int_row(desk.sorted_slot, side), near)
                nearest = least(this, nearest)
        after = row(desk.sorted_edge, index + window + 1) - phi
        before = phi - (row(desk.sorted_edge, index - window - 1) + 2 * math.pi / _SECTORS)
        beyond = least(after, before) - 1e-9  # rounding of edges and of azimuths that go around
        bound = choose(beyond > 0.0, beyond * beyond, 0.0)
        near = choose((nearest <= bound) & (near == latest), near, _UNKNOWN)
        near = choose((nearest >= limit) & (bound >= limit), _BEAM, near)
        put_int_row(desk.found_near, index, near)
        put_row(desk.found, index, least(least(nearest, bound), limit))


@inlined
def note_axes(desk: Any, lane: int, left: int, axes: int) -> None:
    """Rapidity, azimuth and name of the pseudojets of a lane, the last `left`."""
    for slot in range(left):
        at, there = N_LANES * slot + lane, N_LANES * 3 * (left * (left - 1) // 2 + slot) + lane
        put(axes, there, get(desk.rap, at))
        put(axes, there + N_LANES, get(desk.phi, at))
        put_int(axes, there + 2 * N_LANES, get_int(desk.name, at))
