"""Axes of N-subjettiness: which there are, and the minimisation of tau_N.

N-subjettiness is a sum over distances to N axes (arXiv:1011.2268), so it is another quantity with other axes:

- `kt`: the N exclusive kt subjets, as they are (fjcontrib's `KT_Axes`).
- `onepass-kt`: from there down to the next minimum of tau_N (`OnePass_KT_Axes`, arXiv:1108.2701): each axis becomes
  the mean of the particles that are nearest to it, weighted by pt over the distance, until the axes move by less than
  1e-4 on average. tau_{N+1} above tau_N is then hardly possible.
- `wta-kt`: the N exclusive kt subjets, where a sum has the direction of the harder of both (`WTA_KT_Axes`,
  arXiv:1401.2158).

All with beta = 1 and not normalised, in GeV; 0.0 where a jet has no more than N constituents. fjcontrib is the judge.
The subjets are found by `lhcq.jets.recombination`, which notes their directions.
"""

import math
from typing import Any

from lhcq.config import Axes
from lhcq.jets.desk import count_of
from lhcq.jets.lanes import N_LANES, apart, get, inlined, lower, put
from lhcq.jets.recombination import N_AXES

ONE_PASS, WINNER = 1, 2
KINDS: dict[Axes, int] = {"kt": 0, "onepass-kt": ONE_PASS, "wta-kt": WINNER}
_ACCURACY, _MOST_ROUNDS = 1e-4, 1000  # fjcontrib's


@apart
def minimise(desk: Any, lane: int, axes: int) -> None:
    """Move the axes of a lane, as `recombination.note_axes` left them, to the next minimum of tau1, tau2, ..."""
    for n_axes in range(1, lower(N_AXES, count_of(desk, lane) - 1) + 1):
        first = _place(n_axes * (n_axes - 1) // 2, lane)
        for _ in range(_MOST_ROUNDS):
            if _move(desk, lane, axes + 8 * first, n_axes) / n_axes <= _ACCURACY:
                break


@inlined
def _place(axis: int, lane: int) -> Any:
    """Where the rapidity of an axis stands; the azimuth is a row behind it."""
    return N_LANES * 3 * axis + lane


@inlined
def _between(rap1: float, phi1: float, rap2: float, phi2: float) -> Any:
    along, around = rap1 - rap2, abs(phi1 - phi2)
    around = lower(around, 2 * math.pi - around)
    return along * along + around * around


@inlined
def _move(desk: Any, lane: int, axes: int, n_axes: int) -> Any:
    """Move each of the axes to the mean of what is nearest to it; how far all of them went."""
    sums = desk.sums  # three of each axis; no clustering needs them now
    for place in range(3 * n_axes):
        put(sums, place, 0.0)
    for k in range(count_of(desk, lane)):
        at = N_LANES * k + lane
        rap, phi = get(desk.particle_rap, at), get(desk.particle_phi, at)
        nearest, square = 0, math.inf
        for axis in range(n_axes):
            there = _place(axis, 0)
            this = _between(rap, phi, get(axes, there), get(axes, there + N_LANES))
            if this < square:
                nearest, square = axis, this
        weight = math.sqrt(get(desk.particle_pt2, at)) / math.sqrt(_ACCURACY * _ACCURACY + square)
        around = phi - get(axes, _place(nearest, 0) + N_LANES)
        turns = -2 * math.pi if around > math.pi else (2 * math.pi if around < -math.pi else 0.0)
        mine = sums + 24 * nearest
        put(mine, 0, get(mine, 0) + weight * rap)
        put(mine, 1, get(mine, 1) + weight * (phi + turns))
        put(mine, 2, get(mine, 2) + weight)
    moved = 0.0
    for axis in range(n_axes):
        mine = sums + 24 * axis
        if get(mine, 2) > 0.0:  # else nobody is nearest to it, and it stays
            there = _place(axis, 0)
            rap, phi = get(mine, 0) / get(mine, 2), get(mine, 1) / get(mine, 2)
            phi += 2 * math.pi if phi < 0.0 else (-2 * math.pi if phi >= 2 * math.pi else 0.0)
            moved += math.sqrt(_between(get(axes, there), get(axes, there + N_LANES), rap, phi))
            put(axes, there, rap)
            put(axes, there + N_LANES, phi)
    return moved
