"""The way of particles through the tracker: straight or on helices, to the cylinder where the calorimeters begin."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# A charge of one in 1 T bends 0.3 GeV of transverse momentum on a radius of 1 m (the speed of light in m/ns).
GEV_PER_TESLA_METRE = 0.299792458


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """A cylinder around the beam, in a field along it."""

    radius: float
    """m."""
    half_length: float
    """m."""
    field: float
    """T."""


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """Particles where they leave the tracker, n of them."""

    index: NDArray[np.intp]
    """Which of the given particles arrive."""
    eta: Floats
    """Of the place, seen from the centre."""
    phi: Floats
    """Of the place."""
    track_phi: Floats
    """Of the momentum: where the track comes closest to the beam if it is charged, else where it began."""


def propagate(tracker: Tracker, momenta: Floats, origins: Floats, charges: Floats) -> Arrivals:
    """Lead particles from `origins` (n, 3; mm) to the tracker's surface.

    `momenta` (n, 3) in GeV, `charges` (n,) in units of the proton's. A particle that begins outside, as the daughter
    of a long-lived one, is lost.
    """
    starts = origins * 1e-3
    pt = np.hypot(momenta[:, 0], momenta[:, 1])
    inside = (np.hypot(starts[:, 0], starts[:, 1]) < tracker.radius) & (
        np.abs(starts[:, 2]) < tracker.half_length
    )
    index = np.flatnonzero(inside & (pt > 3e-5))
    momenta, starts, charges, pt = momenta[index], starts[index], charges[index], pt[index]
    places = np.empty_like(starts)
    track_phi = np.arctan2(momenta[:, 1], momenta[:, 0])
    bent = charges != 0
    straight = ~bent
    places[straight] = _straight(tracker, momenta[straight], starts[straight], pt[straight])
    places[bent], track_phi[bent] = _helix(
        tracker, momenta[bent], starts[bent], charges[bent], pt[bent], track_phi[bent]
    )
    rho = np.hypot(places[:, 0], places[:, 1])
    return Arrivals(
        index=index,
        eta=np.arcsinh(places[:, 2] / rho),
        phi=np.arctan2(places[:, 1], places[:, 0]),
        track_phi=track_phi,
    )


def _straight(tracker: Tracker, momenta: Floats, starts: Floats, pt: Floats) -> Floats:
    """Where straight lines leave: lengths are counted in the transverse plane."""
    direction = momenta / pt[:, None]
    along = (starts[:, :2] * direction[:, :2]).sum(axis=1)
    across = starts[:, 0] * direction[:, 1] - starts[:, 1] * direction[:, 0]
    to_side = np.sqrt(tracker.radius**2 - across**2) - along
    length = np.minimum(to_side, _length_to_end(tracker, starts[:, 2], direction[:, 2]))
    places: Floats = starts + direction * length[:, None]
    return places


def _helix(
    tracker: Tracker, momenta: Floats, starts: Floats, charges: Floats, pt: Floats, phi: Floats
) -> tuple[Floats, Floats]:
    """Where helices leave, and the direction of each where its circle comes closest to the beam."""
    # A positive radius turns clockwise, phi falling along the way.
    radius = pt / (GEV_PER_TESLA_METRE * tracker.field * charges)
    sense, size = np.sign(radius), np.abs(radius)
    centre_x = starts[:, 0] + radius * np.sin(phi)
    centre_y = starts[:, 1] - radius * np.cos(phi)
    centre = np.hypot(centre_x, centre_y)
    bearing = np.arctan2(centre_y, centre_x)

    # The circle is at the tracker's radius where sin(bearing - phi) has this value; beyond one it never is.
    reach = (tracker.radius**2 - centre**2 - radius**2) / (2 * radius * centre)
    leaves = np.abs(reach) <= 1
    angle = np.arcsin(np.where(leaves, reach, 0.0))
    turns = [(sense * (phi - bearing + way)) % (2 * np.pi) for way in (angle, np.pi - angle)]
    turn_to_side = np.where(leaves, np.minimum(*turns), np.inf)
    slope = momenta[:, 2] / pt
    turn = np.minimum(turn_to_side, _length_to_end(tracker, starts[:, 2], slope) / size)

    now = phi - sense * turn
    places = np.column_stack(
        [
            centre_x - radius * np.sin(now),
            centre_y + radius * np.cos(now),
            starts[:, 2] + slope * size * turn,
        ]
    )
    return places, np.arctan2(sense * centre_x, -sense * centre_y)


def _length_to_end(tracker: Tracker, z: Floats, slope: Floats) -> Floats:
    """Transverse length after which a particle at `z` with this dz per transverse length meets an end's disc."""
    steep = np.where(slope == 0, 1e-300, slope)
    length: Floats = (np.copysign(tracker.half_length, steep) - z) / steep
    return length
