"""Events that can be read and hardly be meant: other units, or another order of columns, than lhcq reads."""

import math

import numpy as np
from numpy.typing import NDArray

SAMPLE = 200
"""Events that are looked at: what is read wrongly is so in all."""
_BEAM = 7_000.0
"""GeV: more pt than that has no particle of the LHC."""
_TURNS = 2 * 2 * math.pi
"""Radians that no convention and no rotation of an event goes beyond."""
_NEARLY_PI = 3.0
"""What some of a hundred particles' phi are beyond, in any convention."""
_FEWEST = 1_000
"""Particles below which columns are not told by what they reach."""


def find_oddities(values: NDArray[np.float64]) -> list[str]:
    """What looks wrong with events, a sentence each, by the values (n, 2100 or 2101) of some of them.

    Not an error: each is what the numbers reach, and somebody may mean that.
    """
    particles = values[:, : values.shape[1] // 3 * 3].reshape(-1, 3)
    pt, eta, phi = particles[(particles[:, 0] > 0) & np.isfinite(particles).all(axis=1)].T
    if not len(pt):
        return []
    found = []
    if pt.max() > _BEAM:
        found.append(
            f"pt reaches {pt.max():,.0f} GeV, more than a beam of the LHC has. lhcq reads GeV: divide MeV by 1,000."
        )
    if np.abs(phi).max() > _TURNS:
        found.append(
            f"phi reaches {np.abs(phi).max():,.4g}. lhcq reads radians: multiply degrees by pi / 180."
        )
    elif len(pt) >= _FEWEST and _is_angle(eta) and not _is_azimuth(phi):
        found.append(
            f"the second column ends at {np.abs(eta).max():.4f}, as phi does, and the third one does not. lhcq reads "
            "pt, eta, phi in this order."
        )
    return found


def _is_angle(values: NDArray[np.float64]) -> bool:
    """Whether values fill [-pi, pi] and leave it nowhere."""
    return _NEARLY_PI < float(np.abs(values).max()) <= math.pi + 1e-3


def _is_azimuth(phi: NDArray[np.float64]) -> bool:
    """Whether values can be azimuths of many particles, from -pi or from 0 on."""
    return float(np.abs(phi).max()) > _NEARLY_PI and float(phi.min()) > -math.pi - 1e-3
