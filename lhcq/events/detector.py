"""The response of a CMS-like detector: tracks, electromagnetic and hadronic towers, and particle flow.

The R&D set was made with Delphes 3.4.1, and with its CMS card: in the released events the smallest energy in each
region of eta is, to a thousandth, the threshold of that card (photons 0.825 GeV at eta 0 and 18.14 GeV beyond 3;
neutral hadrons 2.256 and 7.415 GeV), and the particles stand as tracks, neutral hadrons and photons, each ordered
by that card's towers. This module follows the card's numbers and the method that Delphes describes
(arXiv:1307.6346, sections 2 and 3). Isolation, jets and identification are not needed here.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lhcq.events.calorimeter import Calorimeter, Grid, Tracks, smear
from lhcq.events.propagation import Tracker, propagate

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

TRACKER = Tracker(radius=1.29, half_length=3.0, field=3.8)

_HADRON, _ELECTRON, _MUON = range(3)
# Share of tracks found: by kind; |eta| up to 1.5, up to 2.5, above; pt (GeV) up to 0.1, up to 1, up to 100, above.
_EFFICIENCY = np.array(
    [
        [[0, 0.70, 0.95, 0.95], [0, 0.60, 0.85, 0.85], [0, 0, 0, 0]],
        [[0, 0.73, 0.95, 0.99], [0, 0.50, 0.83, 0.90], [0, 0, 0, 0]],
        [[0, 0.75, 0.99, 0.99], [0, 0.70, 0.98, 0.98], [0, 0, 0, 0]],
    ]
)
_EFFICIENCY_ETA = (1.5, 2.5)
_EFFICIENCY_PT = (0.1, 1.0, 100.0)
# Resolution of a track, a (+) b pt, over pt (GeV): by kind and |eta| up to 0.5, up to 1.5, up to 2.5.
_RESOLUTION = np.array(
    [
        [[0.06, 1.3e-3], [0.10, 1.7e-3], [0.25, 3.1e-3]],
        [[0.03, 1.3e-3], [0.05, 1.7e-3], [0.15, 3.1e-3]],
        [[0.01, 1.0e-4], [0.015, 1.5e-4], [0.025, 3.5e-4]],
    ]
)
_RESOLUTION_ETA = (0.5, 1.5)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The visible stable particles of an event, n of them."""

    pdg: NDArray[np.int64]
    charge: Floats
    momentum: Floats
    """(n, 4): px, py, pz, E in GeV."""

    @property
    def directions(self) -> tuple[Floats, Floats, Floats]:
        """pt (GeV), eta, phi, (n,) each."""
        px, py, pz, _ = self.momentum.T
        pt = np.hypot(px, py)
        return pt, np.arcsinh(pz / np.maximum(pt, 1e-12)), np.arctan2(py, px)


def respond(truth: Truth, rng: np.random.Generator) -> Floats:
    """What the detector makes of an event: pt (GeV), eta, phi (m, 3) of massless particles.

    First tracks, then neutral hadrons, then photons, as in the released files. May be empty. Every particle is taken
    to come from the centre: what decays on the way to the calorimeters has to be decayed before, or not at all.
    """
    pdg, charge, energy = np.abs(truth.pdg), truth.charge, truth.momentum[:, 3]
    pt, eta, phi = truth.directions
    place_eta, place_phi = propagate(TRACKER, pt, eta, phi, charge)
    electromagnetic = (pdg == 11) | (pdg == 22) | (pdg == 111)
    muon = pdg == 13
    kind = np.where(pdg == 11, _ELECTRON, np.where(muon, _MUON, _HADRON))

    tracks = _found(kind, charge, pt, place_eta, rng)
    tracks = tracks[np.argsort(kind[tracks], kind="stable")]
    track_kind, track_eta = kind[tracks], eta[tracks]
    resolution = _track_resolution(track_kind, pt[tracks], place_eta[tracks])
    track_pt = smear(pt[tracks], resolution * pt[tracks], rng)
    track_cosh = np.cosh(track_eta)

    keys, neutrals = [], []
    for calorimeter, leaves, track_leaves in (
        (ECAL, electromagnetic, track_kind == _ELECTRON),
        (HCAL, ~electromagnetic & ~muon, track_kind == _HADRON),
    ):
        tower = calorimeter.grid.tower_of(place_eta, place_phi)
        hit = leaves & (tower >= 0)
        pointing = Tracks(
            tower=tower[tracks][track_leaves],
            energy=(track_pt * track_cosh)[track_leaves],
            resolution=resolution[track_leaves],
        )
        account = calorimeter.measure(tower[hit], energy[hit], pointing, rng)
        track_pt[track_leaves] *= account.scale
        neutrals.append(np.column_stack([account.energy / np.cosh(account.eta), account.eta, account.phi]))
        keys += [track_leaves, tower[tracks]]
    flow = np.column_stack([track_pt, track_eta, phi[tracks]])[np.lexsort(keys)]
    photons, hadrons = neutrals
    return np.concatenate([flow, hadrons, photons])


def _found(kind: Indices, charge: Floats, pt: Floats, eta: Floats, rng: np.random.Generator) -> Indices:
    """Which particles leave a track."""
    charged = np.flatnonzero(charge)
    region = np.searchsorted(_EFFICIENCY_ETA, np.abs(eta[charged]))
    share = _EFFICIENCY[kind[charged], region, np.searchsorted(_EFFICIENCY_PT, pt[charged])]
    return charged[rng.random(len(charged)) < share]


def _track_resolution(kind: Indices, pt: Floats, eta: Floats) -> Floats:
    """Standard deviation of pt over pt, at most one."""
    region = np.searchsorted(_RESOLUTION_ETA, np.abs(eta))
    constant, linear = _RESOLUTION[kind, region].T
    relative: Floats = np.minimum(np.hypot(constant, linear * pt), 1.0)
    return relative


def _rings(edges: list[float], divisions: int) -> list[tuple[float, float, int]]:
    return [(low, high, divisions) for low, high in itertools.pairwise(edges)]


def _mirrored(edges: list[float]) -> list[float]:
    return [-edge for edge in reversed(edges)]


def _ecal() -> Calorimeter:
    """Crystals of 0.0174 in eta and one degree up to 2.958, ten degrees beyond."""
    endcap = [1.4964 + 0.0174 * step for step in range(85)]
    barrel = [0.0174 * step for step in range(-85, 87)]
    forward = [2.958, 3.125, 3.3, 3.475, 3.65, 3.825, 4, 4.175, 4.35, 4.525, 4.7, 5]
    grid = Grid.of(
        _rings(_mirrored(forward), 36)
        + _rings([*_mirrored(endcap), barrel[0]], 360)
        + _rings(barrel, 360)
        + _rings(endcap, 360)
        + _rings(forward, 36)
    )
    eta = np.abs(grid.centres)
    forwards = eta > 2.5
    # The barrel by arXiv:1306.2016 (in eta) and arXiv:1502.02701 (in energy).
    factor = np.where(eta <= 1.5, 1 + 0.64 * eta**2, 2.16 + 5.6 * (eta - 2) ** 2)
    return Calorimeter(
        grid=grid,
        constant=np.where(forwards, 0.107, factor * 0.008),
        stochastic=np.where(forwards, 2.08, factor * 0.11),
        noise=np.where(forwards, 0.0, factor * 0.40),
        energy_min=0.5,
        significance_min=2.0,
    )


def _hcal() -> Calorimeter:
    """Towers of five degrees up to 1.653, ten up to 4.525, twenty beyond."""
    barrel = [0.087 * step for step in range(-18, 20)]
    endcap = [1.653, 1.74, 1.83, 1.93, 2.043, 2.172, 2.322, 2.5, 2.65, 2.868, 2.95, 3.125]
    endcap += [3.3, 3.475, 3.65, 3.825, 4, 4.175, 4.35, 4.525]
    forward = [4.525, 4.7, 5]
    grid = Grid.of(
        _rings(_mirrored(forward), 18)
        + _rings(_mirrored(endcap), 36)
        + _rings([-1.653, *barrel], 72)
        + _rings(endcap, 36)
        + _rings(forward, 18)
    )
    forwards = np.abs(grid.centres) > 3.0
    return Calorimeter(
        grid=grid,
        constant=np.where(forwards, 0.130, 0.050),
        stochastic=np.where(forwards, 2.70, 1.50),
        noise=np.zeros(len(forwards)),
        energy_min=1.0,
        significance_min=1.0,
    )


ECAL = _ecal()
HCAL = _hcal()
