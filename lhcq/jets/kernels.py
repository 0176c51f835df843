"""The compiled loops of clustering and substructure, in one file, since numba's cache knows the changes of one file.

FastJet's algorithms, not its code: sequential recombination in the E-scheme with the generalised-kt distances, by
nearest neighbours in rapidity and azimuth (hep-ph/0512210, arXiv:0802.1189). The reason is speed: they make no object
for a particle, and a whole task is faster than C++ programs that only call FastJet and fjcontrib
(benchmarks/results/clustering.json). FastJet is the judge: tests and benchmarks hold every jet to FastJet's and every
measure to fjcontrib's.

The order of every sum is written out and nothing is compiled with fastmath, so that the bits do not depend on the
width of the CPU's vectors. A loop that should fill vectors runs over independent elements from 0 (numba does not
vectorise a range that may be negative) and chooses instead of branching. Arrays are passed one by one: in a tuple
they are looked up anew in every loop, which costs half as much again.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., Any])

# The columns of the result of `measure_jets`, in this order.
MEASURES = ("tau1", "tau2", "tau3", "tau4", "m_sd", "z_g", "width", "z1", "z2", "c2", "d2")
_TAU, _M_SD, _Z_G, _WIDTH, _Z1, _Z2, _C2, _D2 = 0, 4, 5, 6, 7, 8, 9, 10

# The power of pt in the weight of a pseudojet, as `p` of generalised kt.
ANTIKT, CAMBRIDGE, KT = -2, 0, 2

_MOST_AXES = 4
_BEYOND = 1e300  # farther than any pair, heavier than any weight
_EVERYWHERE = 1e6  # R^2 of a clustering that has no beam: FastJet's `max_allowable_R`, squared
# Rapidity of a momentum along the beam: FastJet's `MaxRap`, to which it adds |pz| so that no two are alike.
_MAX_RAPIDITY = 1e5
# Columns of the nodes of a tree: momentum and pt^2. Rows of the table of the pseudojets that are left of one: only
# what the loops over all of them read, since moving a pseudojet costs more than comparing it with all others.
_PX, _PY, _PZ, _E, _PT2, _COLUMNS = 0, 1, 2, 3, 4, 5
_RAP, _PHI, _WEIGHT, _ROWS = 0, 1, 2, 3
# Instead of a nearest neighbour: the beam is nearer than any; or the one that it was is no more.
_BEAM, _UNKNOWN = -1, -2


def compiled(function: Function) -> Function:
    """Compile at the first call, and keep the result beside this file or in the user's cache directory."""
    options = {"error_model": "numpy", "nogil": True}
    try:
        return cast("Function", numba.njit(cache=True, **options)(function))
    except RuntimeError:  # neither can be written: every process compiles for itself, some 10 s
        return cast("Function", numba.njit(**options)(function))


@compiled
def to_momenta(particles: Floats, counts: Integers, momenta: Floats) -> None:
    """Fill `momenta` (4, n_filled) with px, py, pz, e (GeV) of `particles` (n_events, n_slots, 3).

    The particles are massless (pt in GeV, eta, phi); slots of pt 0 are left out. `counts` (n_events,) are given.
    """
    at = 0
    for event in range(particles.shape[0]):
        stop, slot = at + counts[event], 0
        while at < stop:
            pt, eta, phi = particles[event, slot, 0], particles[event, slot, 1], particles[event, slot, 2]
            slot += 1
            if pt != 0.0:
                momenta[_PX, at] = pt * math.cos(phi)
                momenta[_PY, at] = pt * math.sin(phi)
                momenta[_PZ, at] = pt * math.sinh(eta)
                momenta[_E, at] = pt * math.cosh(eta)
                at += 1


@compiled
def count_filled(particles: Floats) -> Integers:
    """How many slots of each event have a pt that is not 0: (n_events,)."""
    counts = np.zeros(particles.shape[0], np.int64)
    for event in range(particles.shape[0]):
        for slot in range(particles.shape[1]):
            counts[event] += particles[event, slot, 0] != 0.0
    return counts


@compiled
def find_jets(
    px: Floats,
    py: Floats,
    pz: Floats,
    e: Floats,
    offsets: Integers,
    power: int,
    radius: float,
    pt_min: float,
    n_jets: Integers,
    momenta: Floats,
    starts: Integers,
    members: Integers,
    pt_lead: Floats,
) -> None:
    """Inclusive jets with pt of at least `pt_min` of the events `offsets` (n_events + 1,), by falling pt in each.

    `momenta` (4, n_particles), `starts` (n_particles + 1,), `members` and `pt_lead` (n_particles,) are filled as far
    as there are jets, `n_jets` (n_events,) of them an event: jet k consists of `members[starts[k]:starts[k + 1]]`,
    the hardest of which has `pt_lead[k]`.
    """
    most = 1
    for event in range(len(offsets) - 1):
        most = max(most, offsets[event + 1] - offsets[event])
    table, row, line = np.empty((_ROWS, most)), np.empty(most), np.empty((1, most))
    near, distance, merit = np.empty(most, np.int64), np.empty(most), np.empty(most)
    nodes, links = np.empty((2 * most, _COLUMNS)), np.empty((2 * most, 2), np.int64)
    names = np.empty(most, np.int64)
    done, stack = np.empty(most, np.int64), np.empty(most, np.int64)
    n_listed = 0
    starts[0] = 0
    for event in range(len(offsets) - 1):
        first = offsets[event]
        n = offsets[event + 1] - first
        for k in range(n):
            nodes[k, _PX], nodes[k, _PY], nodes[k, _PZ] = px[first + k], py[first + k], pz[first + k]
            nodes[k, _E] = e[first + k]
            _set_direction(nodes, k, table, k)
        limit = radius * radius
        _find_nearest(table, n, limit, near, distance, line)
        _start_clustering(nodes, n, power, table, distance, merit, names)
        n_done = _merge(0, n, n, power, limit, table, near, distance, merit, nodes, links, names, row, done)
        n_kept = _sort_by_pt(nodes, done, n_done, pt_min, row)
        n_jets[event] = n_kept
        for k in range(n_kept):
            for component in range(4):
                momenta[component, n_listed] = nodes[done[k], component]
            starts[n_listed + 1] = _list_leaves(done[k], n, first, links, stack, members, starts[n_listed])
            hardest = 0.0
            for particle in members[starts[n_listed] : starts[n_listed + 1]]:
                hardest = max(hardest, px[particle] * px[particle] + py[particle] * py[particle])
            pt_lead[n_listed] = math.sqrt(hardest)
            n_listed += 1


@compiled
def _sort_by_pt(nodes: Floats, done: Integers, n_done: int, pt_min: float, pt: Floats) -> int:
    """Bring those of `done` that have `pt_min` to the front, the hardest first, and say how many they are."""
    kept = 0
    for k in range(n_done):
        node = done[k]
        value = math.sqrt(nodes[node, _PT2])
        if value < pt_min:
            continue
        place = kept
        while place > 0 and pt[place - 1] < value:
            pt[place], done[place] = pt[place - 1], done[place - 1]
            place -= 1
        pt[place], done[place] = value, node
        kept += 1
    return kept


@compiled
def _list_leaves(
    node: int, n: int, first: int, links: Integers, stack: Integers, members: Integers, at: int
) -> int:
    """Write the particles of a node of the tree into `members` from `at` on, and say where they end."""
    stack[0] = node
    depth = 1
    while depth > 0:
        depth -= 1
        node = stack[depth]
        if node < n:
            members[at] = first + node
            at += 1
        else:
            stack[depth], stack[depth + 1] = links[node, 0], links[node, 1]
            depth += 2
    return at


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
    nodes, links = np.empty((2 * most, _COLUMNS)), np.empty((2 * most, 2), np.int64)
    particles, near0, distance0 = np.empty((_ROWS, most)), np.empty(most, np.int64), np.empty(most)
    table, near, distance = np.empty((_ROWS, most)), np.empty(most, np.int64), np.empty(most)
    merit, names, done = np.empty(most), np.empty(most, np.int64), np.empty(1, np.int64)
    pt, square, row, sums = np.empty(most), np.empty((most, most)), np.empty(most), np.empty(most)
    for index in range(len(chosen)):
        first, measures = starts[chosen[index]], out[index]
        n = starts[chosen[index] + 1] - first
        for k in range(n):
            particle = members[first + k]
            nodes[k, _PX], nodes[k, _PY], nodes[k, _PZ] = px[particle], py[particle], pz[particle]
            nodes[k, _E] = e[particle]
            _set_direction(nodes, k, particles, k)
            pt[k] = math.sqrt(nodes[k, _PT2])
        _find_nearest(particles, n, _EVERYWHERE, near0, distance0, square)
        for column in range(len(measures)):
            measures[column] = 0.0
        for power in (KT, CAMBRIDGE):
            for k in range(n):
                table[_RAP, k], table[_PHI, k] = particles[_RAP, k], particles[_PHI, k]
                near[k], distance[k] = near0[k], distance0[k]
            _start_clustering(nodes, n, power, table, distance, merit, names)
            left = n
            for floor in range(min(n, _MOST_AXES) if power == KT else 1, 0, -1):
                _merge(
                    floor,
                    left,
                    n,
                    power,
                    _EVERYWHERE,
                    table,
                    near,
                    distance,
                    merit,
                    nodes,
                    links,
                    names,
                    row,
                    done,
                )
                left = floor
                if power == KT:
                    measures[_TAU + floor - 1] = _sum_to_axes(particles, pt, n, table, floor, row)
                    _compare_subjets(nodes, names, floor, jet_pt[index], measures)
            if power == CAMBRIDGE:
                _soft_drop(nodes, links, names[0], n, z_cut, measures)
        measures[_WIDTH] = measures[_TAU] / _add_up(pt, n)
        _correlate(square, pt, n, row, sums, measures)  # spoils pt and the distances


@compiled
def _set_direction(nodes: Floats, node: int, table: Floats, k: int) -> None:
    """pt^2 of a node, and its rapidity and azimuth in column `k` of the table, rounded as FastJet does."""
    px, py, pz, e = nodes[node, _PX], nodes[node, _PY], nodes[node, _PZ], nodes[node, _E]
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
    nodes[node, _PT2] = pt2
    table[_RAP, k], table[_PHI, k] = (rap if pz > 0.0 else -rap), phi


@compiled
def _separation(rap1: float, phi1: float, rap2: float, phi2: float) -> float:
    """Delta R squared in rapidity and azimuth."""
    along, around = rap1 - rap2, abs(phi1 - phi2)
    around = around if around < math.pi else 2 * math.pi - around
    return along * along + around * around


@compiled
def _measure_distances(table: Floats, i: int, n: int, out: Floats) -> None:
    """Delta R squared of each of the first `n` pseudojets to the one at `i`."""
    rap, phi = table[_RAP, i], table[_PHI, i]
    for k in range(n):
        out[k] = _separation(rap, phi, table[_RAP, k], table[_PHI, k])


@compiled
def _find_smallest(values: Floats, n: int) -> int:
    """Where the first of the smallest of `n` values is."""
    # Four at a time: comparisons that do not wait for each other, and one branch.
    smallest, at = values[0], 0
    for quarter in range(n // 4):
        k = 4 * quarter
        first, second = min(values[k], values[k + 1]), min(values[k + 2], values[k + 3])
        least = min(first, second)
        if least < smallest:
            smallest, at = least, k
    for k in range(n // 4 * 4, n):
        if values[k] < smallest:
            smallest, at = values[k], k
    for k in range(at, min(at + 4, n)):
        if values[k] == smallest:
            return k
    return at


@compiled
def _find_nearest(
    table: Floats, n: int, limit: float, near: Integers, distance: Floats, square: Floats
) -> None:
    """The nearest neighbour of each of `n` pseudojets and its R^2; the beam where none is within `limit`.

    `square` receives the R^2 of all pairs below its diagonal; if it has but one row, this is scratch.
    """
    for i in range(n):
        line = square[i if len(square) > 1 else 0]
        _measure_distances(table, i, i, line)
        at = _find_smallest(line, i)
        near[i], distance[i] = (at, line[at]) if i > 0 and line[at] < limit else (_BEAM, limit)
        for k in range(i):
            this, least, neighbour = line[k], distance[k], near[k]
            near[k] = i if this < least else neighbour
            distance[k] = this if this < least else least


@compiled
def _weigh(pt2: float, power: int) -> float:
    if power == ANTIKT:
        return 1.0 / pt2 if pt2 > 1.0 / _BEYOND else _BEYOND
    return pt2 if power == KT else 1.0


@compiled
def _start_clustering(
    nodes: Floats, n: int, power: int, table: Floats, distance: Floats, merit: Floats, names: Integers
) -> None:
    """Every particle is a pseudojet and a leaf of the tree."""
    for k in range(n):
        names[k] = k
        table[_WEIGHT, k] = _weigh(nodes[k, _PT2], power)
        merit[k] = distance[k] * table[_WEIGHT, k]


@compiled
def _merge(
    floor: int,
    left: int,
    n: int,
    power: int,
    limit: float,
    table: Floats,
    near: Integers,
    distance: Floats,
    merit: Floats,
    nodes: Floats,
    links: Integers,
    names: Integers,
    row: Floats,
    done: Integers,
) -> int:
    """Merge the `left` pseudojets of `table`, which began as `n` particles, nearest first, until `floor` are left.

    `near` (n,) is the nearest neighbour of each in R, `distance` its R^2, and `merit` that times its own weight. The
    smallest merit is the smallest min(w_i, w_j) R_ij^2 of all pairs: of a pair, the one of smaller weight has the
    other for its neighbour. Of one whose neighbour is no more, `distance` is less than or equal to what will be
    found when it is looked for, and that is not before it is the smallest.

    The tree has the momenta of `nodes` (2n, 5) and the two parents of each in `links` (2n, 2); `names` (n,) are the
    nodes in the table. A pseudojet that has none within R^2 = `limit` is complete when its turn comes: its node goes
    to `done`. Gives how many did.
    """
    n_done = 0
    while left > floor:
        i = _find_smallest(merit, left)
        if near[i] == _UNKNOWN:
            _measure_distances(table, i, left, row)
            row[i] = _BEYOND
            at = _find_smallest(row, left)
            near[i], distance[i] = (at, row[at]) if row[at] < limit else (_BEAM, limit)
            merit[i] = distance[i] * table[_WEIGHT, i]
            continue
        left -= 1
        if near[i] == _BEAM:
            done[n_done] = names[i]
            n_done += 1
            _move_last(table, near, distance, merit, names, left, i)
            for k in range(left):
                near[k] = _UNKNOWN if near[k] == i else (i if near[k] == left else near[k])
            continue
        # The sum takes the lower place, the last pseudojet the higher.
        i, j = min(i, near[i]), max(i, near[i])
        node = 2 * n - left - 1 - n_done
        links[node, 0], links[node, 1] = names[i], names[j]
        for component in range(4):
            nodes[node, component] = nodes[names[i], component] + nodes[names[j], component]
        names[i] = node
        _set_direction(nodes, node, table, i)
        table[_WEIGHT, i] = _weigh(nodes[node, _PT2], power)
        _move_last(table, near, distance, merit, names, left, j)

        _measure_distances(table, i, left, row)
        row[i] = _BEYOND
        for k in range(left):
            this, least, neighbour = row[k], distance[k], near[k]
            neighbour = _UNKNOWN if (neighbour == i) | (neighbour == j) else neighbour
            neighbour = j if neighbour == left else neighbour
            near[k] = i if this < least else neighbour
            distance[k] = this if this < least else least
            before, now = merit[k], this * table[_WEIGHT, k]
            merit[k] = now if this < least else before
        at = _find_smallest(row, left)
        near[i], distance[i] = (at, row[at]) if row[at] < limit else (_BEAM, limit)
        merit[i] = distance[i] * table[_WEIGHT, i]
    return n_done


@compiled
def _move_last(
    table: Floats, near: Integers, distance: Floats, merit: Floats, names: Integers, last: int, to: int
) -> None:
    for line in range(_ROWS):
        table[line, to] = table[line, last]
    near[to], distance[to], merit[to], names[to] = near[last], distance[last], merit[last], names[last]


@compiled
def _sum_to_axes(particles: Floats, pt: Floats, n: int, table: Floats, n_axes: int, row: Floats) -> float:
    """tau with the first `n_axes` pseudojets of `table` for axes."""
    for k in range(n):
        row[k] = _BEYOND
    for axis in range(n_axes):
        rap, phi = table[_RAP, axis], table[_PHI, axis]
        for k in range(n):
            row[k] = min(row[k], _separation(particles[_RAP, k], particles[_PHI, k], rap, phi))
    for k in range(n):
        row[k] = pt[k] * math.sqrt(row[k])
    return _add_up(row, n)


@compiled
def _compare_subjets(nodes: Floats, names: Integers, n_subjets: int, jet_pt: float, out: Floats) -> None:
    """The parts of the jet's pt that two subjets have; the first has all of it where there is but one particle."""
    if n_subjets == 2:
        one, other = math.sqrt(nodes[names[0], _PT2]), math.sqrt(nodes[names[1], _PT2])
        out[_Z1], out[_Z2] = max(one, other) / jet_pt, min(one, other) / jet_pt
    elif n_subjets == 1 and names[0] == 0:
        out[_Z1] = math.sqrt(nodes[0, _PT2]) / jet_pt


@compiled
def _add_up(values: Floats, n: int) -> float:
    total = 0.0
    for k in range(n):
        total += values[k]
    return total


@compiled
def _soft_drop(nodes: Floats, links: Integers, node: int, n: int, z_cut: float, out: Floats) -> None:
    """Groomed mass and z of the first Cambridge/Aachen splitting with z > `z_cut`, following the harder branch."""
    while node >= n:
        harder, softer = links[node, 0], links[node, 1]
        if nodes[harder, _PT2] < nodes[softer, _PT2]:
            harder, softer = softer, harder
        pt_harder, pt_softer = math.sqrt(nodes[harder, _PT2]), math.sqrt(nodes[softer, _PT2])
        if pt_softer > z_cut * (pt_harder + pt_softer):
            out[_Z_G] = pt_softer / (pt_harder + pt_softer)
            break
        node = harder
    pz, e = nodes[node, _PZ], nodes[node, _E]
    out[_M_SD] = math.sqrt(max(0.0, (e + pz) * (e - pz) - nodes[node, _PT2]))


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
