"""The compiled loops of `lhcq.jets.substructure`: recluster a jet's constituents, measure what comes out.

FastJet could recluster too, but its Python interface builds objects for every constituent on the way: 106 us an
event for the kt axes and 1,400 for soft drop, where these loops take some tens for everything. What they compute
is FastJet's to rounding: E-scheme, rapidity and azimuth, the same distances; tests hold them to FastJet's and
fjcontrib's numbers.

The order of every sum is written out and nothing is compiled with fastmath, so that the bits do not depend on the
width of the CPU's vectors.
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
# Rows of a table of pseudojets, one a column.
_PX, _PY, _PZ, _E, _RAP, _PHI, _PT2 = 0, 1, 2, 3, 4, 5, 6
_ROWS = 7

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
    inputs = np.empty((_ROWS, most))
    active = np.empty((_ROWS, most))
    pt = np.empty(most)
    square = np.empty((most, most))
    nearest0, distance0 = np.empty(most, np.int64), np.empty(most)
    nearest, distance = np.empty(most, np.int64), np.empty(most)
    nodes = np.empty((4, 2 * most))
    children = np.empty((2 * most, 2), np.int64)
    names = np.empty(most, np.int64)
    row = np.empty(most)
    for index in range(len(chosen)):
        first = starts[chosen[index]]
        n = starts[chosen[index] + 1] - first
        for k in range(n):
            particle = members[first + k]
            inputs[_PX, k], inputs[_PY, k] = px[particle], py[particle]
            inputs[_PZ, k], inputs[_E, k] = pz[particle], e[particle]
            _set_direction(inputs, k)
            pt[k] = math.sqrt(inputs[_PT2, k])
        for column in range(out.shape[1]):
            out[index, column] = 0.0
        if n == 0:
            continue
        _measure_distances(inputs, n, square)
        _find_nearest(square, n, nearest0, distance0)
        _correlate(square, pt, n, row, out[index])

        for k in range(n):
            nearest[k], distance[k] = nearest0[k], distance0[k]
        for line in range(_ROWS):
            for k in range(n):
                active[line, k] = inputs[line, k]
        _measure_axes(
            inputs, pt, n, active, nearest, distance, names, nodes, children, jet_pt[index], out[index]
        )

        for k in range(n):
            nearest[k], distance[k] = nearest0[k], distance0[k]
        for line in range(_ROWS):
            for k in range(n):
                active[line, k] = inputs[line, k]
        _soft_drop(n, active, nearest, distance, names, nodes, children, z_cut, out[index])


@compiled
def _set_direction(table: Floats, k: int) -> None:
    """Rapidity, azimuth and pt^2 of pseudojet `k` from its momentum, FastJet's way of rounding."""
    px, py, pz, e = table[_PX, k], table[_PY, k], table[_PZ, k], table[_E, k]
    pt2 = px * px + py * py
    phi = math.atan2(py, px) if pt2 > 0 else 0.0
    if phi < 0.0:
        phi += 2 * math.pi
    if pt2 == 0.0 and e == abs(pz):
        rap = _MAX_RAPIDITY + abs(pz)
        if pz < 0:
            rap = -rap
    else:
        m2 = max(0.0, (e + pz) * (e - pz) - pt2)
        p_plus = e + abs(pz)
        rap = 0.5 * math.log((pt2 + m2) / (p_plus * p_plus))
        if pz > 0:
            rap = -rap
    table[_RAP, k], table[_PHI, k], table[_PT2, k] = rap, phi, pt2


@compiled
def _separation(rap1: float, phi1: float, rap2: float, phi2: float) -> float:
    """Delta R squared in rapidity and azimuth."""
    along, around = rap1 - rap2, abs(phi1 - phi2)
    if around > math.pi:
        around = 2 * math.pi - around
    return along * along + around * around


@compiled
def _measure_distances(table: Floats, n: int, square: Floats) -> None:
    """Delta R squared of every pair, both triangles."""
    for i in range(n):
        rap, phi = table[_RAP, i], table[_PHI, i]
        for j in range(n):
            square[i, j] = _separation(rap, phi, table[_RAP, j], table[_PHI, j])


@compiled
def _find_nearest(square: Floats, n: int, nearest: Integers, distance: Floats) -> None:
    for i in range(n):
        best, at = _BEYOND, -1
        for j in range(n):
            if square[i, j] < best and j != i:
                best, at = square[i, j], j
        nearest[i], distance[i] = at, best


@compiled
def _correlate(square: Floats, pt: Floats, n: int, row: Floats, out: Floats) -> None:
    """C2 and D2 at beta = 1, from the correlators e2 and e3 normalised by the sum of pt.

    `square` becomes A_ij = R_ij sqrt(pt_i pt_j); then the product of A around a triangle is
    pt_i pt_j pt_k R_ij R_jk R_ik. The innermost loop runs over independent sums, so that it fills vectors with no
    change of any order.
    """
    total = 0.0
    for i in range(n):
        total += pt[i]
    e2 = 0.0
    for i in range(n):
        for j in range(i + 1, n):
            weight = pt[i] * pt[j]
            e2 += weight * math.sqrt(square[i, j])
            square[i, j] = math.sqrt(square[i, j] * weight)
    e3 = 0.0
    for i in range(n):
        for k in range(i + 1, n):
            row[k] = 0.0
        for j in range(i + 1, n):
            factor = square[i, j]
            for k in range(j + 1, n):
                row[k] += factor * square[j, k]
        for k in range(i + 1, n):
            e3 += row[k] * square[i, k]
    e2, e3 = e2 / (total * total), e3 / (total * total * total)
    if e2 * e2 * e2 > 0.0:
        out[_C2], out[_D2] = e3 / (e2 * e2), e3 / (e2 * e2 * e2)


@compiled
def _measure_axes(
    inputs: Floats,
    pt: Floats,
    n: int,
    active: Floats,
    nearest: Integers,
    distance: Floats,
    names: Integers,
    nodes: Floats,
    children: Integers,
    jet_pt: float,
    out: Floats,
) -> None:
    """tau1 to tau4 with exclusive kt axes, the width, and the pt of the two subjets."""
    left = n
    for n_axes in range(min(n, _MOST_AXES), 0, -1):
        _merge_down_to(n_axes, left, True, n, active, nearest, distance, names, nodes, children)
        left = n_axes
        tau = 0.0
        for i in range(n):
            best = _BEYOND
            for k in range(n_axes):
                best = min(
                    best, _separation(inputs[_RAP, i], inputs[_PHI, i], active[_RAP, k], active[_PHI, k])
                )
            tau += pt[i] * math.sqrt(best)
        out[_TAU + n_axes - 1] = tau
        if n_axes == 2:
            first, second = math.sqrt(active[_PT2, 0]), math.sqrt(active[_PT2, 1])
            out[_Z1], out[_Z2] = max(first, second) / jet_pt, min(first, second) / jet_pt
    if n == 1:
        out[_Z1] = math.sqrt(active[_PT2, 0]) / jet_pt
    total = 0.0
    for i in range(n):
        total += pt[i]
    out[_WIDTH] = out[_TAU] / total


@compiled
def _merge_down_to(
    floor: int,
    n: int,
    by_kt: bool,
    n_inputs: int,
    active: Floats,
    nearest: Integers,
    distance: Floats,
    names: Integers,
    nodes: Floats,
    children: Integers,
) -> None:
    """Merge the `n` active pseudojets pairwise, nearest first, until `floor` are left.

    By the kt distance min(pt_i^2, pt_j^2) R_ij^2, else by R_ij^2 (Cambridge/Aachen); each pseudojet knows its
    nearest neighbour in R, among which the smallest of either distance is always found. Where `by_kt` is False the
    tree is written: `names` of the active ones, momenta of `nodes` and their `children`.
    """
    while n > floor:
        smallest, i = _BEYOND, 0
        for k in range(n):
            d = distance[k]
            if by_kt:
                d *= min(active[_PT2, k], active[_PT2, nearest[k]])
            if d < smallest:
                smallest, i = d, k
        j = nearest[i]
        if j < i:
            i, j = j, i
        # The sum takes the lower place, the last one the higher.
        for line in range(4):
            active[line, i] += active[line, j]
        _set_direction(active, i)
        if not by_kt:
            node = 2 * n_inputs - n
            children[node, 0], children[node, 1] = names[i], names[j]
            names[i], names[j] = node, names[n - 1]
            for line in range(4):
                nodes[line, node] = active[line, i]
        n -= 1
        for line in range(_ROWS):
            active[line, j] = active[line, n]
        nearest[j], distance[j] = nearest[n], distance[n]
        _renew_nearest(n, i, j, active, nearest, distance)


@compiled
def _renew_nearest(n: int, i: int, j: int, active: Floats, nearest: Integers, distance: Floats) -> None:
    """Nearest neighbours after the one at `i` is new, the old one at `j` is gone and that at `n` is now at `j`."""
    rap, phi = active[_RAP, i], active[_PHI, i]
    best, at = _BEYOND, -1
    for k in range(n):
        if k == i:
            continue
        if nearest[k] == i or nearest[k] == j:
            # Its neighbour is no more: look for another.
            nearer, there = _BEYOND, -1
            for other in range(n):
                d = _separation(active[_RAP, k], active[_PHI, k], active[_RAP, other], active[_PHI, other])
                if d < nearer and other != k:
                    nearer, there = d, other
            nearest[k], distance[k] = there, nearer
        elif nearest[k] == n:
            nearest[k] = j
        d = _separation(rap, phi, active[_RAP, k], active[_PHI, k])
        if d < distance[k]:
            nearest[k], distance[k] = i, d
        if d < best:
            best, at = d, k
    nearest[i], distance[i] = at, best


@compiled
def _soft_drop(
    n: int,
    active: Floats,
    nearest: Integers,
    distance: Floats,
    names: Integers,
    nodes: Floats,
    children: Integers,
    z_cut: float,
    out: Floats,
) -> None:
    """Groomed mass and z of the first Cambridge/Aachen splitting with z > `z_cut`, following the harder branch."""
    for k in range(n):
        names[k] = k
        for line in range(4):
            nodes[line, k] = active[line, k]
    _merge_down_to(1, n, False, n, active, nearest, distance, names, nodes, children)
    node = names[0]
    while node >= n:
        harder, softer = children[node, 0], children[node, 1]
        pt_harder, pt_softer = _pt(nodes, harder), _pt(nodes, softer)
        if pt_harder < pt_softer:
            harder, pt_harder, pt_softer = softer, pt_softer, pt_harder
        if pt_harder == 0.0:
            break
        z = pt_softer / (pt_harder + pt_softer)
        if z > z_cut:
            out[_Z_G] = z
            break
        node = harder
    px, py, pz, e = nodes[0, node], nodes[1, node], nodes[2, node], nodes[3, node]
    out[_M_SD] = math.sqrt(max(0.0, (e + pz) * (e - pz) - (px * px + py * py)))


@compiled
def _pt(nodes: Floats, node: int) -> float:
    return math.sqrt(nodes[_PX, node] * nodes[_PX, node] + nodes[_PY, node] * nodes[_PY, node])
