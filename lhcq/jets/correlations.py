"""The energy correlators e2 and e3 of a jet at beta = 1 (arXiv:1305.0007), the sums over its pairs and triples.

With A_ij = R_ij sqrt(pt_i pt_j) the product of A around a triangle is pt_i pt_j pt_k R_ij R_jk R_ik, so e3 is the sum
over all triangles i > j > k of A_ij A_jk A_ik. A is kept below its diagonal and is zero elsewhere:

           k: 0 1 2 3 4 ...
      i = 0   0 0 0 0 0            for each i:  row_k = sum over j < i of A_ij A_jk, a line of A for each j
      i = 1   A 0 0 0 0                         sum_k = sum_k + row_k A_ik
      i = 2   A A 0 0 0            e3 = sum_0 + sum_1 + ...
      i = 3   A A A 0 0

A lane is a k here, not a jet, for a jet's matrix fits the nearest cache, which those of several jets do not. Four i
are done at once: four sums that do not wait for each other, and one line of A for all of them. A zero added to a sum
that is not negative changes no bit, so the zeros above the diagonal need no care.
"""

from typing import Any

from lhcq.jets.directions import separations
from lhcq.jets.lanes import N_LANES, choose, get, inlined, lower, numbers, put, put_row, root, row, spread

_LINES = 4  # of the matrix at once


def columns_for(most: int) -> int:
    """Columns of the matrix of a jet of at most `most` particles: whole vectors."""
    return (most + N_LANES - 1) // N_LANES * N_LANES


def room_to_correlate(most: int) -> int:
    """Doubles that `correlate` takes for a jet of at most `most` particles."""
    return (4 + most + _LINES - 1) * columns_for(most)


_columns_for = inlined(columns_for)


@inlined
def add_up(values: int, n: int) -> Any:
    """The sum of `n` doubles from an address on, from the first to the last."""
    total = 0.0
    for k in range(n):
        total += get(values, k)
    return total


@inlined
def correlate(desk: Any, lane: int, n: int, room: int) -> Any:
    """e2 and e3 of a lane's particles, normalised by the sum of pt, and that sum; in `room_to_correlate` doubles."""
    columns = _columns_for(n)
    rap, phi = room, room + 8 * columns
    pt, sums, matrix = phi + 8 * columns, phi + 16 * columns, phi + 24 * columns
    for k in range(n):
        put(rap, k, get(desk.particle_rap, N_LANES * k + lane))
        put(phi, k, get(desk.particle_phi, N_LANES * k + lane))
        put(pt, k, get(desk.particle_pt2, N_LANES * k + lane))
    for chunk in range(columns // N_LANES):
        put_row(pt, chunk, root(row(pt, chunk)))
        put_row(sums, chunk, spread(0.0))
    total = add_up(pt, n)
    for chunk in range(columns // N_LANES):
        put_row(pt, chunk, root(row(pt, chunk)))
    for i in range(n + _LINES - 1):  # the lines after the last are zero
        line, last = matrix + 8 * columns * i, i if i < n else 0
        rap_i, phi_i, pt_i = spread(get(rap, i)), spread(get(phi, i)), spread(get(pt, i))
        for chunk in range((last + N_LANES - 1) // N_LANES):
            weight = pt_i * row(pt, chunk)
            side = root(separations(rap_i, phi_i, row(rap, chunk), row(phi, chunk))) * weight
            inside = numbers() + N_LANES * chunk < last
            put_row(line, chunk, choose(inside, side, 0.0))
            put_row(sums, chunk, choose(inside, row(sums, chunk) + side * weight, row(sums, chunk)))
        for chunk in range((last + N_LANES - 1) // N_LANES, columns // N_LANES):
            put_row(line, chunk, spread(0.0))
    e2 = add_up(sums, n) / (total * total)
    for chunk in range(columns // N_LANES):
        put_row(sums, chunk, spread(0.0))
    step = 8 * columns
    for i in range(0, n, _LINES):
        line = matrix + step * i
        for chunk in range((i + _LINES - 2) // N_LANES + 1):
            one, two, three, four = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
            for j in range(N_LANES * chunk + 1, lower(i + _LINES - 1, n)):
                other = row(matrix + step * j, chunk)
                one = one + get(line, j) * other
                two = two + get(line + step, j) * other
                three = three + get(line + 2 * step, j) * other
                four = four + get(line + 3 * step, j) * other
            triangles = row(sums, chunk) + one * row(line, chunk)
            triangles = triangles + two * row(line + step, chunk)
            triangles = triangles + three * row(line + 2 * step, chunk)
            put_row(sums, chunk, triangles + four * row(line + 3 * step, chunk))
    return e2, add_up(sums, n) / (total * total * total), total
