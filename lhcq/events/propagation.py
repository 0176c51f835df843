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


def propagate(
    tracker: Tracker, pt: Floats, eta: Floats, phi: Floats, charge: Floats
) -> tuple[Floats, Floats]:
    """Eta and phi of the places where particles from the centre leave the tracker, (n,) each.

    `pt` in GeV, above zero; `charge` in units of the proton's.
    """
    bent = np.flatnonzero(charge)
    place_eta, place_phi = eta.copy(), phi.copy()
    sense = np.sign(charge[bent])  # a positive charge turns clockwise, phi falling along the way
    diameter = 2 * pt[bent] / (GEV_PER_TESLA_METRE * tracker.field * np.abs(charge[bent]))
    slope = np.sinh(eta[bent])

    # The circle of a soft particle does not reach the side.
    reach = tracker.radius / diameter
    to_side = np.where(reach <= 1, np.arcsin(np.minimum(reach, 1.0)), np.inf)
    to_end = tracker.half_length / (diameter * np.maximum(np.abs(slope), 1e-12))
    half_turn = np.minimum(to_side, to_end)

    # Seen from the centre: a chord, on the other side after each full turn.
    chord = diameter * np.sin(half_turn)
    place_eta[bent] = np.arcsinh(slope * diameter * half_turn / np.maximum(np.abs(chord), 1e-12))
    place_phi[bent] = phi[bent] - sense * half_turn + np.where(chord < 0, np.pi, 0.0)
    return place_eta, (place_phi + np.pi) % (2 * np.pi) - np.pi
