"""The detector's response: the way to the calorimeters, the towers, what is found and how well, and the real file."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhcq.events.calorimeter import Tracks, smear
from lhcq.events.detector import ECAL, HCAL, TRACKER, Truth, respond
from lhcq.events.generator import Generator
from lhcq.events.layout import open_event_file, read_rows
from lhcq.events.propagation import GEV_PER_TESLA_METRE, propagate

signs = st.sampled_from([-1.0, 1.0])
angles = st.floats(-3.1, 3.1)


def rng(seed=1):
    return np.random.Generator(np.random.PCG64(seed))


def momentum_of(pt, eta, phi):
    return [pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta), pt * math.cosh(eta)]


def truth_of(*particles):
    """From (pdg, charge, pt, eta, phi), all made at the centre."""
    return Truth(
        pdg=np.array([particle[0] for particle in particles], dtype=np.int64),
        charge=np.array([particle[1] for particle in particles], dtype=np.float64),
        momentum=np.array([momentum_of(*particle[2:]) for particle in particles]).reshape(-1, 4),
    )


def arrive(pt, eta, phi, charge):
    """Eta and phi where one particle leaves the tracker."""
    found = propagate(TRACKER, *(np.array([value], dtype=np.float64) for value in (pt, eta, phi, charge)))
    return found[0][0], found[1][0]


def walk(pt, eta, phi, charge):
    """The same, in many small straight steps."""
    x = y = z = 0.0
    step = 2e-4  # m
    curvature = GEV_PER_TESLA_METRE * TRACKER.field * charge / pt
    while math.hypot(x, y) < TRACKER.radius and abs(z) < TRACKER.half_length:
        middle = phi - curvature * step / 2
        x, y, z = x + step * math.cos(middle), y + step * math.sin(middle), z + step * math.sinh(eta)
        phi -= curvature * step
    return math.asinh(z / math.hypot(x, y)), math.atan2(y, x)


@settings(max_examples=40)
@given(
    pt=st.floats(0.1, 50),
    eta=st.floats(0.1, 2.5),  # at zero a soft track goes round and round
    phi=angles,
    charge=st.sampled_from([-2.0, -1.0, 0.0, 1.0]),
)
def test_particles_leave_the_tracker_where_small_steps_lead(pt, eta, phi, charge):
    expected_eta, expected_phi = walk(pt, eta, phi, charge)
    found_eta, found_phi = arrive(pt, eta, phi, charge)
    # As a distance on the surface: back near the beam, eta and phi say little.
    distance = math.hypot(
        math.remainder(found_phi - expected_phi, 2 * math.pi) / math.cosh(expected_eta),
        math.tanh(found_eta) - math.tanh(expected_eta),
    )
    assert distance < 3e-3


@given(pt=st.floats(0.01, 1000), eta=st.floats(-5, 5), phi=angles)
def test_neutral_particles_go_straight(pt, eta, phi):
    assert arrive(pt, eta, phi, 0) == pytest.approx((eta, phi))


@given(pt=st.floats(1, 1000), phi=angles, sign=signs)
def test_opposite_charges_bend_to_opposite_sides_by_the_known_angle(pt, phi, sign):
    _, place = arrive(pt, 0.1, phi, sign)
    radius = pt / (GEV_PER_TESLA_METRE * TRACKER.field)
    bend = math.remainder(place - phi, 2 * math.pi)
    assert bend == pytest.approx(-sign * math.asin(TRACKER.radius / (2 * radius)), abs=1e-9)


@given(eta=st.floats(-2.5, 2.5), phi=angles, sign=signs)
def test_every_place_has_an_angle_between_minus_pi_and_pi(eta, phi, sign):
    place_eta, place_phi = arrive(0.5, eta, phi, sign)
    assert math.isfinite(place_eta)
    assert -math.pi <= place_phi <= math.pi


@given(phi=angles, sign=signs)
def test_a_soft_track_curls_up_and_meets_an_end(phi, sign):
    """Below 0.735 GeV a circle through the centre does not reach 1.29 m."""
    assert arrive(0.7, 0.2, phi, sign)[0] > math.asinh(TRACKER.half_length / TRACKER.radius)


@pytest.mark.parametrize(
    ("calorimeter", "n_towers"), [(ECAL, 340 * 360 + 22 * 36), (HCAL, 38 * 72 + 38 * 36 + 4 * 18)]
)
def test_towers_cover_the_detector_once(calorimeter, n_towers):
    grid = calorimeter.grid
    towers = np.arange(n_towers)
    eta, phi = grid.place_in(towers, rng())

    np.testing.assert_array_equal(grid.tower_of(eta, phi), towers)
    assert int(grid.divisions.sum()) == n_towers
    assert (np.diff(grid.edges) > 0).all()
    assert (grid.edges[0], grid.edges[-1]) == (-5, 5)
    np.testing.assert_allclose(grid.edges, -grid.edges[::-1], atol=0.0175)
    assert grid.tower_of(np.array([5.01, -5.01]), np.zeros(2)).tolist() == [-1, -1]


@given(eta=st.floats(-4.999, 4.999), phi=st.floats(-math.pi, math.pi))
def test_every_place_within_five_units_has_a_tower(eta, phi):
    for calorimeter in (ECAL, HCAL):
        tower = calorimeter.grid.tower_of(np.array([eta]), np.array([phi]))[0]
        assert 0 <= tower < calorimeter.grid.divisions.sum()


def test_smearing_keeps_the_mean_and_gives_the_width():
    smeared = smear(np.full(200_000, 50.0), np.full(200_000, 10.0), rng())
    assert smeared.mean() == pytest.approx(50, rel=3e-3)
    assert smeared.std() == pytest.approx(10, rel=2e-2)
    assert smeared.min() > 0
    assert smear(np.zeros(3), np.ones(3), rng()).tolist() == [0, 0, 0]


# sqrt((c E)^2 + s^2 E + n^2), by hand from the card: ECAL, then HCAL; eta in the middle of a tower.
@pytest.mark.parametrize(
    ("calorimeter", "eta", "energy", "sigma"),
    [
        (ECAL, 0.0087, 100.0, math.sqrt(0.8**2 + 1.1**2 + 0.4**2)),
        (ECAL, 2.0097, 100.0, 2.16 * math.sqrt(0.8**2 + 1.1**2 + 0.4**2)),
        (ECAL, 4.0, 100.0, math.sqrt(10.7**2 + 20.8**2)),
        (HCAL, 0.0435, 100.0, math.sqrt(5.0**2 + 15.0**2)),
        (HCAL, 4.0, 100.0, math.sqrt(13.0**2 + 27.0**2)),
    ],
)
def test_resolutions_are_those_of_the_card(calorimeter, eta, energy, sigma):
    ring = np.searchsorted(calorimeter.grid.edges, [eta]) - 1
    assert calorimeter.sigma(np.array([energy]), ring)[0] == pytest.approx(sigma, rel=1e-3)


NO_TRACKS = Tracks(tower=np.zeros(0, np.intp), energy=np.zeros(0), resolution=np.zeros(0))


def test_a_tower_without_tracks_is_a_neutral_particle_with_all_its_energy():
    tower = np.full(2, HCAL.grid.tower_of(np.array([0.5]), np.array([1.0]))[0])
    account = HCAL.measure(tower, np.array([300.0, 200.0]), NO_TRACKS, rng())
    assert len(account.energy) == 1
    assert account.energy[0] == pytest.approx(500, rel=0.4)
    assert HCAL.grid.tower_of(account.eta, account.phi)[0] == tower[0]


def test_energy_above_the_tracks_is_neutral_and_the_tracks_stay():
    tower = HCAL.grid.tower_of(np.array([0.5]), np.array([1.0]))
    tracks = Tracks(tower=tower, energy=np.array([10.0]), resolution=np.array([0.01]))
    account = HCAL.measure(tower, np.array([1000.0]), tracks, rng())
    assert account.scale.tolist() == [1.0]
    assert account.energy[0] == pytest.approx(990, rel=0.3)


def test_measurements_that_agree_are_averaged_by_their_precision():
    """Of a track known to 1 percent and a tower known to 16 the first counts; of a bad track the tower."""
    n = 4000
    tower = np.arange(n)
    energy = np.full(n, 100.0)
    for resolution, spread in ((0.01, 0.01), (3.0, 0.16)):
        seen = smear(energy, energy * min(resolution, 0.01), rng(7))
        tracks = Tracks(tower=tower, energy=seen, resolution=np.full(n, resolution))
        account = HCAL.measure(tower, energy, tracks, rng())
        assert (seen * account.scale / energy).std() == pytest.approx(spread, rel=0.3)


@pytest.mark.parametrize(
    ("pdg", "charge", "pt", "eta", "share"),
    [
        (211, 1, 0.09, 0.5, 0.0),
        (211, 1, 0.9, 0.5, 0.70),
        (-211, -1, 5.0, 0.5, 0.95),
        (321, 1, 5.0, 2.0, 0.85),
        (11, -1, 200.0, 0.5, 0.99),
        (13, -1, 5.0, 2.0, 0.98),
        (211, 1, 5.0, 2.6, 0.0),
    ],
)
def test_tracks_are_found_as_often_as_the_card_says(pdg, charge, pt, eta, share):
    """A track has the exact direction of its particle; a tower has not."""
    n = 2000
    phi = np.linspace(-3, 3, n)
    truth = truth_of(*((pdg, charge, pt, eta, angle) for angle in phi))
    found = respond(truth, rng())
    tracks = found[np.isclose(found[:, 1], eta, atol=1e-9)]
    assert len(tracks) / n == pytest.approx(share, abs=4 * math.sqrt(0.25 / n))


def test_muons_leave_nothing_in_the_calorimeters():
    found = respond(truth_of(*((13, -1, 50.0, 1.0, phi) for phi in np.linspace(-3, 3, 200))), rng())
    assert np.isclose(found[:, 1], 1.0, atol=1e-9).all()
    assert np.median(found[:, 0]) == pytest.approx(50, rel=0.02)


@pytest.mark.parametrize(("pdg", "mean", "tolerance"), [(22, 1.0, 0.005), (130, 1.0, 0.03), (211, 1.0, 0.05)])
def test_the_energy_scale_is_kept(pdg, mean, tolerance):
    n = 1500
    phi = np.linspace(-3, 3, n)
    charge = 1 if pdg == 211 else 0
    truth = truth_of(*((pdg, charge, 100.0, 0.3 + 0.001 * k % 0.9, phi[k]) for k in range(n)))
    assert respond(truth, rng())[:, 0].sum() / (100.0 * n) == pytest.approx(mean, abs=tolerance)


def test_tracks_come_first_then_neutral_hadrons_then_photons_each_by_towers():
    particles = [(22, 0, 20.0, eta, 0.1) for eta in (1.0, -1.0)]
    particles += [(130, 0, 50.0, eta, 1.1) for eta in (0.9, -0.9)]
    particles += [(13, -1, 30.0, eta, 2.1) for eta in (0.8, -0.8)]
    found = respond(truth_of(*particles), rng(3))
    np.testing.assert_allclose(found[:, 1], [-0.8, 0.8, -0.9, 0.9, -1.0, 1.0], atol=0.1)
    np.testing.assert_allclose(found[:, 2], [2.1, 2.1, 1.1, 1.1, 0.1, 0.1], atol=0.1)


def test_an_event_without_anything_to_see_is_empty():
    assert respond(truth_of(), rng()).shape == (0, 3)
    assert respond(truth_of((22, 0, 0.2, 0.0, 0.0)), rng()).shape == (0, 3)


@pytest.fixture(scope="module")
def generated():
    """Detector-level particles of some signal events, one array for all."""
    generator = Generator(label=1, seed=77)
    events = [generator.try_event() for _ in range(30)]
    return np.concatenate([event for event in events if event is not None])


@pytest.fixture(scope="module")
def released(test_data):
    file = open_event_file(test_data / "events_anomalydetection_tiny.h5")
    particles = read_rows(file, 0, file.n_events).particles
    return particles[particles[..., 0] > 0]


def smallest_energy(particles, low, high):
    """GeV, of the particles with |eta| in this range."""
    pt, eta, _ = particles.T
    inside = (np.abs(eta) > low) & (np.abs(eta) < high)
    return (pt * np.cosh(eta))[inside].min()


# Where there are no tracks: HCAL 1.5^2 / (1 - 0.05^2), 2.7^2 / (1 - 0.13^2) GeV, and nothing of the ECAL below.
FORWARD_THRESHOLDS = [(2.65, 2.95, 1.5**2 / (1 - 0.05**2)), (3.2, 5.0, 2.7**2 / (1 - 0.13**2))]


@pytest.mark.parametrize(("low", "high", "threshold"), FORWARD_THRESHOLDS)
def test_released_events_begin_at_the_thresholds_of_this_detector(released, low, high, threshold):
    assert smallest_energy(released, low, high) == pytest.approx(threshold, rel=5e-3)


@pytest.mark.parametrize(("low", "high", "threshold"), FORWARD_THRESHOLDS)
def test_generated_events_begin_there_too(generated, low, high, threshold):
    assert threshold * (1 - 1e-6) < smallest_energy(generated, low, high) < 1.3 * threshold
