"""The fit beside a region: what it finds of spectra that are known, with scipy and closed formulas as judges."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm

from lhcq.evaluate.chi_squared import join_bins
from lhcq.evaluate.dijet import ENERGY, Excess, Fit, NoFit, Quality, Spectrum, upper_limit

EDGES = np.arange(2600.0, 7001.0, 50.0)
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2
REGION = (3300.0, 3700.0)
INSIDE = np.abs(CENTRES - 3500) < 200


def falling(n_events: float, p3: float = 0.0) -> np.ndarray:
    """(n_bins,) events to expect of the function itself."""
    x = CENTRES / ENERGY
    shape = (1 - x) ** 12 * x ** -(5 + p3 * np.log(x))
    return np.asarray(n_events * shape / shape.sum())


def counted(seen: int, expected: float, error: float) -> Excess:
    """An excess of which only these numbers matter."""
    return Excess(
        seen=seen,
        expected=expected,
        error=error,
        parameters=3,
        f_test=None,
        quality=Quality(chi2=0.0, bins=0, parameters=3, p_value=None),
        z=0.0,
        p_value=0.5,
        fit=Fit(expected=np.zeros(0), minimum=0.0, in_region=expected, error=error, band=np.zeros(0)),
    )


def test_a_spectrum_that_is_the_function_is_found_again_with_no_excess() -> None:
    expected = falling(1e6)
    found = Spectrum(EDGES, REGION).excess(np.rint(expected).astype(int))
    assert found.parameters == 3
    np.testing.assert_allclose(found.fit.expected[:40], expected[:40], rtol=1e-3)
    assert abs(found.z) < 0.05


def test_the_significance_is_that_of_the_likelihood_as_scipy_minimises_it() -> None:
    counts = np.random.default_rng(3).poisson(falling(2000))
    counts[INSIDE] += 4
    found = Spectrum(EDGES, REGION).excess(counts)
    x = np.log(CENTRES / ENERGY)
    functions = np.stack([np.ones_like(x), np.log1p(-np.exp(x)), x], axis=1)
    functions[:, 1:] -= functions[:, 1:].mean(axis=0)
    functions[:, 1:] /= functions[:, 1:].std(axis=0)

    def cost(values: np.ndarray, with_region: bool) -> float:
        mean = np.exp(functions @ values)
        value = np.sum((mean - counts * np.log(mean))[~INSIDE])
        seen, inside = counts[INSIDE].sum(), mean[INSIDE].sum()
        return float(
            value + (inside - seen * math.log(inside) if with_region else seen - seen * math.log(seen))
        )

    least = []
    for with_region in (False, True):
        at = np.array([3.0, 0.0, 0.0])
        for method in ("Nelder-Mead", "BFGS", "Nelder-Mead"):
            found_by_scipy = minimize(cost, at, args=(with_region,), method=method, options={"maxiter": 5000})
            at = found_by_scipy.x
        least.append(float(found_by_scipy.fun))
    assert found.parameters == 3
    assert found.z == pytest.approx(math.sqrt(2 * (least[1] - least[0])), abs=1e-3)


def test_without_a_resonance_significances_are_standard_normal() -> None:
    random, spectrum = np.random.default_rng(5), Spectrum(EDGES, REGION)
    z = np.array([spectrum.excess(random.poisson(falling(1000))).z for _ in range(150)])
    assert abs(z.mean()) < 4 / math.sqrt(150)
    assert 0.8 < z.std() < 1.2


def test_the_error_of_the_expectation_is_how_far_it_is_spread() -> None:
    random, spectrum = np.random.default_rng(7), Spectrum(EDGES, REGION)
    found = [spectrum.excess(random.poisson(falling(3000))) for _ in range(100)]
    three = [one for one in found if one.parameters == 3]
    spread = np.std([one.expected for one in three])
    assert np.mean([one.error for one in three]) == pytest.approx(spread, rel=0.25)


def test_a_fourth_parameter_is_taken_where_three_do_not_do() -> None:
    curved = np.rint(falling(1e6, p3=4.0)).astype(int)
    found = Spectrum(EDGES, REGION).excess(curved)
    assert found.parameters == 4
    assert found.f_test is not None
    assert found.f_test < 0.05
    assert abs(found.z) < 1


def test_a_peak_is_found_where_it_was_put() -> None:
    random = np.random.default_rng(11)
    counts = random.poisson(falling(2000) + np.histogram(random.normal(3480, 70, 150), EDGES)[0])
    spectrum = Spectrum(EDGES, REGION)
    peak = spectrum.peak(counts, spectrum.excess(counts))
    assert peak is not None
    assert abs(peak.mass - 3480) < 4 * peak.error
    assert peak.error < 40
    assert abs(peak.events - 150) < 4 * peak.events_error


def test_a_gaussian_describes_a_peak_that_reaches_over_its_region_where_the_function_alone_does_not() -> None:
    random, spectrum = np.random.default_rng(12), Spectrum(EDGES, REGION)
    counts = random.poisson(falling(2000) + np.histogram(random.normal(3490, 150, 600), EDGES)[0])
    excess = spectrum.excess(counts)
    assert excess.quality.p_value is not None
    assert excess.quality.p_value < 0.01
    peak = spectrum.peak(counts, excess)
    assert peak is not None
    assert peak.quality is not None
    assert peak.quality.p_value is not None
    assert peak.quality.p_value > 0.01
    assert peak.quality.parameters == 3 + excess.parameters
    assert peak.expected.sum() == pytest.approx(counts.sum(), rel=0.01)


@pytest.mark.parametrize("below", [2800.0, 3100.0, 3300.0])
def test_no_gaussian_describes_a_spectrum_that_the_function_has_not(below: float) -> None:
    turned_on = falling(30_000) * norm.cdf(CENTRES, below, 200)
    spectrum, counts = Spectrum(EDGES, REGION), np.random.default_rng(13).poisson(turned_on)
    excess = spectrum.excess(counts)
    assert excess.quality.p_value is not None
    assert excess.quality.p_value < 1e-6
    peak = spectrum.peak(counts, excess)
    assert peak is None or peak.quality is None or (peak.quality.p_value or 0.0) < 0.01


def test_a_gaussian_that_would_be_wider_than_it_may_be_is_not_judged() -> None:
    random, spectrum = np.random.default_rng(14), Spectrum(EDGES, REGION)
    counts = random.poisson(falling(2000) + np.histogram(random.normal(3500, 300, 1500), EDGES)[0])
    peak = spectrum.peak(counts, spectrum.excess(counts))
    assert peak is not None
    assert peak.quality is None


def test_too_few_events_beside_a_region_are_not_fitted() -> None:
    counts = np.zeros(len(CENTRES), int)
    counts[INSIDE] = 5
    with pytest.raises(NoFit, match="fewer than 10 events beside the region"):
        Spectrum(EDGES, REGION).excess(counts)


@pytest.mark.parametrize("seen", [9800, 10_000, 10_150])
def test_a_limit_of_many_events_is_that_of_a_gaussian(seen: int) -> None:
    """CLs of a Gaussian: 1 - cdf((s - x) / sigma) over cdf(x / sigma) is 0.05, for x = seen - expected."""
    sigma, x = math.hypot(math.sqrt(10_000), 50.0), seen - 10_000
    limit = x + sigma * float(norm.isf(0.05 * norm.cdf(x / sigma)))
    assert upper_limit(counted(seen, 10_000.0, 50.0)) == pytest.approx(limit, rel=0.02)


def test_bins_are_joined_until_each_expects_enough() -> None:
    expected = np.array([9.0, 3.0, 3.0, 1.0, 6.0, 2.0, 1.0])
    starts = join_bins(expected)
    assert starts.tolist() == [0, 1, 3]
    assert (np.add.reduceat(expected, starts) >= 5).all()
    assert join_bins(np.array([1.0, 3.9])).tolist() == []
