"""sin, cos, sinh and cosh in lanes have the bits of the host's libm, and so have momenta."""

import math

import numpy as np
import pytest

from lhcq.jets import fixed, libm, waves
from lhcq.jets.exact import ALL_LANES
from lhcq.jets.libm import count_wave_differences, lanes_for_libm
from lhcq.jets.vectors import FourVectors

N = 1 << 16


def differences(angles, rapidities) -> tuple[int, int]:
    return count_wave_differences(
        np.ascontiguousarray(angles), np.ascontiguousarray(rapidities), np.empty(32)
    )


def hyperbolic_here() -> int:
    """0 where libm's sinh is the one that `waves` follows: glibc's, with fused products."""
    return lanes_for_libm("hyperbolic")


@pytest.mark.parametrize("seed", range(3))
def test_random_angles_and_rapidities_have_the_bits_of_libm(seed):
    rng = np.random.default_rng(seed)
    for angles, rapidities in (
        (rng.uniform(-np.pi, np.pi, N), rng.normal(0, 2, N)),
        (rng.normal(0, 8, N), rng.uniform(-15, 15, N)),
        (rng.normal(0, 1, N).astype(np.float32), rng.normal(0, 0.4, N).astype(np.float32)),
        (np.exp(rng.uniform(-40, 4, N)), np.exp(rng.uniform(-40, 4, N))),
    ):
        circular, hyperbolic = differences(angles.astype(np.float64), rapidities.astype(np.float64))
        assert circular == 0
        assert hyperbolic == 0 or hyperbolic_here()


def test_results_that_lie_in_the_middle_between_two_doubles_have_the_bits_of_libm():
    rng = np.random.default_rng(3)
    sines = rng.uniform(0.05, 0.95, N)
    middle = sines.astype(np.longdouble) + 0.5 * np.spacing(sines)
    near = np.concatenate([np.arcsin(middle), np.pi - np.arcsin(middle), np.arccos(middle)]).astype(
        np.float64
    )
    near += rng.integers(-2, 3, len(near)) * np.spacing(near)
    assert differences(near, np.zeros(len(near)) + 0.5)[0] == 0


def test_steps_of_the_tables_and_what_is_next_to_them_have_the_bits_of_libm():
    steps = np.arange(-330, 331) * (math.pi / 128)
    powers = np.arange(1, 2400) * (math.log(2) / 128)
    for turns in range(-3, 4):
        angles = steps + turns * np.spacing(steps)
        rapidities = powers + turns * np.spacing(powers)
        size = 8 * (max(len(angles), len(rapidities)) // 8)
        circular, hyperbolic = differences(np.resize(angles, size), np.resize(rapidities, size))
        assert circular == 0
        assert hyperbolic == 0 or hyperbolic_here()


def test_what_is_special_is_left_to_libm():
    special = [0.0, -0.0, 5e-324, -1e-310, 2.0**-28, math.pi, -math.pi / 2, 1e5, -30.0, 700.0, 1e-8, -1e-9]
    special += [0.34657359027997264, 1.0, 22.0, 13.0]
    values = np.array([*special, *special[::-1]])
    assert len(values) % 8 == 0
    circular, hyperbolic = differences(values, values)
    assert circular == 0
    assert hyperbolic == 0 or hyperbolic_here()


def test_the_tables_hold_sine_cosine_and_powers_of_two_to_a_hundred_bits():
    for step, (sine, sine_rest, cosine, cosine_rest) in enumerate(waves._WAVES):
        assert abs(sine - math.sin(step * math.pi / 64)) < 1e-15
        high, low = (round(part * 2.0**180) for part in (sine, cosine)), (sine_rest, cosine_rest)
        up, along = (one + round(rest * 2.0**180) for one, rest in zip(high, low, strict=True))
        assert abs(up * up + along * along - (1 << 360)) < 1 << (360 - 100)
    high, low = waves._POWERS.T
    for one, rest, other, other_rest in zip(high[1:], low[1:], high[:0:-1], low[:0:-1], strict=True):
        product = (round(one * 2.0**180) + round(rest * 2.0**180)) * (
            round(other * 2.0**180) + round(other_rest * 2.0**180)
        )
        assert abs(product - (2 << 360)) < 1 << (360 - 100)
    sine, cosine = fixed.sin_cos_fixed(fixed.PI // 6)
    assert abs(sine - (1 << 199)) < 1 << 12
    assert abs(4 * cosine * cosine - (3 << 400)) < 1 << 214


def test_a_libm_that_does_otherwise_is_found_out(monkeypatch):
    monkeypatch.setattr(libm, "count_wave_differences", lambda *_: (0, 5))
    lanes_for_libm.cache_clear()
    try:
        assert lanes_for_libm("circular") == 0
        assert lanes_for_libm("hyperbolic") == ALL_LANES
    finally:
        lanes_for_libm.cache_clear()


@pytest.mark.parametrize("n_events", [1, 2, 9])
def test_momenta_are_libms_in_order_wherever_slots_are_empty(n_events):
    rng = np.random.default_rng(n_events)
    particles = np.zeros((n_events, 40, 3))
    particles[..., 0] = rng.exponential(20, (n_events, 40)) * (rng.random((n_events, 40)) < 0.6)
    particles[..., 1], particles[..., 2] = rng.normal(0, 2, (2, n_events, 40))
    expected = [
        (pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta), pt * math.cosh(eta))
        for pt, eta, phi in particles.reshape(-1, 3).tolist()
        if pt
    ]
    found = FourVectors.massless(particles)
    assert found.counts.tolist() == (particles[..., 0] > 0).sum(axis=1).tolist()
    assert (
        list(zip(*(column.tolist() for column in (found.px, found.py, found.pz, found.e)), strict=True))
        == expected
    )


def test_events_without_particles_have_no_momenta():
    found = FourVectors.massless(np.zeros((3, 5, 3)))
    assert found.counts.tolist() == [0, 0, 0]
    assert len(found.px) == len(found.e) == 0


def test_momenta_have_the_same_bits_when_all_is_left_to_libm(monkeypatch):
    rng = np.random.default_rng(5)
    particles = np.stack(
        [rng.exponential(20, (7, 33)), rng.normal(0, 2, (7, 33)), rng.uniform(-4, 4, (7, 33))], axis=2
    )
    ours = FourVectors.massless(particles)
    monkeypatch.setattr(libm, "lanes_for_libm", lambda _: ALL_LANES)
    theirs = FourVectors.massless(particles)
    for name in ("px", "py", "pz", "e"):
        assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes()
