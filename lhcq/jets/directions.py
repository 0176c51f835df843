"""Rapidity and azimuth of a momentum in each lane, and the distance of two directions, rounded as FastJet does."""

import math
from typing import Any

from lhcq.jets.desk import BLOCK, N_PARTICLES, N_SECTORS
from lhcq.jets.exact import angle_of, log_of
from lhcq.jets.lanes import (
    Vector,
    apart,
    choose,
    fused,
    inlined,
    int_row,
    least,
    look_up_four,
    magnitude,
    numbers,
    put_int_row,
    put_row,
    reals_as_bits,
)

# Rapidity of a momentum along the beam: FastJet's `MaxRap`, to which it adds |pz| so that no two are alike.
_MAX_RAPIDITY = 1e5
_TO_INTEGER = 1.5 * 2.0**52  # added to a small number it leaves the nearest integer in the last bits
_INTEGER_BITS = 0x4338000000000000  # its own


@inlined
def directions_of(px: Vector, py: Vector, pz: Vector, e: Vector, by_libm: int, scratch: int) -> Any:
    """pt^2, rapidity and azimuth of a momentum in each lane, rounded as FastJet does."""
    pt2 = px * px + py * py
    phi = angle_of(py, px, by_libm, scratch)
    phi = choose(phi < 0.0, phi + 2 * math.pi, phi)
    phi = choose(pt2 > 0.0, phi, 0.0)
    m2 = (e + pz) * (e - pz) - pt2
    m2 = choose(m2 > 0.0, m2, 0.0)
    p_plus = e + magnitude(pz)
    rap = log_of((pt2 + m2) / (p_plus * p_plus), by_libm, scratch) * -0.5
    along = (pt2 == 0.0) & (e == magnitude(pz))
    rap = choose(along, magnitude(pz) + _MAX_RAPIDITY, rap)
    return pt2, choose(pz > 0.0, rap, 0.0 - rap), phi


@inlined
def separations(rap1: Vector, phi1: Vector, rap2: Vector, phi2: Vector) -> Any:
    """Delta R squared in rapidity and azimuth."""
    along, around = rap1 - rap2, magnitude(phi1 - phi2)
    around = least(around, 2 * math.pi - around)
    return along * along + around * around


@apart
def set_directions(desk: Any, n_most: int, by_libm: int) -> None:
    """The directions of all particles and their sectors of azimuth, once their momenta are there."""
    n_particles = int_row(desk.notes, N_PARTICLES)
    place = numbers() * (2 * desk.most)
    for slot in range(n_most + BLOCK - 1):
        filled = n_particles > slot
        # where there is none, an ordinary momentum costs least
        px, py, pz, e = look_up_four(desk.momenta, choose(filled, place + slot, 0))
        px, py, pz, e = (
            choose(filled, px, 2.0),
            choose(filled, py, 2.0),
            choose(filled, pz, 2.0),
            choose(filled, e, 4.0),
        )
        pt2, rap, phi = directions_of(px, py, pz, e, by_libm, desk.scratch)
        put_row(desk.particle_pt2, slot, pt2)
        put_row(desk.particle_rap, slot, rap)
        put_row(desk.particle_phi, slot, phi)
        sector = reals_as_bits(fused(phi, N_SECTORS / (2 * math.pi), -0.5) + _TO_INTEGER) - _INTEGER_BITS
        sector = choose(sector < N_SECTORS, sector, N_SECTORS - 1)
        put_int_row(desk.sector, slot, choose(filled, sector, N_SECTORS))
