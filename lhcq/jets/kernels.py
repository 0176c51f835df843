"""The compiled loops of `lhcq.jets.substructure`: recluster a jet's constituents, measure what comes out.

FastJet could recluster too, but its Python interface builds objects for every constituent on the way: 140 us an
event for the kt axes and 1,400 for soft drop, where these loops take some tens for everything. What they compute
is FastJet's to rounding: E-scheme, rapidity and azimuth, the same distances; tests hold them to FastJet's and
fjcontrib's numbers.

The order of every sum is written out and nothing is compiled with fastmath, so that the bits do not depend on the
width of the CPU's vectors. Where a loop could fill vectors it runs over independent elements, from 0 (a range that
may be negative is not vectorised), and branches stand in loops of their own.
"""

import math

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# The columns of the result of `measure_jets`, in this order.
MEASURES = ("tau1", "tau2", "tau3", "tau4", "m_sd", "z_g", "width", "z1", "z2", "c2", "d2")
_TAU, _M_SD, _Z_G, _WIDTH, _Z1, _Z2, _C2, _D2 = 0, 4, 5, 6, 7, 8, 9, 10

_MOST_AXES = 4
_BEYOND = 1e300  # farther than any pair
# Rapidity of a momentum along the beam: FastJet's `MaxRap`, to which it adds |pz| so that no two are alike.
_MAX_RAPIDITY = 1e5
# Rows of a table of pseudojets, one a column. The weight is pt^2 for the kt distance, 1 for Cambridge/Aachen.
_PX, _PY, _PZ, _E, _RAP, _PHI, _PT2, _WEIGHT = 0, 1, 2, 3, 4, 5, 6, 7
_ROWS = 8
# Rows of a table of the tree: the two that became a node; and, of each active pseudojet, the node that it is.
_FIRST, _SECOND, _NAME = 0, 1, 2

compiled = numba.njit(cache=True, error_model="numpy", nogil=True)


@compiled
def measure_jets(
    px: Floats,
    py: Floats,
    pz: Floats,
    e: Floats,
    starts: Integers,
    members: Integers,
    chosen: Integers,
    jet_pt: Floats,
    z_cut: float,
    out: Floats,
) -> None:
    """Fill `out` (n_chosen, 11) with the `MEASURES` of the jets `chosen` (n_chosen,) of a list.

    `px` to `e` (n_particles,) are momenta in GeV; the constituents of jet k of the list are the particles
    `members[starts[k]:starts[k + 1]]`; `jet_pt` (n_chosen,) are the pt of the chosen ones in GeV.
    """
    most = 1
    for jet in chosen:
        most = max(most, starts[jet + 1] - starts[jet])
    inputs, pt, square = np.empty((_ROWS, most)), np.empty(most), np.empty((most, most))
    nearest, row, sums = np.empty(most, np.int64), np.empty(most), np.empty(most)
    # Not in one tuple, which would cost half as much again: each loop would look its arrays up anew.
    active, near, distance, merit = np.empty((_ROWS, most)), nearest.copy(), np.empty(most), np.empty(most)
    nodes, links = np.empty((4, 2 * most)), np.empty((3, 2 * most), np.int64)
    for index in range(len(chosen)):
        first, jet = starts[chosen[index]], out[index]
        n = starts[chosen[index] + 1] - first
        jet[:] = 0.0
        if n == 0:
            continue
        for k in range(n):
            particle = members[first + k]
            inputs[_PX, k], inputs[_PY, k] = px[particle], py[particle]
            inputs[_PZ, k], inputs[_E, k] = pz[particle], e[particle]
            _set_direction(inputs, k)
        for k in range(n):
            pt[k] = math.sqrt(inputs[_PT2, k])
        for k in range(n):
            _measure_distances(inputs, k, n, square[k])
            nearest[k] = _find_smallest(square[k], n)

        for by_kt in (True, False):
            _start_clustering(inputs, square, nearest, n, by_kt, active, near, distance, merit, nodes, links)
            left = n
            if by_kt:
                for n_axes in range(min(n, _MOST_AXES), 0, -1):
                    _merge_down_to(
                        n_axes, left, n, by_kt, active, near, distance, merit, nodes, links, row, sums
                    )
                    left = n_axes
                    _measure_axes(inputs, pt, n, active, n_axes, jet_pt[index], row, jet)
            else:
                _merge_down_to(1, left, n, by_kt, active, near, distance, merit, nodes, links, row, sums)
                _soft_drop(nodes, links, n, z_cut, jet)
        jet[_WIDTH] = jet[_TAU] / _add_up(pt, n)
        _correlate(square, pt, n, row, sums, jet)  # spoils the distances


@compiled
def _set_direction(table: Floats, k: int) -> None:
    """Rapidity, azimuth and pt^2 of pseudojet `k` from its momentum, rounded as FastJet does."""
    px, py, pz, e = table[_PX, k], table[_PY, k], table[_PZ, k], table[_E, k]
    pt2 = px * px + py * py
    phi = math.atan2(py, px) if pt2 > 0.0 else 0.0
    if phi < 0.0:
        phi += 2 * math.pi
    if pt2 == 0.0 and e == abs(pz):
        rap = _MAX_RAPIDITY + abs(pz)
    else:
        m2 = max(0.0, (e + pz) * (e - pz) - pt2)
        p_plus = e + abs(pz)
        rap = -0.5 * math.log((pt2 + m2) / (p_plus * p_plus))
    table[_RAP, k], table[_PHI, k], table[_PT2, k] = (rap if pz > 0.0 else -rap), phi, pt2


@compiled
def _separation(rap1: float, phi1: float, rap2: float, phi2: float) -> float:
    """Delta R squared in rapidity and azimuth."""
    along, around = rap1 - rap2, abs(phi1 - phi2)
    around = around if around < math.pi else 2 * math.pi - around
    return along * along + around * around


@compiled
def _measure_distances(table: Floats, i: int, n: int, out: Floats) -> None:
    """Delta R squared of each of the `n` pseudojets to the one at `i`, which is beyond all for itself."""
    rap, phi = table[_RAP, i], table[_PHI, i]
    for k in range(n):
        out[k] = _separation(rap, phi, table[_RAP, k], table[_PHI, k])
    out[i] = _BEYOND


@compiled
def _find_smallest(values: Floats, n: int) -> int:
    """Where the first of the smallest of `n` values is."""
    smallest, at = values[0], 0
    for k in range(n):
        if values[k] < smallest:
            smallest, at = values[k], k
    return at


@compiled
def _start_clustering(
    inputs: Floats,
    square: Floats,
    nearest: Integers,
    n: int,
    by_kt: bool,
    active: Floats,
    near: Integers,
    distance: Floats,
    merit: Floats,
    nodes: Floats,
    links: Integers,
) -> None:
    """Every constituent is active, with its nearest neighbour."""
    for line in range(_WEIGHT):
        for k in range(n):
            active[line, k] = inputs[line, k]
    for line in range(4):
        for k in range(n):
            nodes[line, k] = inputs[line, k]
    for k in range(n):
        active[_WEIGHT, k] = inputs[_PT2, k] if by_kt else 1.0
        links[_NAME, k] = k
    for k in range(n):
        near[k], distance[k] = nearest[k], square[k, nearest[k]]
        merit[k] = distance[k] * min(active[_WEIGHT, k], active[_WEIGHT, near[k]])


@compiled
def _merge_down_to(
    floor: int,
    left: int,
    n: int,
    by_kt: bool,
    active: Floats,
    near: Integers,
    distance: Floats,
    merit: Floats,
    nodes: Floats,
    links: Integers,
    row: Floats,
    other: Floats,
) -> None:
    """Merge the `left` active pseudojets pairwise, nearest first, until `floor` are; they were `n` at the start.

    Nearest by min(pt_i^2, pt_j^2) R_ij^2 for kt, by R_ij^2 for Cambridge/Aachen. The smallest of either is found
    among the pairs of one pseudojet and its nearest neighbour in R (hep-ph/0512210): `near` (n,) is this neighbour,
    `distance` its R^2, `merit` that times the smaller weight of the two. `row` and `other` are scratch.
    """
    while left > floor:
        i = _find_smallest(merit, left)
        j = near[i]
        if j < i:
            i, j = j, i
        node = 2 * n - left
        left -= 1
        # The sum takes the lower place, the last one the higher.
        for line in range(4):
            active[line, i] += active[line, j]
            nodes[line, node] = active[line, i]
        links[_FIRST, node], links[_SECOND, node] = links[_NAME, i], links[_NAME, j]
        links[_NAME, i], links[_NAME, j] = node, links[_NAME, left]
        _set_direction(active, i)
        active[_WEIGHT, i] = active[_PT2, i] if by_kt else 1.0
        for line in range(_ROWS):
            active[line, j] = active[line, left]
        near[j], distance[j], merit[j] = near[left], distance[left], merit[left]

        _measure_distances(active, i, left, row)
        for k in range(left):
            if k == i:
                continue
            if near[k] == i or near[k] == j:  # which are no more
                _measure_distances(active, k, left, other)
                best = _find_smallest(other, left)
                near[k], distance[k] = best, other[best]
                merit[k] = other[best] * min(active[_WEIGHT, k], active[_WEIGHT, best])
            else:
                if near[k] == left:
                    near[k] = j
                if row[k] < distance[k]:
                    near[k], distance[k] = i, row[k]
                    merit[k] = row[k] * min(active[_WEIGHT, k], active[_WEIGHT, i])
        best = _find_smallest(row, left)
        near[i], distance[i] = best, row[best]
        merit[i] = row[best] * min(active[_WEIGHT, i], active[_WEIGHT, best])


@compiled
def _measure_axes(
    inputs: Floats, pt: Floats, n: int, active: Floats, n_axes: int, jet_pt: float, row: Floats, out: Floats
) -> None:
    """tau of the first `n_axes` active pseudojets, and the pt of the two subjets where they are two."""
    for k in range(n):
        row[k] = _BEYOND
    for axis in range(n_axes):
        rap, phi = active[_RAP, axis], active[_PHI, axis]
        for k in range(n):
            row[k] = min(row[k], _separation(inputs[_RAP, k], inputs[_PHI, k], rap, phi))
    for k in range(n):
        row[k] = pt[k] * math.sqrt(row[k])
    out[_TAU + n_axes - 1] = _add_up(row, n)
    if n_axes == 2:
        first, second = math.sqrt(active[_PT2, 0]), math.sqrt(active[_PT2, 1])
        out[_Z1], out[_Z2] = max(first, second) / jet_pt, min(first, second) / jet_pt
    elif n == 1:
        out[_Z1] = pt[0] / jet_pt


@compiled
def _add_up(values: Floats, n: int) -> float:
    total = 0.0
    for k in range(n):
        total += values[k]
    return total


@compiled
def _soft_drop(nodes: Floats, links: Integers, n: int, z_cut: float, out: Floats) -> None:
    """Groomed mass and z of the first Cambridge/Aachen splitting with z > `z_cut`, following the harder branch."""
    node = links[_NAME, 0]
    while node >= n:
        harder, softer = links[_FIRST, node], links[_SECOND, node]
        pt_harder, pt_softer = _pt(nodes, harder), _pt(nodes, softer)
        if pt_harder < pt_softer:
            harder, pt_harder, pt_softer = softer, pt_softer, pt_harder
        if pt_softer > z_cut * (pt_harder + pt_softer):
            out[_Z_G] = pt_softer / (pt_harder + pt_softer)
            break
        node = harder
    px, py, pz, e = nodes[_PX, node], nodes[_PY, node], nodes[_PZ, node], nodes[_E, node]
    out[_M_SD] = math.sqrt(max(0.0, (e + pz) * (e - pz) - (px * px + py * py)))


@compiled
def _pt(nodes: Floats, node: int) -> float:
    return math.sqrt(nodes[_PX, node] * nodes[_PX, node] + nodes[_PY, node] * nodes[_PY, node])


@compiled
def _correlate(square: Floats, pt: Floats, n: int, row: Floats, sums: Floats, out: Floats) -> None:
    """C2 and D2 at beta = 1, from the correlators e2 and e3 normalised by the sum of pt.

    `square` becomes A_ij = R_ij sqrt(pt_i pt_j) below its diagonal; the product of A around a triangle is then
    pt_i pt_j pt_k R_ij R_jk R_ik, and e3 the sum over all triangles i > j > k.
    """
    total = _add_up(pt, n)
    for k in range(n):
        pt[k] = math.sqrt(pt[k])
        sums[k] = 0.0
    for i in range(n):
        for k in range(i):
            weight = pt[i] * pt[k]
            square[i, k] = math.sqrt(square[i, k]) * weight
            sums[k] += square[i, k] * weight
    e2 = _add_up(sums, n) / (total * total)
    for k in range(n):
        sums[k] = 0.0
    for i in range(n):
        for k in range(i):
            row[k] = 0.0
        for j in range(i):
            factor = square[i, j]
            for k in range(j):
                row[k] += factor * square[j, k]
        for k in range(i):
            sums[k] += row[k] * square[i, k]
    e3 = _add_up(sums, n) / (total * total * total)
    if e2 * e2 * e2 > 0.0:
        out[_C2], out[_D2] = e3 / (e2 * e2), e3 / (e2 * e2 * e2)
