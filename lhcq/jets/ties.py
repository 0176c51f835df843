"""Clustering where distances tie, in the order in which FastJet's strategy N2Plain resolves them.

The sum of two pseudojets does not depend on the order in which distances are looked at, unless two of them are equal:
then whoever is looked at first decides. Angles on a calorimeter's grid make that common. FastJet's own strategies
disagree with each other there; N2Plain is the one that it takes for up to 30 particles, and the only one whose order
depends on nothing but the order of the particles. `recombination` notices ties and goes on, and what it found of such
an event is then done again by this loop, one event at a time:

- a pseudojet has a slot; its nearest neighbour is the first found of the nearest ones, and stays until a nearer one
  comes or it is gone;
- of equal distances the one of the lowest slot is next;
- the sum takes the lower of the two slots, the last pseudojet the slot that is left.

Source: FastJet 3.5's behaviour with `strategy=N2Plain`, which the tests compare with; hep-ph/0512210.
"""

import math
from typing import Any

from lhcq.jets.desk import N_DONE, count_of, links_of, momentum_of
from lhcq.jets.directions import directions_of
from lhcq.jets.lanes import (
    N_LANES,
    apart,
    get,
    get_int,
    higher,
    inlined,
    lower,
    put,
    put_int,
    put_row,
    row,
    spread,
)
from lhcq.jets.recombination import N_AXES, WTA_KT, note_axes, tied, weights_of, winner_of

_NONE = -1


@inlined
def resolve_ties(desk: Any, n_lanes: int, power: int, limit: float, by_libm: int, axes: int) -> None:
    """Cluster those of the first `n_lanes` lanes again in which equal distances decided; else as `cluster`."""
    for lane in range(n_lanes):
        if tied(desk, lane):
            _recluster(desk, lane, power, limit, by_libm, axes)


@apart
def _recluster(desk: Any, lane: int, power: int, limit: float, by_libm: int, axes: int) -> None:
    n, done = count_of(desk, lane), desk.done + 8 * desk.most * lane
    n_nodes, n_done, left = n, 0, n
    for slot in range(n):
        _set_out(desk, lane, slot, power)
        _look_back(desk, lane, slot, limit)
    for slot in range(n):
        _weigh(desk, lane, slot)
    while left > 0:
        if axes != 0 and left <= N_AXES:
            note_axes(desk, lane, left, axes)
        chosen = 0
        for slot in range(1, left):
            if get(desk.merit, N_LANES * slot + lane) < get(desk.merit, N_LANES * chosen + lane):
                chosen = slot
        near = get_int(desk.near, N_LANES * chosen + lane)
        high, low = higher(chosen, near), lower(chosen, near)  # where there is no neighbour, low is none
        name = get_int(desk.name, N_LANES * high + lane)
        if low == _NONE:
            put_int(done, n_done, name)
            n_done += 1
        else:
            other = get_int(desk.name, N_LANES * low + lane)
            # The later one first: whoever lists the leaves then begins with the earlier, as FastJet does.
            parents = links_of(desk, lane, n_nodes)
            put_int(parents, 0, higher(name, other))
            put_int(parents, 1, lower(name, other))
            if power == WTA_KT:
                rap, phi, weight = winner_of(desk, lane, low, high)
                _stand(desk, lane, n_nodes, low, rap, phi, weight)
            else:
                _add(desk, lane, name, other, n_nodes, low, power, by_libm)
            n_nodes += 1
        left -= 1
        _move(desk, lane, left, high)
        _look_again(desk, lane, left, high, low, limit)
    put_int(desk.notes, N_LANES * N_DONE + lane, n_done)


@inlined
def _set_out(desk: Any, lane: int, slot: int, power: int) -> None:
    at = N_LANES * slot + lane
    put_row(desk.weight, slot, weights_of(row(desk.particle_pt2, slot), power))  # the other lanes are done
    put(desk.rap, at, get(desk.particle_rap, at))
    put(desk.phi, at, get(desk.particle_phi, at))
    put_int(desk.name, at, slot)


@inlined
def _between(desk: Any, lane: int, one: int, other: int) -> Any:
    """R^2 of two slots, as `directions.separations` has it."""
    along = get(desk.rap, N_LANES * one + lane) - get(desk.rap, N_LANES * other + lane)
    around = abs(get(desk.phi, N_LANES * one + lane) - get(desk.phi, N_LANES * other + lane))
    around = lower(around, 2 * math.pi - around)
    return along * along + around * around


@inlined
def _be_near(desk: Any, lane: int, slot: int, other: int, distance: float) -> None:
    put(desk.distance, N_LANES * slot + lane, distance)
    put_int(desk.near, N_LANES * slot + lane, other)


@inlined
def _look_back(desk: Any, lane: int, slot: int, limit: float) -> None:
    """Compare a slot with those before it, for both sides."""
    _be_near(desk, lane, slot, _NONE, limit)
    for other in range(slot):
        this = _between(desk, lane, slot, other)
        if this < get(desk.distance, N_LANES * slot + lane):
            _be_near(desk, lane, slot, other, this)
        if this < get(desk.distance, N_LANES * other + lane):
            _be_near(desk, lane, other, slot, this)


@inlined
def _look_around(desk: Any, lane: int, slot: int, left: int, limit: float) -> None:
    """The nearest of all others."""
    _be_near(desk, lane, slot, _NONE, limit)
    for other in range(left):
        this = _between(desk, lane, slot, other)
        if other != slot and this < get(desk.distance, N_LANES * slot + lane):
            _be_near(desk, lane, slot, other, this)


@inlined
def _weigh(desk: Any, lane: int, slot: int) -> None:
    """The merit of a slot: its distance times the smaller of both weights."""
    at = N_LANES * slot + lane
    weight, near = get(desk.weight, at), get_int(desk.near, at)
    if near != _NONE:
        weight = lower(weight, get(desk.weight, N_LANES * near + lane))
    put(desk.merit, at, get(desk.distance, at) * weight)


@inlined
def _add(desk: Any, lane: int, one: int, other: int, node: int, slot: int, power: int, by_libm: int) -> None:
    """The sum of two nodes becomes a node, which stands in a slot and knows no neighbour."""
    a, b, to = momentum_of(desk, lane, one), momentum_of(desk, lane, other), momentum_of(desk, lane, node)
    for component in range(4):
        put(to, component, get(a, component) + get(b, component))
    px, py, pz, e = spread(get(to, 0)), spread(get(to, 1)), spread(get(to, 2)), spread(get(to, 3))
    pt2, rap, phi = directions_of(px, py, pz, e, by_libm, desk.scratch)
    put_row(desk.scratch, 0, rap)
    put_row(desk.scratch, 1, phi)
    put_row(desk.scratch, 2, weights_of(pt2, power))
    first, second, third = get(desk.scratch, 0), get(desk.scratch, N_LANES), get(desk.scratch, 2 * N_LANES)
    _stand(desk, lane, node, slot, first, second, third)


@inlined
def _stand(desk: Any, lane: int, node: int, slot: int, rap: float, phi: float, weight: float) -> None:
    """A node takes a slot."""
    at = N_LANES * slot + lane
    put(desk.rap, at, rap)
    put(desk.phi, at, phi)
    put(desk.weight, at, weight)
    put_int(desk.name, at, node)


@inlined
def _move(desk: Any, lane: int, last: int, to: int) -> None:
    """The last slot's pseudojet takes another slot."""
    here, there = N_LANES * last + lane, N_LANES * to + lane
    put(desk.rap, there, get(desk.rap, here))
    put(desk.phi, there, get(desk.phi, here))
    put(desk.weight, there, get(desk.weight, here))
    put(desk.distance, there, get(desk.distance, here))
    put(desk.merit, there, get(desk.merit, here))
    put_int(desk.name, there, get_int(desk.name, here))
    put_int(desk.near, there, get_int(desk.near, here))


@inlined
def _look_again(desk: Any, lane: int, left: int, gone: int, new: int, limit: float) -> None:
    """The neighbours of all slots after the one of `gone` was taken and the sum came into `new`, if there is one."""
    if new != _NONE:
        _be_near(desk, lane, new, _NONE, limit)
    for slot in range(left):
        at = N_LANES * slot + lane
        near = get_int(desk.near, at)
        if near == gone or (new != _NONE and near == new):
            _look_around(desk, lane, slot, left, limit)
            _weigh(desk, lane, slot)
        if new not in (_NONE, slot):
            this = _between(desk, lane, slot, new)
            if this < get(desk.distance, at):
                _be_near(desk, lane, slot, new, this)
                _weigh(desk, lane, slot)
            if this < get(desk.distance, N_LANES * new + lane):
                _be_near(desk, lane, new, slot, this)
        if get_int(desk.near, at) == left:
            put_int(desk.near, at, gone)
    if new != _NONE:
        _weigh(desk, lane, new)
