"""A calorimeter of towers: what it measures, and how that and the tracks are made into one account of the energy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Towers in eta and phi, numbered by eta, then by phi from -pi on."""

    edges: Floats
    """Of the k rings in eta (k + 1,), rising."""
    divisions: Indices
    """Towers in each ring (k,)."""
    first: Indices
    """Number of each ring's first tower (k,)."""

    @classmethod
    def of(cls, rings: Sequence[tuple[float, float, int]]) -> "Grid":
        """From the adjoining rings: their lower and upper edge and their number of towers."""
        divisions = np.array([count for _, _, count in rings], dtype=np.intp)
        return cls(
            edges=np.array([rings[0][0], *(upper for _, upper, _ in rings)]),
            divisions=divisions,
            first=np.concatenate([[0], np.cumsum(divisions)[:-1]]).astype(np.intp),
        )

    @property
    def centres(self) -> Floats:
        """Eta in the middle of each ring (k,)."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    def tower_of(self, eta: Floats, phi: Floats) -> Indices:
        """The tower at each place; -1 outside the grid."""
        ring = np.searchsorted(self.edges, eta) - 1
        outside = (ring < 0) | (ring >= len(self.divisions))
        ring = np.where(outside, 0, ring)
        count = self.divisions[ring]
        step = ((phi + np.pi) / (2 * np.pi) * count).astype(np.intp)
        return np.where(outside, -1, self.first[ring] + np.clip(step, 0, count - 1))

    def ring_of(self, tower: Indices) -> Indices:
        """The ring of each tower."""
        return np.searchsorted(self.first, tower, side="right") - 1

    def place_in(self, tower: Indices, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """A random eta and phi inside each tower."""
        ring = self.ring_of(tower)
        low, high = self.edges[ring], self.edges[ring + 1]
        step = tower - self.first[ring]
        eta_share, phi_share = rng.random((2, len(tower)))
        return low + (high - low) * eta_share, -np.pi + 2 * np.pi * (step + phi_share) / self.divisions[ring]


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """Tracks that point to towers, n of them."""

    tower: Indices
    energy: Floats
    """GeV."""
    resolution: Floats
    """Standard deviation of the energy over the energy."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a calorimeter adds to the tracks."""

    scale: Floats
    """By which each track's momentum is to be multiplied."""
    energy: Floats
    """GeV, of the neutral towers."""
    eta: Floats
    phi: Floats


@dataclass(frozen=True, kw_only=True)
class Calorimeter:
    """Towers with a resolution sqrt((constant E)^2 + stochastic^2 E + noise^2), E in GeV, by ring."""

    grid: Grid
    constant: Floats
    stochastic: Floats
    noise: Floats
    energy_min: float
    """GeV; less is not seen."""
    significance_min: float
    """Energy over its resolution; less is not seen."""

    def sigma(self, energy: Floats, ring: Indices) -> Floats:
        """Resolution (GeV) of towers with these energies in these rings."""
        variance: Floats = (
            (self.constant[ring] * energy) ** 2 + self.stochastic[ring] ** 2 * energy + self.noise[ring] ** 2
        )
        return np.sqrt(variance)

    def measure(self, tower: Indices, energy: Floats, tracks: Tracks, rng: np.random.Generator) -> Account:
        """Measure deposits, and settle the accounts of each tower with the tracks that point to it.

        `tower` (n,) and `energy` (n,; GeV) are the deposits. What a tower measures above its tracks, if significant,
        is a neutral particle somewhere inside it. If not, its tracks are scaled, so that they have together the
        mean of both measurements, weighted by their precisions.
        """
        towers, place = np.unique(np.concatenate([tower, tracks.tower]), return_inverse=True)
        n, hit, track = len(towers), place[: len(tower)], place[len(tower) :]
        ring = self.grid.ring_of(towers)
        true = _summed(hit, energy, n)
        charged = _summed(track, tracks.energy, n)
        track_variance = _summed(track, (tracks.resolution * tracks.energy) ** 2, n)

        seen = smear(true, self.sigma(true, ring), rng)
        sigma = self.sigma(seen, ring)
        seen[(seen < self.energy_min) | (seen < self.significance_min * sigma)] = 0.0
        eta, phi = self.grid.place_in(towers, rng)

        excess = np.maximum(seen - charged, 0.0)
        significant = excess > self.significance_min * np.sqrt(track_variance + sigma**2)
        neutral = significant & (excess > self.energy_min)
        scale = np.where(neutral, 1.0, _combined(charged, track_variance, seen, sigma**2))
        return Account(scale=scale[track], energy=excess[neutral], eta=eta[neutral], phi=phi[neutral])


def _summed(group: Indices, values: Floats, n_groups: int) -> Floats:
    return np.bincount(group, weights=values, minlength=n_groups).astype(np.float64)


def smear(values: Floats, sigma: Floats, rng: np.random.Generator) -> Floats:
    """Positive random numbers with these means and standard deviations, log-normal; zero where the mean is zero."""
    safe = np.where(values > 0, values, 1.0)
    width = np.sqrt(np.log1p((sigma / safe) ** 2))
    smeared: Floats = values * np.exp(width * rng.standard_normal(len(values)) - width**2 / 2)
    return smeared


def _combined(charged: Floats, charged_variance: Floats, seen: Floats, seen_variance: Floats) -> Floats:
    """The weighted mean of two measurements of each tower's energy, over the first; one where there is nothing."""
    both = charged_variance + seen_variance
    usable = (charged > 0) & (both > 0)
    mean = (charged * seen_variance + seen * charged_variance) / np.where(usable, both, 1.0)
    # Without any resolution of its own a tower below threshold says nothing.
    mean = np.where(seen_variance > 0, mean, charged)
    return np.where(usable, mean / np.where(usable, charged, 1.0), 1.0)
