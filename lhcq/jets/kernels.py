"""The compiled loops of clustering and substructure: what calls them sees arrays, what they do is in other files.

`recombination` is the algorithm, eight events at once; `correlations` the sums over triples of a jet's particles;
`exact` are the logarithm and the arctangent that FastJet's bits need; `lanes` the vectors that all are written in.
FastJet and fjcontrib are the judges: tests and benchmarks hold every jet to FastJet's bits and every measure to
fjcontrib's (benchmarks/results/clustering.json).

The order of every sum is written out and nothing is compiled with fastmath, so that the bits do not depend on the
width of the CPU's vectors.
"""

import functools
import hashlib
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from lhcq.jets.correlations import correlate
from lhcq.jets.exact import ALL_LANES, angle_of, log_of
from lhcq.jets.lanes import (
    N_LANES,
    address_of,
    choose,
    get,
    get_int,
    inlined,
    int_row,
    least,
    put,
    put_int,
    put_row,
    root,
    row,
    spread,
)
from lhcq.jets.order import order_jets, pt2_of
from lhcq.jets.recombination import (
    BEYOND,
    CAMBRIDGE,
    EVERYWHERE,
    KT,
    N_AXES,
    N_PARTICLES,
    cluster,
    lay_out,
    record_of,
    separations,
    set_count,
    set_directions,
    tied,
)
from lhcq.jets.ties import resolve_ties

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., Any])

# The columns of the result of `measure_jets`, in this order.
MEASURES = ("tau1", "tau2", "tau3", "tau4", "m_sd", "z_g", "width", "z1", "z2", "c2", "d2")
_TAU, _M_SD, _Z_G, _WIDTH, _Z1, _Z2, _C2, _D2 = 0, 4, 5, 6, 7, 8, 9, 10

_SOURCES = ("axes", "correlations", "exact", "kernels", "lanes", "order", "recombination", "ties")
_STAMP = hashlib.sha256(
    b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _SOURCES)
).digest()
# Particles that are copied into one lane before the next: few enough that the lines they share stay in the cache.
_COPIED = 16
_SLOT_BYTES = 24
_N_COMPARED = 4096
_rooms = threading.local()
AXES_ROOM = N_LANES * 3 * (1 + 2 + 3 + 4)


def compiled(function: Function) -> Function:
    """Compile at the first call, and keep the result beside this file or in the user's cache directory."""
    options = {"error_model": "numpy", "nogil": True}
    try:
        made = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither can be written: every process compiles for itself, some 10 s
        return cast("Function", numba.njit(**options)(function))
    # numba's cache knows the changes of the file that a function stands in, not of those that it is compiled from.
    made._cache._cache_file._source_stamp = _STAMP
    return cast("Function", made)


def room_of(name: str, size: int) -> Floats:
    """Scratch of at least `size` doubles that this thread keeps: fresh memory costs more than it is worth."""
    held: Floats | None = getattr(_rooms, name, None)
    if held is None or len(held) < size:
        held = np.empty(size)
        setattr(_rooms, name, held)
    return held


@functools.cache
def lanes_for_libm() -> int:
    """The lanes that leave `log` and `atan2` to libm, as a mask: none, or all if libm errs more than `exact` says."""
    rng = np.random.default_rng(1)
    y, x = rng.normal(0.0, 1.0, (2, _N_COMPARED)) * rng.exponential(1.0, (2, _N_COMPARED))
    ratio = np.exp(-rng.exponential(3.0, _N_COMPARED))
    return ALL_LANES if count_differences(y, x, ratio, room_of("functions", 3 * N_LANES)) else 0


@compiled
def count_differences(y: Floats, x: Floats, ratio: Floats, room: Floats) -> int:
    """How many of atan2(y, x) and log(ratio), (n,) each with n a multiple of eight, are not libm's."""
    n_wrong, scratch = 0, address_of(room)
    for k in range(len(x) // N_LANES):
        angles = angle_of(row(address_of(y), k), row(address_of(x), k), 0, scratch)
        logs = log_of(row(address_of(ratio), k), 0, scratch)
        put_row(scratch, 0, angles)
        put_row(scratch, 1, logs)
        for lane in range(N_LANES):
            at = N_LANES * k + lane
            n_wrong += get(scratch, lane) != math.atan2(y[at], x[at])
            n_wrong += get(scratch, N_LANES + lane) != math.log(ratio[at])
    return n_wrong


@compiled
def to_momenta(particles: int, stride: int, counts: Integers, momenta: Floats) -> None:
    """Fill `momenta` (4, n_filled) with px, py, pz, e (GeV) of events of (pt in GeV, eta, phi), massless.

    Slots of pt 0 are left out, of which `count_filled` says `counts` (n_events,); `particles` and `stride` as there.
    """
    at = 0
    for event in range(len(counts)):
        stop, slot = at + counts[event], particles + event * stride
        while at < stop:
            pt, eta, phi = get(slot, 0), get(slot, 1), get(slot, 2)
            slot += _SLOT_BYTES
            if pt != 0.0:
                momenta[0, at] = pt * math.cos(phi)
                momenta[1, at] = pt * math.sin(phi)
                momenta[2, at] = pt * math.sinh(eta)
                momenta[3, at] = pt * math.cosh(eta)
                at += 1


@compiled
def count_filled(particles: int, stride: int, n_slots: int, counts: Integers) -> None:
    """How many of the `n_slots` slots of each event have a pt that is not 0, into `counts` (n_events,).

    `particles` is the address of the first event, a slot after the other, and `stride` the bytes to the next.
    """
    for event in range(len(counts)):
        slot, filled = particles + event * stride, 0
        for k in range(n_slots):
            filled += get(slot, 3 * k) != 0.0
        counts[event] = filled


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
        most = max(most, offsets[event + 1] - offsets[event])
    desk = lay_out(address_of(room), most, min(N_LANES, max(1, len(order))))
    for begin in range(0, len(order), N_LANES):
        n_lanes = min(N_LANES, len(order) - begin)
        n_most = 0
        for lane in range(N_LANES):
            n = 0
            if lane < n_lanes:
                event = order[begin + lane]
                n = offsets[event + 1] - offsets[event]
            n_most = max(n_most, n)
            set_count(desk, lane, n)
        if n_most == 0:  # the desk has nothing to say of them
            for lane in range(n_lanes):
                n_jets[order[begin + lane]], ties[order[begin + lane]] = 0, 0
            continue
        for slot in range(0, n_most, _COPIED):
            for lane in range(n_lanes):
                first = offsets[order[begin + lane]]
                for k in range(slot, min(slot + _COPIED, offsets[order[begin + lane] + 1] - first)):
                    record = record_of(desk, lane, k)
                    put(record, 0, px[first + k])
                    put(record, 1, py[first + k])
                    put(record, 2, pz[first + k])
                    put(record, 3, e[first + k])
        set_directions(desk, n_most, by_libm)
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
    n, done = get_int(desk.notes, N_LANES * N_PARTICLES + lane), desk.done + 8 * desk.most * lane
    links, at = desk.links + 16 * 2 * desk.most * lane, first
    for k in range(n_kept):
        node = get_int(done, k)
        record = record_of(desk, lane, node)
        for component in range(4):
            momenta[component, first + k] = get(record, component)
        end = _list_leaves(node, n, first, links, desk.sector, members, at)
        hardest = 0.0
        for member in range(at, end):
            hardest = max(hardest, get(desk.particle_pt2, N_LANES * (members[member] - first) + lane))
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


@inlined
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
    by_libm: int,
    room: Floats,
    axes_room: Floats,
    matrix_room: Floats,
    out: Floats,
) -> None:
    """Fill `out` (n_chosen, 11) with the `MEASURES` of the jets `chosen` (n_chosen,) of a list.

    `px` to `e` (n_particles,) are momenta in GeV; the constituents of jet k of the list are the particles
    `members[starts[k]:starts[k + 1]]`; `jet_pt` (n_chosen,) are the pt of the chosen ones in GeV. `order` (n_chosen,)
    has the places in `chosen` by the number of constituents; the rooms are at least `room_for(most)`, `AXES_ROOM` and
    `room_to_correlate(most)` doubles.
    """
    most = 1
    for jet in chosen:
        most = max(most, starts[jet + 1] - starts[jet])
    desk = lay_out(address_of(room), most, min(N_LANES, max(1, len(order))))
    axes, space = address_of(axes_room), address_of(matrix_room)
    for begin in range(0, len(order), N_LANES):
        n_lanes, n_most = min(N_LANES, len(order) - begin), 0
        for lane in range(N_LANES):
            n = 0
            if lane < n_lanes:
                jet = chosen[order[begin + lane]]
                n = starts[jet + 1] - starts[jet]
                _set_out(desk, lane, members[starts[jet] : starts[jet + 1]], px, py, pz, e)
            n_most = max(n_most, n)
            set_count(desk, lane, n)
        set_directions(desk, n_most, by_libm)
        for power in range(KT, CAMBRIDGE - 1, CAMBRIDGE - KT):
            cluster(desk, n_most, power, EVERYWHERE, by_libm, axes)
            resolve_ties(desk, n_lanes, power, EVERYWHERE, by_libm, axes)
            if power == KT:
                _sum_to_axes(desk, n_most, axes)
            for lane in range(n_lanes):
                index = order[begin + lane]
                if power == KT:
                    for n_axes in range(1, N_AXES + 1):
                        out[index, _TAU + n_axes - 1] = get(desk.found, N_LANES * (n_axes - 1) + lane)
                    _compare_subjets(desk, lane, axes, jet_pt[index], out[index])
                else:
                    _soft_drop(desk, lane, get_int(axes, N_LANES * 2 + lane), z_cut, out[index])
        for lane in range(n_lanes):
            _correlate(desk, lane, space, out[order[begin + lane]])


@inlined
def _set_out(
    desk: Any, lane: int, particles: Integers, px: Floats, py: Floats, pz: Floats, e: Floats
) -> None:
    for k in range(len(particles)):
        record, particle = record_of(desk, lane, k), particles[k]
        put(record, 0, px[particle])
        put(record, 1, py[particle])
        put(record, 2, pz[particle])
        put(record, 3, e[particle])


@inlined
def _correlate(desk: Any, lane: int, space: int, out: Floats) -> None:
    """C2, D2 and the width of a jet."""
    e2, e3, total = correlate(desk, lane, get_int(desk.notes, N_LANES * N_PARTICLES + lane), space)
    out[_WIDTH] = out[_TAU] / total if total > 0.0 else 0.0
    out[_C2], out[_D2] = 0.0, 0.0
    if total * total * total > 0.0 and e2 * e2 * e2 > 0.0:
        out[_C2], out[_D2] = e3 / (e2 * e2), e3 / (e2 * e2 * e2)


@inlined
def _sum_to_axes(desk: Any, n_most: int, axes: int) -> None:
    """tau1 to tau4 of all lanes into the first four rows of `found`."""
    n_particles = int_row(desk.notes, N_PARTICLES)
    for n_axes in range(1, N_AXES + 1):
        total, first = spread(0.0), 3 * (n_axes * (n_axes - 1) // 2)
        for k in range(n_most):
            rap, phi, square = row(desk.particle_rap, k), row(desk.particle_phi, k), spread(BEYOND)
            for axis in range(first, first + 3 * n_axes, 3):
                square = least(separations(rap, phi, row(axes, axis), row(axes, axis + 1)), square)
            term = root(row(desk.particle_pt2, k)) * root(square)
            total = total + choose(n_particles > k, term, 0.0)
        put_row(desk.found, n_axes - 1, choose(n_particles >= n_axes, total, 0.0))


@inlined
def _compare_subjets(desk: Any, lane: int, axes: int, jet_pt: float, out: Floats) -> None:
    """The parts of the jet's pt that two subjets have; the first has all of it where there is but one particle."""
    out[_Z1], out[_Z2] = 0.0, 0.0
    if jet_pt == 0.0:  # the square of its pt is too small for a number
        out[_Z1] = 1.0
        return
    if get_int(desk.notes, N_LANES * N_PARTICLES + lane) > 1:
        one = _pt_of(desk, lane, get_int(axes, N_LANES * 5 + lane))
        other = _pt_of(desk, lane, get_int(axes, N_LANES * 8 + lane))
        out[_Z1], out[_Z2] = max(one, other) / jet_pt, min(one, other) / jet_pt
    if get_int(axes, N_LANES * 2 + lane) == 0:
        out[_Z1] = _pt_of(desk, lane, 0) / jet_pt


@inlined
def _soft_drop(desk: Any, lane: int, node: int, z_cut: float, out: Floats) -> None:
    """Groomed mass and z of the first Cambridge/Aachen splitting with z > `z_cut`, following the harder branch."""
    links, n = desk.links + 16 * 2 * desk.most * lane, get_int(desk.notes, N_LANES * N_PARTICLES + lane)
    out[_Z_G] = 0.0
    while node >= n:
        one, other = get_int(links, 2 * node), get_int(links, 2 * node + 1)
        harder, softer = (
            min(one, other),
            max(one, other),
        )  # of equal ones the earlier is followed, as by FastJet
        if pt2_of(desk, lane, harder) < pt2_of(desk, lane, softer):
            harder, softer = softer, harder
        pt_harder, pt_softer = _pt_of(desk, lane, harder), _pt_of(desk, lane, softer)
        if pt_softer > z_cut * (pt_harder + pt_softer):
            out[_Z_G] = pt_softer / (pt_harder + pt_softer)
            break
        node = harder
    pz, e = get(record_of(desk, lane, node), 2), get(record_of(desk, lane, node), 3)
    out[_M_SD] = math.sqrt(max(0.0, (e + pz) * (e - pz) - pt2_of(desk, lane, node)))
