"""The compiled loops of clustering and substructure: what calls them sees arrays, what they do is in other files.

`recombination` is the algorithm, an event in each lane, on a `desk`, from the first `neighbours` on; `correlations`
the sums over triples of a jet's particles; `directions` rapidity and azimuth, for which `exact` has the logarithm and
the arctangent that FastJet's bits need; `lanes` the vectors that all are written in.
FastJet and fjcontrib are the judges: tests and benchmarks hold every jet to FastJet's bits and every measure to
fjcontrib's (benchmarks/results/clustering.json).

The order of every sum is written out and nothing is compiled with fastmath, so that the bits do not depend on the
width of the CPU's vectors.
"""

import math
from typing import Any

from lhcq.jets.axes import ONE_PASS, WINNER, minimise
from lhcq.jets.compiling import Floats, Integers, compiled
from lhcq.jets.correlations import correlate
from lhcq.jets.desk import N_PARTICLES, count_of, lay_out, links_of, momentum_of, set_count
from lhcq.jets.directions import separations, set_directions
from lhcq.jets.lanes import (
    N_LANES,
    address_of,
    apart,
    choose,
    get,
    get_int,
    higher,
    inlined,
    int_row,
    least,
    lower,
    put,
    put_int,
    put_row,
    root,
    row,
    spread,
)
from lhcq.jets.neighbours import BEYOND, find_neighbours
from lhcq.jets.order import order_jets, pt2_of
from lhcq.jets.recombination import CAMBRIDGE, EVERYWHERE, KT, N_AXES, WTA_KT, cluster, tied
from lhcq.jets.ties import resolve_ties

# The columns of the result of `measure_jets`, in this order.
MEASURES = ("tau1", "tau2", "tau3", "tau4", "m_sd", "z_g", "width", "z1", "z2", "c2", "d2")
_TAU, _M_SD, _Z_G, _WIDTH, _Z1, _Z2, _C2, _D2 = 0, 4, 5, 6, 7, 8, 9, 10

# Particles that are copied into one lane before the next: few enough that the lines they share stay in the cache.
_COPIED = 16
AXES_ROOM = N_LANES * 3 * (1 + 2 + 3 + 4)


@compiled
def are_orderly(px: Floats, py: Floats, pz: Floats, e: Floats, largest: float) -> bool:
    """Whether all momenta are numbers below `largest`."""
    orderly = True
    for k in range(len(px)):
        orderly &= (abs(px[k]) < largest) & (abs(py[k]) < largest)
        orderly &= (abs(pz[k]) < largest) & (abs(e[k]) < largest)
    return orderly


@inlined
def _pt_of(desk: Any, lane: int, node: int) -> Any:
    return math.sqrt(pt2_of(desk, lane, node))


@compiled
def find_jets(
    px: Floats,
    py: Floats,
    pz: Floats,
    e: Floats,
    offsets: Integers,
    order: Integers,
    power: int,
    radius: float,
    pt_min: float,
    by_libm: int,
    room: Floats,
    n_jets: Integers,
    momenta: Floats,
    starts: Integers,
    members: Integers,
    pt_lead: Floats,
    ties: Integers,
) -> None:
    """Inclusive jets with pt of at least `pt_min` of the events `offsets` (n_events + 1,), by falling pt in each.

    `order` (n_events,) are the events by their number of particles, so that those of about one size are clustered
    together; `room` are at least `room_for(most)` doubles. `momenta` (4, n_particles), `starts` (n_particles + 1,),
    `members` and `pt_lead` (n_particles,) are filled as far as there are jets, `n_jets` (n_events,) of them an event:
    jet k consists of `members[starts[k]:starts[k + 1]]`, the hardest of which has `pt_lead[k]`. `ties` (n_events,)
    becomes 1 where equal distances decided and 0 elsewhere.
    """
    most = 1
    for event in range(len(offsets) - 1):
        most = higher(most, offsets[event + 1] - offsets[event])
    desk = lay_out(address_of(room), most, lower(N_LANES, higher(1, len(order))))
    columns = address_of(px), address_of(py), address_of(pz), address_of(e)
    for begin in range(0, len(order), N_LANES):
        n_lanes = lower(N_LANES, len(order) - begin)
        n_most = 0
        for lane in range(N_LANES):
            n = 0
            if lane < n_lanes:
                event = order[begin + lane]
                n = offsets[event + 1] - offsets[event]
            n_most = higher(n_most, n)
            set_count(desk, lane, n)
        if n_most == 0:  # the desk has nothing to say of them
            for lane in range(n_lanes):
                n_jets[order[begin + lane]], ties[order[begin + lane]] = 0, 0
            continue
        for slot in range(0, n_most, _COPIED):
            for lane in range(n_lanes):
                first = offsets[order[begin + lane]]
                for k in range(slot, lower(slot + _COPIED, offsets[order[begin + lane] + 1] - first)):
                    _put_momentum(momentum_of(desk, lane, k), columns, first + k)
        set_directions(desk, n_most, by_libm)
        find_neighbours(desk, n_most, radius * radius)
        cluster(desk, n_most, power, radius * radius, by_libm, 0)
        resolve_ties(desk, n_lanes, power, radius * radius, by_libm, 0)
        for lane in range(n_lanes):
            event = order[begin + lane]
            ties[event] = tied(desk, lane)
            n_kept = order_jets(desk, lane, desk.done + 8 * desk.most * lane, power, radius, pt_min)
            _list_jets(desk, lane, offsets[event], n_kept, momenta, starts, members, pt_lead)
            n_jets[event] = n_kept
    _close_ranks(offsets, n_jets, momenta, starts, members, pt_lead)


@inlined
def _list_jets(
    desk: Any,
    lane: int,
    first: int,
    n_kept: int,
    momenta: Floats,
    starts: Integers,
    members: Integers,
    pt_lead: Floats,
) -> None:
    """Write the jets of a lane, ordered, to where its particles begin.

    `starts` receives their numbers of particles, from `first + 1` on.
    """
    n, done = count_of(desk, lane), desk.done + 8 * desk.most * lane
    links, at = links_of(desk, lane, 0), first
    for k in range(n_kept):
        node = get_int(done, k)
        momentum = momentum_of(desk, lane, node)
        for component in range(4):
            momenta[component, first + k] = get(momentum, component)
        end = _list_leaves(node, n, first, links, desk.sorted_slot, members, at)
        hardest = 0.0
        for member in range(at, end):
            hardest = higher(hardest, get(desk.particle_pt2, N_LANES * (members[member] - first) + lane))
        pt_lead[first + k] = math.sqrt(hardest)
        starts[first + k + 1] = end - at
        at = end


@inlined
def _list_leaves(node: int, n: int, first: int, links: int, stack: int, members: Integers, at: int) -> int:
    """Write the particles of a node of the tree into `members` from `at` on, and say where they end."""
    put_int(stack, 0, node)
    depth = 1
    while depth > 0:
        depth -= 1
        node = get_int(stack, depth)
        if node < n:
            members[at] = first + node
            at += 1
        else:
            put_int(stack, depth, get_int(links, 2 * node))
            put_int(stack, depth + 1, get_int(links, 2 * node + 1))
            depth += 2
    return at


@apart
def _close_ranks(
    offsets: Integers, n_jets: Integers, momenta: Floats, starts: Integers, members: Integers, pt_lead: Floats
) -> None:
    """Move what each event has where its particles begin to where the events before it end."""
    n_listed, at = 0, 0
    for event in range(len(n_jets)):
        first, taken = offsets[event], offsets[event]
        for k in range(n_jets[event]):
            n = starts[first + k + 1]
            for component in range(4):
                momenta[component, n_listed] = momenta[component, first + k]
            pt_lead[n_listed] = pt_lead[first + k]
            for member in range(n):
                members[at + member] = members[taken + member]
            at, taken, n_listed = at + n, taken + n, n_listed + 1
            starts[n_listed] = at
    starts[0] = 0


@compiled
def measure_jets(
    px: Floats,
    py: Floats,
    pz: Floats,
    e: Floats,
    starts: Integers,
    members: Integers,
    chosen: Integers,
    order: Integers,
    jet_pt: Floats,
    z_cut: float,
    kind: int,
    by_libm: int,
    room: Floats,
    axes_room: Floats,
    matrix_room: Floats,
    out: Floats,
    ties: Integers,
) -> None:
    """Fill `out` (n_chosen, 11) with the `MEASURES` of the jets `chosen` (n_chosen,) of a list.

    `px` to `e` (n_particles,) are momenta in GeV; the constituents of jet k of the list are the particles
    `members[starts[k]:starts[k + 1]]`; `jet_pt` (n_chosen,) are the pt of the chosen ones in GeV. `order` (n_chosen,)
    has the places in `chosen` by the number of constituents; `kind` is that of the axes (`axes.KINDS`); the rooms are
    at least `room_for(most)`, `AXES_ROOM` and `room_to_correlate(most)` doubles. `ties` (n_chosen,), zeros, becomes 1
    where equal distances decided in one of the reclusterings.
    """
    most = 1
    for jet in chosen:
        most = higher(most, starts[jet + 1] - starts[jet])
    desk = lay_out(address_of(room), most, lower(N_LANES, higher(1, len(order))))
    columns = address_of(px), address_of(py), address_of(pz), address_of(e)
    axes, space = address_of(axes_room), address_of(matrix_room)
    for begin in range(0, len(order), N_LANES):
        n_lanes, n_most = lower(N_LANES, len(order) - begin), 0
        for lane in range(N_LANES):
            n = 0
            if lane < n_lanes:
                jet = chosen[order[begin + lane]]
                n = starts[jet + 1] - starts[jet]
                for k in range(n):
                    particle = get_int(address_of(members), starts[jet] + k)
                    _put_momentum(momentum_of(desk, lane, k), columns, particle)
            n_most = higher(n_most, n)
            set_count(desk, lane, n)
        set_directions(desk, n_most, by_libm)
        find_neighbours(desk, n_most, EVERYWHERE)
        if kind == WINNER:
            _recluster(desk, n_most, n_lanes, WTA_KT, by_libm, axes, order[begin:], ties)
            _note_pt(desk, n_most)
            _put_taus(desk, n_most, n_lanes, axes, order[begin:], out)
        _recluster(desk, n_most, n_lanes, KT, by_libm, axes, order[begin:], ties)
        _note_pt(desk, n_most)
        put_row(desk.scratch, 0, _sum_to_axes(desk, n_most, axes, 1))
        for lane in range(n_lanes):  # the one kt axis is the jet's own
            out[order[begin + lane], _WIDTH] = get(desk.scratch, lane)
            if kind == ONE_PASS:
                minimise(desk, lane, axes)
        if kind != WINNER:
            _put_taus(desk, n_most, n_lanes, axes, order[begin:], out)
        for lane in range(n_lanes):
            _compare_subjets(desk, lane, axes, jet_pt[order[begin + lane]], out[order[begin + lane]])
        _recluster(desk, n_most, n_lanes, CAMBRIDGE, by_libm, axes, order[begin:], ties)
        for lane in range(n_lanes):
            _soft_drop(desk, lane, get_int(axes, N_LANES * 2 + lane), z_cut, out[order[begin + lane]])
            _correlate(desk, lane, space, out[order[begin + lane]])


@apart
def _recluster(
    desk: Any, n_most: int, n_lanes: int, power: int, by_libm: int, axes: int, order: Integers, ties: Integers
) -> None:
    """Find the last subjets of all lanes, whose places are the first of `order`, and note ties."""
    cluster(desk, n_most, power, EVERYWHERE, by_libm, axes)
    resolve_ties(desk, n_lanes, power, EVERYWHERE, by_libm, axes)
    for lane in range(n_lanes):
        ties[order[lane]] |= int(tied(desk, lane))


@inlined
def _note_pt(desk: Any, n_most: int) -> None:
    """pt of all particles in the place of weights, which a clustering that is over needs no more."""
    for k in range(n_most):
        put_row(desk.weight, k, root(row(desk.particle_pt2, k)))


@apart
def _put_taus(desk: Any, n_most: int, n_lanes: int, axes: int, order: Integers, out: Floats) -> None:
    for n_axes in range(1, N_AXES + 1):
        put_row(desk.scratch, 0, _sum_to_axes(desk, n_most, axes, n_axes))
        for lane in range(n_lanes):
            out[order[lane], _TAU + n_axes - 1] = get(desk.scratch, lane)


@inlined
def _put_momentum(momentum: int, columns: tuple[int, int, int, int], particle: int) -> None:
    """Put down a particle's momentum, of columns at these addresses."""
    put(momentum, 0, get(columns[0], particle))
    put(momentum, 1, get(columns[1], particle))
    put(momentum, 2, get(columns[2], particle))
    put(momentum, 3, get(columns[3], particle))


@apart
def _correlate(desk: Any, lane: int, space: int, out: Floats) -> None:
    """C2, D2 and the width of a jet, of which `out` has the sum of pt times the distance to it."""
    e2, e3, total = correlate(desk, lane, count_of(desk, lane), space)
    out[_WIDTH] = out[_WIDTH] / total if total > 0.0 else 0.0
    out[_C2], out[_D2] = 0.0, 0.0
    if total * total * total > 0.0 and e2 * e2 * e2 > 0.0:
        out[_C2], out[_D2] = e3 / (e2 * e2), e3 / (e2 * e2 * e2)


@inlined
def _sum_to_axes(desk: Any, n_most: int, axes: int, n_axes: int) -> Any:
    """tau of all lanes about so many axes, once `_note_pt` has noted the weights of its sum."""
    n_particles = int_row(desk.notes, N_PARTICLES)
    total, first = spread(0.0), 3 * (n_axes * (n_axes - 1) // 2)
    for k in range(n_most):
        rap, phi, square = row(desk.particle_rap, k), row(desk.particle_phi, k), spread(BEYOND)
        for axis in range(first, first + 3 * n_axes, 3):
            square = least(separations(rap, phi, row(axes, axis), row(axes, axis + 1)), square)
        term = row(desk.weight, k) * root(square)
        total = total + choose(n_particles > k, term, 0.0)
    return choose(n_particles >= n_axes, total, 0.0)


@apart
def _compare_subjets(desk: Any, lane: int, axes: int, jet_pt: float, out: Floats) -> None:
    """The parts of the jet's pt that two subjets have; the first has all of it where there is but one particle."""
    out[_Z1], out[_Z2] = 0.0, 0.0
    if jet_pt == 0.0:  # the square of its pt is too small for a number
        out[_Z1] = 1.0
        return
    if count_of(desk, lane) > 1:
        one = _pt_of(desk, lane, get_int(axes, N_LANES * 5 + lane))
        other = _pt_of(desk, lane, get_int(axes, N_LANES * 8 + lane))
        out[_Z1], out[_Z2] = higher(one, other) / jet_pt, lower(one, other) / jet_pt
    if get_int(axes, N_LANES * 2 + lane) == 0:
        out[_Z1] = _pt_of(desk, lane, 0) / jet_pt


@apart
def _soft_drop(desk: Any, lane: int, node: int, z_cut: float, out: Floats) -> None:
    """Groomed mass and z of the first Cambridge/Aachen splitting with z > `z_cut`, following the harder branch."""
    links, n = links_of(desk, lane, 0), count_of(desk, lane)
    out[_Z_G] = 0.0
    while node >= n:
        one, other = get_int(links, 2 * node), get_int(links, 2 * node + 1)
        harder, softer = lower(one, other), higher(one, other)  # of equal ones FastJet follows the earlier
        if pt2_of(desk, lane, harder) < pt2_of(desk, lane, softer):
            harder, softer = softer, harder
        pt_harder, pt_softer = _pt_of(desk, lane, harder), _pt_of(desk, lane, softer)
        if pt_softer > z_cut * (pt_harder + pt_softer):
            out[_Z_G] = pt_softer / (pt_harder + pt_softer)
            break
        node = harder
    pz, e = get(momentum_of(desk, lane, node), 2), get(momentum_of(desk, lane, node), 3)
    out[_M_SD] = math.sqrt(higher(0.0, (e + pz) * (e - pz) - pt2_of(desk, lane, node)))
