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
of all pairs would be, and the order of merging is that of FastJet where no two distances are equal.
"""

import math
from typing import Any, NamedTuple

from lhcq.jets.exact import angle_of, log_of
from lhcq.jets.lanes import (
    N_LANES,
    Vector,
    any_of,
    choose,
    get,
    get_int,
    inlined,
    int_row,
    least,
    magnitude,
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
N_AXES = 4


# Rows of the notes: what a turn leaves for the pass and for the directions of sums, what the pass leaves for the next
# turn, and how far each lane is.
_ASKED_SLOT, _ASKED_NAME, _ASKED_RAP, _ASKED_PHI, _ASKED_WEIGHT, _MERGED, _SUM = 0, 1, 2, 3, 4, 5, 6
_NEAREST, _NEAREST_AT, _SMALLEST, _SMALLEST_AT = 10, 11, 12, 13
_N, _LEFT, _N_NODES, N_DONE, _NOTES = 14, 15, 16, 17, 18


class Desk(NamedTuple):
    """Addresses of the tables of eight events of at most `most` particles."""

    most: int
    # a row of eight for each slot
    rap: int
    phi: int
    weight: int
    distance: int
    merit: int
    near: int
    name: int
    # lane after lane: of each node its momentum (4), its parents (2), the slot that it is in; the complete nodes
    nodes: int
    links: int
    place: int
    done: int
    # rows of eight, see above, and scratch of the exact functions
    notes: int
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


def _rows_of(most: int) -> tuple[int, ...]:
    """How many rows each table of a desk takes, in the order of `Desk`."""
    slots, ordered = most + 1, most + 1 + 2 * _PAD
    return (
        *(slots, slots, slots, slots, slots, slots, slots),
        *(8 * most, 4 * most, 2 * most, most),
        *(_NOTES, 3),
        *(ordered, ordered, ordered, ordered, ordered, ordered, slots, _SECTORS),
    )


def room_for(most: int) -> int:
    """Doubles that a desk for events of `most` particles takes."""
    return N_LANES * (sum(_rows_of(most)) + 1)


_rows_of_compiled = inlined(_rows_of)


@inlined
def lay_out(address: int, most: int) -> Any:
    """The desk in the `room_for(most)` doubles from an address on."""
    a = (address + _ROW - 1) & -_ROW
    rows = _rows_of_compiled(most)
    rap = a
    phi = rap + rows[0] * _ROW
    weight = phi + rows[1] * _ROW
    distance = weight + rows[2] * _ROW
    merit = distance + rows[3] * _ROW
    near = merit + rows[4] * _ROW
    name = near + rows[5] * _ROW
    nodes = name + rows[6] * _ROW
    links = nodes + rows[7] * _ROW
    place = links + rows[8] * _ROW
    done = place + rows[9] * _ROW
    notes = done + rows[10] * _ROW
    scratch = notes + rows[11] * _ROW
    sorted_rap = scratch + rows[12] * _ROW
    sorted_phi = sorted_rap + rows[13] * _ROW
    sorted_edge = sorted_phi + rows[14] * _ROW
    sorted_slot = sorted_edge + rows[15] * _ROW
    found = sorted_slot + rows[16] * _ROW
    found_near = found + rows[17] * _ROW
    sector = found_near + rows[18] * _ROW
    sectors = sector + rows[19] * _ROW
    return Desk(most, rap, phi, weight, distance, merit, near, name, nodes, links, place, done, notes, scratch, sorted_rap, sorted_phi, sorted_edge, sorted_slot, found, found_near, sector, sectors)


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
    for note in range(_N):
        put_int_row(notes, note, spread(0))
    for component in range(4):  # a lane that does not merge sums nothing, which costs least if it is an ordinary momentum
        put_row(notes, _SUM + component, spread(2.0))
    put_int_row(notes, _ASKED_SLOT, spread(_NO_ROW))
    put_row(notes, _ASKED_RAP, spread(-_AWAY))
    put_int_row(notes, N_DONE, spread(0))
    put_int_row(notes, _LEFT, int_row(notes, _N))
    put_int_row(notes, _N_NODES, int_row(notes, _N))
    _find_neighbours(desk, n_most, limit)
    for slot in range(n_most):
        distance = row(desk.distance, slot)
        put_row(desk.merit, slot, choose(distance < 0.0, BEYOND, distance * row(desk.weight, slot)))
    n_slots = n_most
    while n_slots > 0:
        _pass(desk, n_slots)
        n_slots, n_merged = 0, 0
        for lane in range(N_LANES):
            n_merged += _turn(desk, lane, limit, axes)
            n_slots = max(n_slots, get_int(notes, N_LANES * _LEFT + lane))
        if n_merged > 0:
            px, py, pz, e = row(notes, _SUM), row(notes, _SUM + 1), row(notes, _SUM + 2), row(notes, _SUM + 3)
            pt2, rap, phi = directions_of(px, py, pz, e, by_libm, desk.scratch)
            merged = int_row(notes, _MERGED) != 0
            put_row(notes, _ASKED_RAP, choose(merged, rap, row(notes, _ASKED_RAP)))
            put_row(notes, _ASKED_PHI, choose(merged, phi, row(notes, _ASKED_PHI)))
            weight = choose(merged, weights_of(pt2, power), row(notes, _ASKED_WEIGHT))
            put_row(notes, _ASKED_WEIGHT, weight)


@inlined
def _pass(desk: Any, n_slots: int) -> None:
    """The row of each lane: its smallest distance and where; and the smallest merit of each lane and where."""
    rap, phi = row(desk.notes, _ASKED_RAP), row(desk.notes, _ASKED_PHI)
    nearest, smallest = spread(BEYOND), spread(2 * BEYOND)
    nearest_at, smallest_at = spread(0), spread(0)
    for slot in range(n_slots):
        this = separations(rap, phi, row(desk.rap, slot), row(desk.phi, slot))
        closer = this < row(desk.distance, slot)
        if any_of(closer):  # of one event in a row or two
            put_row(desk.distance, slot, choose(closer, this, row(desk.distance, slot)))
            asking = int_row(desk.notes, _ASKED_NAME)
            put_int_row(desk.near, slot, choose(closer, asking, int_row(desk.near, slot)))
            merit = choose(closer, this * row(desk.weight, slot), row(desk.merit, slot))
            put_row(desk.merit, slot, merit)
        nearest_at = choose(this < nearest, slot, nearest_at)
        nearest = least(this, nearest)
        merit = row(desk.merit, slot)
        smallest_at = choose(merit < smallest, slot, smallest_at)
        smallest = least(merit, smallest)
    put_row(desk.notes, _NEAREST, nearest)
    put_int_row(desk.notes, _NEAREST_AT, nearest_at)
    put_row(desk.notes, _SMALLEST, smallest)
    put_int_row(desk.notes, _SMALLEST_AT, smallest_at)


@inlined
def _note(desk: Any, what: int, lane: int) -> Any:
    return get(desk.notes, N_LANES * what + lane)


@inlined
def _int_note(desk: Any, what: int, lane: int) -> Any:
    return get_int(desk.notes, N_LANES * what + lane)


@inlined
def _set_note(desk: Any, what: int, lane: int, value: float) -> None:
    put(desk.notes, N_LANES * what + lane, value)


@inlined
def _set_int_note(desk: Any, what: int, lane: int, value: int) -> None:
    put_int(desk.notes, N_LANES * what + lane, value)


@inlined
def _turn(desk: Any, lane: int, limit: float, axes: int) -> int:
    """What one lane does between two passes; 1 if it merges."""
    left, nodes = _int_note(desk, _LEFT, lane), 2 * desk.most * lane
    _set_int_note(desk, _MERGED, lane, 0)
    if left == 0:
        return 0
    slot, smallest = _int_note(desk, _SMALLEST_AT, lane), _note(desk, _SMALLEST, lane)
    asked = _int_note(desk, _ASKED_SLOT, lane)
    if asked != _NO_ROW:
        # the row that this lane asked for is there
        at = N_LANES * asked + lane
        distance, near = _note(desk, _NEAREST, lane), _BEAM
        if distance < limit:
            near = get_int(desk.name, N_LANES * _int_note(desk, _NEAREST_AT, lane) + lane)
        else:
            distance = limit
        weight = _note(desk, _ASKED_WEIGHT, lane)
        merit = distance * weight
        put(desk.rap, at, _note(desk, _ASKED_RAP, lane))
        put(desk.phi, at, _note(desk, _ASKED_PHI, lane))
        put(desk.weight, at, weight)
        put(desk.distance, at, distance)
        put(desk.merit, at, merit)
        put_int(desk.near, at, near)
        if merit < smallest or (merit == smallest and asked < slot):
            slot = asked
        _set_int_note(desk, _ASKED_SLOT, lane, _NO_ROW)
        _set_note(desk, _ASKED_RAP, lane, -_AWAY)
    if axes != 0 and left <= N_AXES:
        _note_axes(desk, lane, left, axes)
    at = N_LANES * slot + lane
    name, near = get_int(desk.name, at), get_int(desk.near, at)
    if near == _BEAM:
        n_done = _int_note(desk, N_DONE, lane)
        put_int(desk.done, desk.most * lane + n_done, name)
        _set_int_note(desk, N_DONE, lane, n_done + 1)
        put_int(desk.place, nodes + name, _GONE)
        _set_int_note(desk, _LEFT, lane, left - 1)
        _move_last(desk, lane, left - 1, slot)
        return 0
    other = _GONE if near == _UNKNOWN else get_int(desk.place, nodes + near)
    if other == _GONE:
        _ask(desk, lane, slot, name)
        _set_note(desk, _ASKED_RAP, lane, get(desk.rap, at))
        _set_note(desk, _ASKED_PHI, lane, get(desk.phi, at))
        _set_note(desk, _ASKED_WEIGHT, lane, get(desk.weight, at))
        put(desk.rap, at, _AWAY)
        return 0
    slot, other = min(slot, other), max(slot, other)
    one, two = get_int(desk.name, N_LANES * slot + lane), get_int(desk.name, N_LANES * other + lane)
    node = _int_note(desk, _N_NODES, lane)
    _set_int_note(desk, _N_NODES, lane, node + 1)
    put_int(desk.links, 2 * (nodes + node), one)
    put_int(desk.links, 2 * (nodes + node) + 1, two)
    for component in range(4):
        total = get(desk.nodes, 4 * (nodes + one) + component) + get(desk.nodes, 4 * (nodes + two) + component)
        put(desk.nodes, 4 * (nodes + node) + component, total)
        _set_note(desk, _SUM + component, lane, total)
    put_int(desk.place, nodes + one, _GONE)
    put_int(desk.place, nodes + two, _GONE)
    put_int(desk.place, nodes + node, slot)
    put_int(desk.name, N_LANES * slot + lane, node)
    put(desk.rap, N_LANES * slot + lane, _AWAY)
    _set_int_note(desk, _LEFT, lane, left - 1)
    _move_last(desk, lane, left - 1, other)
    _ask(desk, lane, slot, node)
    _set_int_note(desk, _MERGED, lane, 1)
    return 1


@inlined
def _ask(desk: Any, lane: int, slot: int, name: int) -> None:
    """Ask for the row of a slot, which until then is nobody's neighbour and has no merit."""
    put(desk.merit, N_LANES * slot + lane, BEYOND)
    _set_int_note(desk, _ASKED_SLOT, lane, slot)
    _set_int_note(desk, _ASKED_NAME, lane, name)


@inlined
def _move_last(desk: Any, lane: int, last: int, to: int) -> None:
    """The pseudojet of the last slot takes another, and leaves its own empty."""
    here, there = N_LANES * last + lane, N_LANES * to + lane
    if last != to:
        name = get_int(desk.name, here)
        put_int(desk.name, there, name)
        put_int(desk.place, 2 * desk.most * lane + name, to)
        put_int(desk.near, there, get_int(desk.near, here))
        put(desk.rap, there, get(desk.rap, here))
        put(desk.phi, there, get(desk.phi, here))
        put(desk.weight, there, get(desk.weight, here))
        put(desk.distance, there, get(desk.distance, here))
        put(desk.merit, there, get(desk.merit, here))
    _empty(desk, lane, last)


@inlined
def _empty(desk: Any, lane: int, slot: int) -> None:
    at = N_LANES * slot + lane
    put(desk.rap, at, _AWAY)
    put(desk.phi, at, 0.0)
    put(desk.distance, at, -1.0)
    put(desk.merit, at, BEYOND)


@inlined
def set_out(desk: Any, lane: int, slot: int, px: float, py: float, pz: float, e: float, rap: float, phi: float) -> None:
    """Put a particle of a lane on the desk."""
    node = 2 * desk.most * lane + slot
    put(desk.nodes, 4 * node, px)
    put(desk.nodes, 4 * node + 1, py)
    put(desk.nodes, 4 * node + 2, pz)
    put(desk.nodes, 4 * node + 3, e)
    put_int(desk.place, node, slot)
    at = N_LANES * slot + lane
    put_int(desk.name, at, slot)
    put(desk.rap, at, rap)
    put(desk.phi, at, phi)


@inlined
def close_lane(desk: Any, lane: int, n: int, n_most: int) -> None:
    """Say how many particles a lane has."""
    put_int(desk.notes, N_LANES * _N + lane, n)
    for slot in range(n, n_most):
        _empty(desk, lane, slot)


@inlined
def _find_neighbours(desk: Any, n_most: int, limit: float) -> None:
    """The nearest neighbour of each particle or, where it is not certain, a distance below which there is none."""
    for sector in range(_SECTORS):
        put_int_row(desk.sectors, sector, spread(0))
    n_least = n_most
    for lane in range(N_LANES):
        n = _int_note(desk, _N, lane)
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
    for lane in range(N_LANES):
        n = _int_note(desk, _N, lane)
        if n > 0:
            _sort_by_azimuth(desk, lane, n)
    _compare_in_order(desk, n_most, min(_WINDOW, n_least - 1), limit)
    for lane in range(N_LANES):
        for index in range(_int_note(desk, _N, lane)):
            here = N_LANES * (index + _PAD) + lane
            there = N_LANES * get_int(desk.sorted_slot, here) + lane
            put(desk.distance, there, get(desk.found, here))
            put_int(desk.near, there, get_int(desk.found_near, here))


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
    """Compare each particle with `window` before and after it in azimuth; all others are farther than the next ones."""
    for index in range(_PAD, _PAD + n_most):
        rap, phi = row(desk.sorted_rap, index), row(desk.sorted_phi, index)
        nearest, near = spread(BEYOND), spread(_UNKNOWN)
        for step in range(1, window + 1):
            for side in (index - step, index + step):
                this = separations(rap, phi, row(desk.sorted_rap, side), row(desk.sorted_phi, side))
                near = choose(this < nearest, int_row(desk.sorted_slot, side), near)
                nearest = least(this, nearest)
        after = row(desk.sorted_edge, index + window + 1) - phi
        before = phi - (row(desk.sorted_edge, index - window - 1) + 2 * math.pi / _SECTORS)
        beyond = least(after, before) - 1e-9  # rounding of edges and of azimuths that go around
        bound = choose(beyond > 0.0, beyond * beyond, 0.0)
        near = choose(nearest <= bound, near, _UNKNOWN)
        near = choose((nearest >= limit) & (bound >= limit), _BEAM, near)
        put_int_row(desk.found_near, index, near)
        put_row(desk.found, index, least(least(nearest, bound), limit))


@inlined
def _note_axes(desk: Any, lane: int, left: int, axes: int) -> None:
    """Rapidity, azimuth and name of the pseudojets of a lane, the last `left`."""
    for slot in range(left):
        at, there = N_LANES * slot + lane, N_LANES * 3 * (left * (left - 1) // 2 + slot) + lane
        put(axes, there, get(desk.rap, at))
        put(axes, there + N_LANES, get(desk.phi, at))
        put_int(axes, there + 2 * N_LANES, get_int(desk.name, at))
