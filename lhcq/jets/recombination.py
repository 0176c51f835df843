"""Sequential recombination of several events at once.

FastJet's algorithms, not its code: the E-scheme with the generalised-kt distances, by nearest neighbours in rapidity
and azimuth (hep-ph/0512210, arXiv:0802.1189). Events of about equal size are clustered in lockstep, each in a lane of
its own: eight with AVX-512, else four. A table of pseudojets has a row a slot and a column a lane:

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
      from now on. On the way the smallest merit of each lane is found for the next turn. Of both the pass notes in
      which block of four slots they are, and the turn looks which of the four it is: to compare is what a pass spends
      most on, and a block needs one comparison where its slots would need four.

No neighbour has to be known until its turn comes, and of most it never does: nine of ten particles are taken by
somebody else before (`neighbours` says what is known at the start). The same row that looks for a neighbour serves
the new pseudojet, and no lane waits for another's kind of turn.

Every distance is the same expression of the same doubles whenever it is taken, so the smallest is what the smallest
of all pairs would be, and the order of merging is that of FastJet where no two distances are equal. Where two are
and one of them was taken, the lane is `tied`: `lhcq.jets.ties` does it again.
"""

import math
from typing import Any

from lhcq.jets.desk import (
    ASKED_NAME,
    ASKED_PHI,
    ASKED_RAP,
    ASKED_SLOT,
    ASKED_WEIGHT,
    BLOCK,
    CHOSEN,
    CHOSEN_NAME,
    CHOSEN_NEAR,
    EQUAL,
    GONE,
    LEFT,
    MERGED,
    N_DONE,
    N_NODES,
    N_PARTICLES,
    NEAREST,
    NEAREST_AT,
    NEAREST_TIED,
    SMALLEST,
    SMALLEST_AT,
    TAKEN,
    TAKEN_BY_BEAM,
    TIED,
    links_of,
    momentum_of,
    slot_of,
    spare_slot,
)
from lhcq.jets.directions import directions_of, separations
from lhcq.jets.lanes import (
    N_LANES,
    Vector,
    add_fours,
    any_of,
    apart,
    choose,
    get,
    get_int,
    higher,
    inlined,
    int_row,
    least,
    look_up_four,
    lower,
    numbers,
    put,
    put_int,
    put_int_row,
    put_row,
    row,
    spread,
)
from lhcq.jets.neighbours import BEAM, BEYOND, UNKNOWN

# The power of pt in the weight of a pseudojet, as `p` of generalised kt, doubled.
ANTIKT, CAMBRIDGE, KT = -2, 0, 2
# kt's weights, but the sum of two has the direction of the harder one, and their pt added up (arXiv:1401.2158). Sums
# have no momentum of their own then: only their directions and weights mean something.
WTA_KT = 3

EVERYWHERE = 1e6  # R^2 of a clustering that has no beam: FastJet's `max_allowable_R`, squared
_AWAY = 1e200  # rapidity of an empty slot: R^2 to it is infinite
N_AXES = 4


@inlined
def weights_of(pt2: Vector, power: int) -> Any:
    """pt^2p of a pseudojet in each lane."""
    if power == ANTIKT:
        return choose(pt2 > 1.0 / BEYOND, 1.0 / pt2, BEYOND)
    if (power == KT) | (power == WTA_KT):
        return pt2
    return spread(1.0)


@apart
def cluster(desk: Any, n_most: int, power: int, limit: float, by_libm: int, axes: int) -> None:
    """Cluster the events on the desk, whose neighbours were found; the largest has `n_most` particles.

    A pseudojet that has none within R^2 = `limit` is complete when its turn comes: its node goes to `done`. If `axes`
    is not 0, the last four, three, two and one pseudojets of each lane are noted there.
    """
    _start(desk, n_most, power)
    notes, n_slots = desk.notes, n_most
    while n_slots > 0:
        _pass(desk, n_slots, limit)
        for lane in range(desk.n_lanes):
            _choose(desk, lane, axes)
        put_int_row(notes, ASKED_SLOT, spread(spare_slot(desk)))
        put_row(notes, ASKED_RAP, spread(-_AWAY))
        put_row(notes, ASKED_WEIGHT, spread(math.inf))
        put_int_row(notes, MERGED, spread(0))
        n_slots = 0
        for lane in range(desk.n_lanes):  # apart, so that all lanes wait for memory at once
            n_slots = higher(n_slots, _act(desk, lane, power))
        if power == WTA_KT:  # the turns knew the directions
            continue
        px, py, pz, e = look_up_four(desk.sums, numbers())
        pt2, rap, phi = directions_of(px, py, pz, e, by_libm, desk.scratch)
        merged = int_row(notes, MERGED) != 0
        put_row(notes, ASKED_RAP, choose(merged, rap, row(notes, ASKED_RAP)))
        put_row(notes, ASKED_PHI, choose(merged, phi, row(notes, ASKED_PHI)))
        put_row(notes, ASKED_WEIGHT, choose(merged, weights_of(pt2, power), row(notes, ASKED_WEIGHT)))


@inlined
def _start(desk: Any, n_most: int, power: int) -> None:
    """Every particle in a slot of its own, and nobody has asked for a row."""
    notes, n_particles = desk.notes, int_row(desk.notes, N_PARTICLES)
    for note in range(N_PARTICLES):
        put_int_row(notes, note, spread(0))
    put_int_row(notes, TAKEN_BY_BEAM, spread(0))
    for component in range(4):  # a lane that is at its end sums nothing; an ordinary momentum costs least
        put_row(desk.sums, component, spread(2.0))
    put_int_row(notes, ASKED_SLOT, spread(spare_slot(desk)))
    put_row(notes, ASKED_RAP, spread(-_AWAY))
    put_row(notes, ASKED_WEIGHT, spread(math.inf))
    put_int_row(notes, N_DONE, spread(0))
    put_int_row(notes, TIED, spread(0))
    put_row(notes, TAKEN, spread(-1.0))
    put_int_row(notes, LEFT, n_particles)
    put_int_row(notes, N_NODES, n_particles)
    for slot in range(n_most + BLOCK - 1):
        filled = n_particles > slot
        distance, weight = row(desk.particle_distance, slot), weights_of(row(desk.particle_pt2, slot), power)
        put_row(desk.rap, slot, choose(filled, row(desk.particle_rap, slot), _AWAY))
        put_row(desk.phi, slot, row(desk.particle_phi, slot))
        put_row(desk.distance, slot, choose(filled, distance, -1.0))
        put_row(desk.merit, slot, choose(filled, distance * weight, math.inf))
        put_row(desk.weight, slot, weight)
        put_int_row(desk.near, slot, int_row(desk.particle_near, slot))
        put_int_row(desk.name, slot, spread(slot))
    for lane in range(desk.n_lanes):
        for slot in range(get_int(notes, N_LANES * N_PARTICLES + lane)):
            put_int(slot_of(desk, lane, slot), 0, slot)
        put_int(desk.name, N_LANES * spare_slot(desk) + lane, 0)


@inlined
def _pass(desk: Any, n_slots: int, limit: float) -> None:
    """The smallest distance of each lane's row, the smallest merit of each lane, and in which blocks they are.

    The row itself is left in `to_asked`.
    """
    notes = desk.notes
    rap, phi = row(notes, ASKED_RAP), row(notes, ASKED_PHI)
    # A sum may be as near to somebody as the neighbour it has. Who asks again cannot, but for its own neighbour.
    nudge = choose(int_row(notes, MERGED) != 0, 1.0 - 2.0**-52, 1.0)
    nearest, smallest, at = spread(BEYOND), spread(math.inf), spread(0)
    nearest_at, smallest_at, latest_at = spread(0), spread(0), spread(0)
    for block in range((n_slots + BLOCK - 1) // BLOCK):
        first = BLOCK * block
        this = separations(rap, phi, row(desk.rap, first), row(desk.phi, first))
        put_row(desk.to_asked, first, this)
        closer = this * nudge < row(desk.distance, first)
        near, merit = this, row(desk.merit, first)
        for slot in (first + 1, first + 2, first + 3):
            this = separations(rap, phi, row(desk.rap, slot), row(desk.phi, slot))
            put_row(desk.to_asked, slot, this)
            closer = closer | (this * nudge < row(desk.distance, slot))
            near, merit = least(this, near), least(row(desk.merit, slot), merit)
        if any_of(closer):  # of one event in a row or two
            _come_closer(desk, first)
            merit = least(row(desk.merit, first), row(desk.merit, first + 1))
            merit = least(least(row(desk.merit, first + 2), row(desk.merit, first + 3)), merit)
        latest_at = choose(near <= nearest, at, latest_at)
        nearest_at, nearest = choose(near < nearest, at, nearest_at), least(near, nearest)
        smallest_at, smallest = choose(merit < smallest, at, smallest_at), least(merit, smallest)
        at = at + BLOCK
    put_int_row(notes, NEAREST_AT, choose(nearest < limit, nearest_at, BEAM))
    put_int_row(notes, NEAREST_TIED, choose(latest_at != nearest_at, EQUAL, 0))
    put_row(notes, NEAREST, least(nearest, limit))
    put_row(notes, SMALLEST, smallest)
    put_int_row(notes, SMALLEST_AT, smallest_at)


@inlined
def _come_closer(desk: Any, first: int) -> None:
    """Whoever asked is the nearest neighbour of those in a block to which it is nearer than what they know."""
    name = int_row(desk.notes, ASKED_NAME)
    for slot in range(first, first + BLOCK):
        this, distance, near = row(desk.to_asked, slot), row(desk.distance, slot), int_row(desk.near, slot)
        closer, equal = this < distance, (this == distance) & (near != name)
        put_row(desk.distance, slot, least(this, distance))
        put_row(desk.merit, slot, choose(closer, this * row(desk.weight, slot), row(desk.merit, slot)))
        # where there is none or the beam, near is negative, and stays
        put_int_row(desk.near, slot, choose(closer, name, choose(equal, near | EQUAL, near)))


@inlined
def _first_of(values: int, at: int, value: int) -> int:
    """Which slot of a block that begins at `at` has a value first.

    By bits, which cost less than doubles to compare: there is no -0.0, and nothing that is not a number.
    """
    place = 2 if get_int(values, at + 2 * N_LANES) == value else 3
    place = 1 if get_int(values, at + N_LANES) == value else place
    return 0 if get_int(values, at) == value else place


@inlined
def _last_of(values: int, at: int, value: int) -> int:
    """Which slot of a block has a value last."""
    place = 1 if get_int(values, at + N_LANES) == value else 0
    place = 2 if get_int(values, at + 2 * N_LANES) == value else place
    return 3 if get_int(values, at + 3 * N_LANES) == value else place


@inlined
def _choose(desk: Any, lane: int, axes: int) -> None:
    """Put down the row that a lane has asked for, and see whose turn it is."""
    mine = desk.notes + 8 * lane
    left = get_int(mine, N_LANES * LEFT)
    if left == 0:
        return
    slot, smallest = get_int(mine, N_LANES * SMALLEST_AT), get(mine, N_LANES * SMALLEST)
    slot += _first_of(desk.merit, N_LANES * slot + lane, get_int(mine, N_LANES * SMALLEST))
    near, distance = get_int(mine, N_LANES * NEAREST_AT), get(mine, N_LANES * NEAREST)
    block, bits = higher(near, 0), get_int(mine, N_LANES * NEAREST)
    place = _first_of(desk.to_asked, N_LANES * block + lane, bits)
    alone = place == _last_of(desk.to_asked, N_LANES * block + lane, bits)
    name = get_int(desk.name, N_LANES * (block + place) + lane)
    name |= get_int(mine, N_LANES * NEAREST_TIED) | (0 if alone else EQUAL)
    asked, weight = get_int(mine, N_LANES * ASKED_SLOT), get(mine, N_LANES * ASKED_WEIGHT)
    at, merit = N_LANES * asked + lane, distance * weight
    put(desk.rap, at, get(mine, N_LANES * ASKED_RAP))
    put(desk.phi, at, get(mine, N_LANES * ASKED_PHI))
    put(desk.distance, at, distance)
    put(desk.merit, at, merit)
    put(desk.weight, at, weight)
    put_int(desk.near, at, name if near >= 0 else near)
    slot = asked if (merit < smallest) | ((merit == smallest) & (asked < slot)) else slot
    if axes != 0 and left <= N_AXES:
        note_axes(desk, lane, left, axes)
    put_int(mine, N_LANES * CHOSEN, slot)
    put_int(mine, N_LANES * CHOSEN_NAME, get_int(desk.name, N_LANES * slot + lane))
    put_int(mine, N_LANES * CHOSEN_NEAR, get_int(desk.near, N_LANES * slot + lane))


@inlined
def _act(desk: Any, lane: int, power: int) -> Any:
    """The turn of the chosen pseudojet of a lane; how many are left."""
    mine = desk.notes + 8 * lane
    left = get_int(mine, N_LANES * LEFT)
    if left == 0:
        return 0
    slot, name = get_int(mine, N_LANES * CHOSEN), get_int(mine, N_LANES * CHOSEN_NAME)
    near, at = get_int(mine, N_LANES * CHOSEN_NEAR), N_LANES * slot + lane
    if near == BEAM:
        _note_ties(desk, lane, get(desk.merit, at), 1)
        n_done = get_int(mine, N_LANES * N_DONE)
        put_int(desk.done, desk.most * lane + n_done, name)
        put_int(mine, N_LANES * N_DONE, n_done + 1)
        put_int(slot_of(desk, lane, name), 0, GONE)
        put_int(mine, N_LANES * LEFT, left - 1)
        _move_last(desk, lane, left - 1, slot)
        return left - 1
    other, equal = GONE, near & EQUAL
    if near != UNKNOWN:
        near -= equal
        other = get_int(slot_of(desk, lane, near), 0)
    if other == GONE:
        put(mine, N_LANES * ASKED_RAP, get(desk.rap, at))
        put(mine, N_LANES * ASKED_PHI, get(desk.phi, at))
        put(mine, N_LANES * ASKED_WEIGHT, get(desk.weight, at))
        _ask(desk, lane, slot, name)
        return left
    merit, its_merit = get(desk.merit, at), get(desk.merit, N_LANES * other + lane)
    _note_ties(desk, lane, merit, 0)
    if (equal != 0) | ((its_merit == merit) & (get_int(desk.near, N_LANES * other + lane) != name)):
        put_int(mine, N_LANES * TIED, 1)
    node = get_int(mine, N_LANES * N_NODES)
    if power == WTA_KT:
        rap, phi, weight = winner_of(desk, lane, slot, other)
        put(mine, N_LANES * ASKED_RAP, rap)
        put(mine, N_LANES * ASKED_PHI, phi)
        put(mine, N_LANES * ASKED_WEIGHT, weight)
    else:
        one, partner = momentum_of(desk, lane, name), momentum_of(desk, lane, near)
        add_fours(one, partner, momentum_of(desk, lane, node), desk.sums + 32 * lane)
    parents = links_of(desk, lane, node)
    put_int(parents, 0, name if slot < other else near)
    put_int(parents, 1, near if slot < other else name)
    put_int(slot_of(desk, lane, name), 0, GONE)
    put_int(slot_of(desk, lane, near), 0, GONE)
    slot, other = lower(slot, other), higher(slot, other)
    put_int(slot_of(desk, lane, node), 0, slot)
    put_int(desk.name, N_LANES * slot + lane, node)
    put_int(mine, N_LANES * N_NODES, node + 1)
    put_int(mine, N_LANES * LEFT, left - 1)
    put_int(mine, N_LANES * MERGED, 1)
    _ask(desk, lane, slot, node)
    _move_last(desk, lane, left - 1, other)
    return left - 1


@inlined
def winner_of(desk: Any, lane: int, slot: int, other: int) -> Any:
    """Rapidity, azimuth and weight of the sum of two slots in which the harder takes all; of equal ones the lower."""
    low, high = N_LANES * lower(slot, other) + lane, N_LANES * higher(slot, other) + lane
    weight, its_weight = get(desk.weight, low), get(desk.weight, high)
    harder = high if its_weight > weight else low
    pt = math.sqrt(weight) + math.sqrt(its_weight)
    return get(desk.rap, harder), get(desk.phi, harder), pt * pt


@inlined
def _note_ties(desk: Any, lane: int, merit: float, by_beam: int) -> None:
    """Equal merits one after the other tie, but for those of two jets, which do not touch each other."""
    mine = desk.notes + 8 * lane
    if (merit == get(mine, N_LANES * TAKEN)) & (by_beam + get_int(mine, N_LANES * TAKEN_BY_BEAM) < 2):
        put_int(mine, N_LANES * TIED, 1)
    put(mine, N_LANES * TAKEN, merit)
    put_int(mine, N_LANES * TAKEN_BY_BEAM, by_beam)


@inlined
def tied(desk: Any, lane: int) -> Any:
    """Whether equal distances decided in the clustering of a lane."""
    return get_int(desk.notes, N_LANES * TIED + lane) != 0


@inlined
def _ask(desk: Any, lane: int, slot: int, name: int) -> None:
    """Ask for the row of a slot, which until then is far from all and has no merit."""
    put(desk.rap, N_LANES * slot + lane, _AWAY)
    put(desk.merit, N_LANES * slot + lane, math.inf)
    put_int(desk.notes, N_LANES * ASKED_SLOT + lane, slot)
    put_int(desk.notes, N_LANES * ASKED_NAME + lane, name)


@inlined
def _move_last(desk: Any, lane: int, last: int, to: int) -> None:
    """The pseudojet of the last slot takes another, and leaves its own empty."""
    here, there = N_LANES * last + lane, N_LANES * to + lane
    if last != to:
        name = get_int(desk.name, here)
        put_int(desk.name, there, name)
        put_int(slot_of(desk, lane, name), 0, to)
        put_int(desk.near, there, get_int(desk.near, here))
        put(desk.rap, there, get(desk.rap, here))
        put(desk.phi, there, get(desk.phi, here))
        put(desk.distance, there, get(desk.distance, here))
        put(desk.merit, there, get(desk.merit, here))
        put(desk.weight, there, get(desk.weight, here))
    put(desk.rap, here, _AWAY)
    put(desk.distance, here, -1.0)
    put(desk.merit, here, math.inf)


@inlined
def note_axes(desk: Any, lane: int, left: int, axes: int) -> None:
    """Rapidity, azimuth and name of the pseudojets of a lane, the last `left`."""
    for slot in range(left):
        at, there = N_LANES * slot + lane, N_LANES * 3 * (left * (left - 1) // 2 + slot) + lane
        put(axes, there, get(desk.rap, at))
        put(axes, there + N_LANES, get(desk.phi, at))
        put_int(axes, there + 2 * N_LANES, get_int(desk.name, at))
