"""Four-vectors of many events in flat columns, and the kinematics on them.

Everything here works element by element in float64, with no sum over a batch and no matrix product, so that
the bits of an event do not depend on its neighbours.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_ETA = 1e5
"""FastJet's `MaxRap`."""


@dataclass(frozen=True, kw_only=True)
class FourVectors:
    """px, py, pz, e (GeV) of all events one after the other; `counts` (n_events,) says how many each has.

    What is computed of them is kept, so nobody may change them.
    """

    counts: Integers
    px: Floats
    py: Floats
    pz: Floats
    e: Floats

    @cached_property
    def offsets(self) -> Integers:
        """Where each event starts, and the end of the last one: (n_events + 1,)."""
        return offsets_of(self.counts)

    @cached_property
    def pt(self) -> Floats:
        """Transverse momentum, GeV."""
        return np.sqrt(self.px * self.px + self.py * self.py)

    @cached_property
    def phi(self) -> Floats:
        """Azimuth in [-pi, pi]."""
        return np.arctan2(self.py, self.px)

    @cached_property
    def eta(self) -> Floats:
        """Pseudorapidity; along the beam FastJet's largest one, 1e5, and 0.0 of no momentum at all."""
        pt = self.pt
        lost = pt == 0.0  # the square of a pt below 1e-162 is no number any more
        if lost.any():
            pt = pt.copy()
            pt[lost] = np.hypot(self.px[lost], self.py[lost])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            eta = np.arcsinh(self.pz / pt)
        beyond = ~np.isfinite(eta)
        eta[beyond] = np.sign(self.pz[beyond]) * MAX_ETA
        return eta

    @cached_property
    def m(self) -> Floats:
        """Invariant mass, GeV; 0.0 where rounding makes its square negative."""
        # (E+pz)(E-pz) keeps the digits that E^2 - pz^2 loses for a forward jet.
        square = (self.e + self.pz) * (self.e - self.pz) - (self.px * self.px + self.py * self.py)
        return np.sqrt(np.maximum(square, 0.0))

    @classmethod
    def massless(cls, particles: Floats, counts: Integers | None = None, *, fleeting: bool = False) -> Self:
        """From `particles` (n_events, n_slots, 3) of (pt in GeV, eta, phi); pt == 0 is padding.

        `counts` (n_events,) are the slots that are no padding, where somebody counted them. What is `fleeting` stands
        where this thread's next fleeting one will.
        """
        from lhcq.jets.compiling import room_of
        from lhcq.jets.lanes import N_LANES
        from lhcq.jets.libm import lanes_for_libm
        from lhcq.jets.momenta import count_filled, to_momenta

        particles = np.asarray(particles, np.float64)  # single precision moves a jet's mass by 0.1 GeV
        if particles.strides[1:] != (24, 8):
            particles = np.ascontiguousarray(particles)
        n_events, n_slots, _ = particles.shape
        first, stride = particles.ctypes.data, particles.strides[0]
        if counts is None:
            counts = np.empty(n_events, np.int64)
            count_filled(first, stride, n_slots, counts)
        n = int(counts.sum())
        size, room = 4 * (n + N_LANES - 1), room_of("functions", 4 * N_LANES)
        momenta = (room_of("momenta", size)[:size] if fleeting else np.empty(size)).reshape(4, -1)
        by_libm = lanes_for_libm("circular"), lanes_for_libm("hyperbolic")
        to_momenta(first, stride, counts, *by_libm, room, *momenta)
        px, py, pz, e = momenta[:, :n]
        return cls(counts=counts, px=px, py=py, pz=pz, e=e)


def offsets_of(counts: Integers) -> Integers:
    """The (n + 1,) offsets of a list with these `counts` (n,)."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def delta_phi(first: Floats, second: Floats) -> Floats:
    """Difference of two azimuths, wrapped into [-pi, pi]."""
    difference = first - second
    turns = np.rint(difference / (2 * np.pi))
    return np.asarray(difference - turns * (2 * np.pi), dtype=np.float64)
