"""tau1 to tau4 of jets about other axes than the kernels' own: minimised ones, and winner-takes-all ones.

N-subjettiness is a sum over distances to N axes (arXiv:1011.2268), so it is another quantity with other axes:

- `kt`: the N exclusive kt subjets, as they are (fjcontrib's `KT_Axes`). `lhcq.jets.kernels` measures these.
- `onepass-kt`: from there down to the next minimum of tau_N (`OnePass_KT_Axes`, arXiv:1108.2701): each axis becomes
  the mean of the particles that are nearest to it, weighted by pt over the distance, until the axes move by less than
  1e-4 on average. tau_{N+1} above tau_N is then hardly possible.
- `wta-kt`: the N exclusive kt subjets, where a sum has the direction of the harder of both (`WTA_KT_Axes`,
  arXiv:1401.2158).

All with beta = 1 and not normalised, in GeV; 0.0 where a jet has no more than N constituents. fjcontrib is the judge,
as of the kernels. Subjets are found by the plain loop of FastJet's N2Plain: a jet has some 50 particles.
"""

import math
from typing import Any

import numba
import numpy as np

from lhcq.config import Axes
from lhcq.jets.compiling import Floats, Integers, compiled
from lhcq.jets.recombination import EVERYWHERE, N_AXES

_ONE_PASS, _WINNER = 1, 2
KINDS: dict[Axes, int] = {"onepass-kt": _ONE_PASS, "wta-kt": _WINNER}
_ACCURACY, _MOST_ROUNDS = 1e-4, 1000  # fjcontrib's
_N_TAKEN = N_AXES * (N_AXES + 1) // 2


def _inlined(function: Any) -> Any:
    return numba.njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


@_inlined
def _direction(px: float, py: float, pz: float, e: float) -> tuple[float, float]:
    """Rapidity and azimuth, as `directions.directions_of`."""
    pt2 = px * px + py * py
    m2 = max((e + pz) * (e - pz) - pt2, 0.0)
    p_plus = e + abs(pz)
    rap = 0.0
    if pt2 + m2 > 0.0:
        rap = -0.5 * math.log((pt2 + m2) / (p_plus * p_plus))
    phi = math.atan2(py, px)
    return rap if pz > 0.0 else -rap, phi if phi >= 0.0 else phi + 2 * math.pi


@_inlined
def _between(rap1: float, phi1: float, rap2: float, phi2: float) -> float:
    along, around = rap1 - rap2, abs(phi1 - phi2)
    around = min(around, 2 * math.pi - around)
    return along * along + around * around


@_inlined
def _look_around(slot: int, left: int, rap: Floats, phi: Floats, near: Integers, distance: Floats) -> None:
    near[slot], distance[slot] = -1, EVERYWHERE
    for other in range(left):
        this = _between(rap[slot], phi[slot], rap[other], phi[other])
        if other != slot and this < distance[slot]:
            near[slot], distance[slot] = other, this


@_inlined
def _choose(left: int, pt2: Floats, near: Integers, distance: Floats) -> tuple[int, int]:
    """The slots of the two that merge next."""
    chosen, smallest = 0, math.inf
    for slot in range(left):
        merit = distance[slot] * min(pt2[slot], pt2[near[slot]])
        if merit < smallest:
            chosen, smallest = slot, merit
    return min(chosen, near[chosen]), max(chosen, near[chosen])


@_inlined
def _add(low: int, high: int, winner: bool, momenta: Floats, rap: Floats, phi: Floats, pt2: Floats) -> None:
    """The sum of two slots, in the lower one."""
    if winner:
        harder = high if pt2[high] > pt2[low] else low
        rap[low], phi[low] = rap[harder], phi[harder]
        pt = math.sqrt(pt2[low]) + math.sqrt(pt2[high])
        pt2[low] = pt * pt
        return
    for component in range(4):
        momenta[low, component] += momenta[high, component]
    px, py, pz, e = momenta[low, 0], momenta[low, 1], momenta[low, 2], momenta[low, 3]
    rap[low], phi[low] = _direction(px, py, pz, e)
    pt2[low] = px * px + py * py


@_inlined
def _take_axes(momenta: Floats, rap: Floats, phi: Floats, winner: bool, axes: Floats) -> None:
    """The last four, three, two and one kt subjets: rapidity and azimuth into `axes` (10, 2), and change all else."""
    left = len(rap)
    near, distance = np.empty(left, np.int64), np.empty(left)
    pt2 = momenta[:, 0] * momenta[:, 0] + momenta[:, 1] * momenta[:, 1]
    for slot in range(left):
        _look_around(slot, left, rap, phi, near, distance)
    while left > 0:
        if left <= N_AXES:
            for slot in range(left):
                axes[left * (left - 1) // 2 + slot, 0] = rap[slot]
                axes[left * (left - 1) // 2 + slot, 1] = phi[slot]
        if left == 1:
            return
        low, high = _choose(left, pt2, near, distance)
        _add(low, high, winner, momenta, rap, phi, pt2)
        left -= 1
        rap[high], phi[high], pt2[high], near[high], distance[high] = (
            rap[left], phi[left], pt2[left], near[left], distance[left]
        )  # fmt: skip
        momenta[high] = momenta[left]
        for slot in range(left):
            if near[slot] == high or near[slot] == low or slot == low:
                _look_around(slot, left, rap, phi, near, distance)
            else:
                this = _between(rap[slot], phi[slot], rap[low], phi[low])
                if this < distance[slot]:
                    near[slot], distance[slot] = low, this
                elif near[slot] == left:
                    near[slot] = high


@_inlined
def _nearest(rap: float, phi: float, axes: Floats) -> tuple[int, float]:
    """The nearest of the axes (n_axes, 2), and R^2 to it."""
    nearest, square = 0, math.inf
    for axis in range(len(axes)):
        this = _between(rap, phi, axes[axis, 0], axes[axis, 1])
        if this < square:
            nearest, square = axis, this
    return nearest, square


@_inlined
def _minimise(pt: Floats, rap: Floats, phi: Floats, axes: Floats) -> None:
    """Move the axes (n_axes, 2) to the next minimum of tau."""
    sums = np.empty((len(axes), 3))
    for _ in range(_MOST_ROUNDS):
        sums[:] = 0.0
        for k in range(len(pt)):
            axis, square = _nearest(rap[k], phi[k], axes)
            weight = pt[k] / math.sqrt(_ACCURACY * _ACCURACY + square)
            around = phi[k] - axes[axis, 1]
            turns = -2 * math.pi if around > math.pi else (2 * math.pi if around < -math.pi else 0.0)
            sums[axis, 0] += weight * rap[k]
            sums[axis, 1] += weight * (phi[k] + turns)
            sums[axis, 2] += weight
        moved = 0.0
        for axis in range(len(axes)):
            if sums[axis, 2] > 0.0:  # else nobody is nearest to it, and it stays
                rap_new = sums[axis, 0] / sums[axis, 2]
                phi_new = sums[axis, 1] / sums[axis, 2]
                phi_new += 2 * math.pi if phi_new < 0.0 else (-2 * math.pi if phi_new >= 2 * math.pi else 0.0)
                moved += math.sqrt(_between(axes[axis, 0], axes[axis, 1], rap_new, phi_new))
                axes[axis, 0], axes[axis, 1] = rap_new, phi_new
        if moved / len(axes) <= _ACCURACY:
            return


@compiled
def measure_about_axes(
    px: Floats,
    py: Floats,
    pz: Floats,
    e: Floats,
    starts: Integers,
    members: Integers,
    chosen: Integers,
    kind: int,
    out: Floats,
) -> None:
    """Fill `out` (n_chosen, 4) with tau1 to tau4 (GeV) about axes of a kind; arguments as those of `measure_jets`."""
    taken = np.empty((_N_TAKEN, 2))
    for index in range(len(chosen)):
        inside = members[starts[chosen[index]] : starts[chosen[index] + 1]]
        n = len(inside)
        momenta, pt, rap, phi = np.empty((n, 4)), np.empty(n), np.empty(n), np.empty(n)
        for k in range(n):
            one = inside[k]
            momenta[k, 0], momenta[k, 1], momenta[k, 2], momenta[k, 3] = px[one], py[one], pz[one], e[one]
            pt[k] = math.sqrt(px[one] * px[one] + py[one] * py[one])
            rap[k], phi[k] = _direction(px[one], py[one], pz[one], e[one])
        _take_axes(momenta, rap.copy(), phi.copy(), kind == _WINNER, taken)
        for n_axes in range(1, min(N_AXES, n - 1) + 1):
            axes = taken[n_axes * (n_axes - 1) // 2 : n_axes * (n_axes + 1) // 2]
            if kind == _ONE_PASS:
                _minimise(pt, rap, phi, axes)
            total = 0.0
            for k in range(n):
                total += pt[k] * math.sqrt(_nearest(rap[k], phi[k], axes)[1])
            out[index, n_axes - 1] = total
