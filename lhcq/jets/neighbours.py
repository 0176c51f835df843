"""What is known of each particle's nearest neighbour before anything merges.

A few particles are all compared with each other. More are sorted into sectors of azimuth, and each is compared with
the sixteen before and after it:

        sectors   |   .  . |  .. .   | .  .   . |    .    |  ..  .  |         azimuth -->
                      '----------------'-----------------'
                          sixteen before   o   sixteen after
                  ^                                        ^
                  no other is nearer in azimuth than these edges

Whoever is found nearer than the edges, and alone, is the nearest neighbour. Otherwise there is none within the
distance to the edges, and the neighbour is looked for when its turn comes, which mostly never does. Azimuth goes
around, so the first particles stand once more behind the last ones, and the last before the first.
"""

import math
from typing import Any

from lhcq.jets.desk import N_PARTICLES, N_SECTORS, PAD, WINDOW, count_of, spare_slot
from lhcq.jets.directions import separations
from lhcq.jets.lanes import (
    N_LANES,
    apart,
    choose,
    get,
    get_int,
    inlined,
    int_row,
    least,
    lower,
    put,
    put_int,
    put_int_row,
    put_row,
    row,
    spread,
)

BEYOND = 1e300  # farther than any pair, heavier than any weight
# Instead of a nearest neighbour: the beam is nearer than any; or it is not known.
BEAM, UNKNOWN = -1, -2
_FEW = 80  # particles that sorting does not pay for
_SECTOR = 2 * math.pi / N_SECTORS
_ROUNDING = 1e-9  # of edges and of azimuths that go around, and more


@apart
def find_neighbours(desk: Any, n_most: int, limit: float) -> None:
    """The nearest neighbour of each particle or, where it is not certain, a distance below which there is none.

    Neither is beyond R^2 = `limit`, where the beam is nearer.
    """
    if n_most <= _FEW:
        _compare_all(desk, n_most, limit)
        return
    _sort_by_sectors(desk, n_most)
    n_least = n_most
    for lane in range(desk.n_lanes):
        n = count_of(desk, lane)
        if n > 0:
            n_least = lower(n_least, n)
            _close_circle(desk, lane, n)
    # No further around: whoever comes again hides that another is as near.
    window = lower(WINDOW, n_least // 2)
    _compare_in_order(desk, n_most, window, limit)


@inlined
def _compare_all(desk: Any, n_most: int, limit: float) -> None:
    """Compare each particle with all others, in the order of slots."""
    n_particles = int_row(desk.notes, N_PARTICLES)
    for slot in range(n_most):
        rap, phi = row(desk.particle_rap, slot), row(desk.particle_phi, slot)
        nearest, near, latest = spread(limit), spread(BEAM), spread(BEAM)
        for begin, end in ((0, slot), (slot + 1, n_most)):
            for other in range(begin, end):
                this = separations(rap, phi, row(desk.particle_rap, other), row(desk.particle_phi, other))
                this = choose(n_particles > other, this, BEYOND)
                latest = choose(this <= nearest, other, latest)
                near = choose(this < nearest, other, near)
                nearest = least(this, nearest)
        put_row(desk.particle_distance, slot, nearest)
        put_int_row(
            desk.particle_near, slot, choose(near == latest, near, UNKNOWN)
        )  # of two as near: who asks finds out


@inlined
def _sort_by_sectors(desk: Any, n_most: int) -> None:
    """Count the particles of each sector, then put each where those of the sectors before it end."""
    for sector in range(N_SECTORS + 1):
        put_int_row(desk.sectors, sector, spread(0))
    for at in range(N_LANES * n_most):
        place = N_LANES * get_int(desk.sector, at) + (at & (N_LANES - 1))
        put_int(desk.sectors, place, get_int(desk.sectors, place) + 1)
    total = spread(PAD)
    for sector in range(N_SECTORS + 1):
        n_here = int_row(desk.sectors, sector)
        put_int_row(desk.sectors, sector, total)
        total = total + n_here
    for slot in range(n_most):
        for lane in range(desk.n_lanes):
            at = N_LANES * slot + lane
            sector = get_int(desk.sector, at)
            place = get_int(desk.sectors, N_LANES * sector + lane)
            put_int(desk.sectors, N_LANES * sector + lane, place + 1)
            there = N_LANES * place + lane
            put(desk.sorted_rap, there, get(desk.particle_rap, at))
            put(desk.sorted_phi, there, get(desk.particle_phi, at))
            put(desk.sorted_edge, there, sector * _SECTOR)
            put_int(desk.sorted_slot, there, slot)


@inlined
def _close_circle(desk: Any, lane: int, n: int) -> None:
    """The last particles of a lane before the first, and the first ones behind the last."""
    for pad in range(PAD):
        _copy_around(desk, lane, PAD + n + pad, PAD + pad % n, 2 * math.pi * (1 + pad // n))
        _copy_around(desk, lane, PAD - 1 - pad, PAD + n - 1 - pad % n, -2 * math.pi * (1 + pad // n))


@inlined
def _copy_around(desk: Any, lane: int, to: int, place: int, turns: float) -> None:
    here, there = N_LANES * place + lane, N_LANES * to + lane
    put(desk.sorted_rap, there, get(desk.sorted_rap, here))
    put(desk.sorted_phi, there, get(desk.sorted_phi, here))
    put(desk.sorted_edge, there, get(desk.sorted_edge, here) + turns)
    put_int(desk.sorted_slot, there, get_int(desk.sorted_slot, here))


@inlined
def _compare_in_order(desk: Any, n_most: int, window: int, limit: float) -> None:
    """Compare each particle with `window` before and after it; all others are beyond the next ones."""
    n_particles = int_row(desk.notes, N_PARTICLES)
    for index in range(PAD, PAD + n_most):
        rap, phi = row(desk.sorted_rap, index), row(desk.sorted_phi, index)
        nearest, near, latest = spread(BEYOND), spread(UNKNOWN), spread(UNKNOWN)
        for step in range(1, window + 1):
            for side in (index - step, index + step):
                this = separations(rap, phi, row(desk.sorted_rap, side), row(desk.sorted_phi, side))
                latest = choose(this <= nearest, int_row(desk.sorted_slot, side), latest)
                near = choose(this < nearest, int_row(desk.sorted_slot, side), near)
                nearest = least(this, nearest)
        after = row(desk.sorted_edge, index + window + 1) - phi
        before = phi - (row(desk.sorted_edge, index - window - 1) + _SECTOR)
        beyond = least(after, before) - _ROUNDING
        bound = choose(beyond > 0.0, beyond * beyond, 0.0)
        near = choose((nearest <= bound) & (near == latest), near, UNKNOWN)
        near = choose((nearest >= limit) & (bound >= limit), BEAM, near)
        put_row(desk.scratch, 0, least(least(nearest, bound), limit))
        put_int_row(desk.scratch, 1, near)
        there = choose(n_particles > index - PAD, int_row(desk.sorted_slot, index), spare_slot(desk))
        put_int_row(desk.scratch, 2, there)
        for lane in range(desk.n_lanes):
            at = N_LANES * get_int(desk.scratch, 2 * N_LANES + lane) + lane
            put(desk.particle_distance, at, get(desk.scratch, lane))
            put_int(desk.particle_near, at, get_int(desk.scratch, N_LANES + lane))
