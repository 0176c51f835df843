"""The smoothly falling spectrum of background in m_jj, fitted beside a region, and how likely it gives what is in it.

The spectrum is the dijet function of the field (CDF, Phys. Rev. D 79 (2009) 112002; CMS, JHEP 05 (2020) 033),

    dN/dm = p0 (1 - x)^p1 / x^(p2 + p3 ln x),    x = m / (energy of the collisions),

with p3 = 0 where three parameters do. Its logarithm is linear in the parameters, so Minuit is given an orthogonal
basis of the same functions, in which the parameters are hardly correlated, and the gradient.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from iminuit import Minuit
from numpy.typing import NDArray
from scipy.stats import chi2, f, norm

from lhcq.evaluate.chi_squared import join_bins

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Bits = NDArray[np.bool_]

ENERGY = 14_000.0
"""GeV. It only has to lie above all masses: another value changes p1, and the curve by nothing that can be seen."""
F_TEST_LEVEL = 0.05
"""P-value of the F-test below which a fourth parameter is taken."""
FEWEST_EVENTS = 10
"""Events beside a region below which nothing is fitted: three parameters would follow each of them."""
CONFIDENCE = 0.95
_AT_THE_END = 0.98
"""Of the largest standard deviation of a Gaussian that is allowed: from there on it would be wider if it could."""


class NoFit(Exception):
    """A fit that found no minimum, or no covariance there: what was asked of it is not known."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The function at a minimum of the negative logarithm of the likelihood."""

    expected: Floats
    """(n_bins,): events a bin, those of the region too."""
    minimum: float
    """The negative logarithm of the likelihood, without terms that no parameter changes."""
    in_region: float
    """Events to expect in the region."""
    error: float
    """Its standard deviation, from the fit's covariance."""
    band: Floats
    """(n_bins,): the standard deviation of `expected`."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How well a function describes bins, those beside the region as a rule."""

    chi2: float
    bins: int
    """After joining."""
    parameters: int
    p_value: float | None
    """None where there are no more bins than parameters."""


@dataclass(frozen=True, kw_only=True)
class Excess:
    """The events of a region beside what the spectrum at its sides gives."""

    seen: int
    expected: float
    error: float
    parameters: int
    """Of the function: 3 or 4."""
    f_test: float | None
    """The p-value by which that was chosen; None where four could not be fitted or tested."""
    quality: Quality
    z: float
    """Standard deviations of the excess, below zero for a deficit: the signed root of the likelihood ratio."""
    p_value: float
    """For so large an excess of background alone: one-sided, by the ratio's asymptotic distribution."""
    fit: Fit


@dataclass(frozen=True, kw_only=True)
class Peak:
    """A Gaussian over the background, GeV and events."""

    mass: float
    error: float
    sigma: float
    events: float
    events_error: float
    expected: Floats
    """(n_bins,): events a bin, of function and Gaussian."""
    quality: Quality | None
    """How well that describes all bins; None where the Gaussian is as wide as it may be, and so perhaps no peak."""


class Spectrum:
    """Bins of m_jj with a region among them; fits counts in these bins."""

    def __init__(self, edges: Floats, region: tuple[float, float]) -> None:
        """`edges` (n_bins + 1,) in GeV; the region, GeV, begins and ends at one of them."""
        self.edges = edges
        centres = (edges[1:] + edges[:-1]) / 2
        self.inside: Bits = (centres > region[0]) & (centres < region[1])
        x = centres / ENERGY
        functions = np.stack([np.ones_like(x), np.log1p(-x), np.log(x), np.log(x) ** 2], axis=1)
        # In the metric of a spectrum that falls by a factor of e every 500 GeV, which all of interest roughly do.
        weight = np.exp(-(centres - centres[0]) / 1000.0)[:, None]
        _, upper = np.linalg.qr(functions * weight)
        self._basis: Floats = np.linalg.solve(upper.T, functions.T).T

    def fit(self, counts: Counts, parameters: int, *, with_region: bool) -> Fit:
        """The likeliest function of so many parameters for counts (n_bins,), Poisson in each bin.

        `with_region` takes the region's events in, as one number. Raises `NoFit`.
        """
        basis = self._basis[:, :parameters]
        beside, inside = basis[~self.inside], basis[self.inside]
        n, seen = counts[~self.inside].astype(np.float64), float(counts[self.inside].sum())

        def cost(*values: float) -> float:
            exponent = beside @ np.array(values)
            found = float(np.sum(np.exp(exponent) - n * exponent))
            if with_region:
                mean = float(np.exp(inside @ np.array(values)).sum())
                found += mean - seen * math.log(mean) if mean > 0 else math.inf
            return found

        def gradient(*values: float) -> Floats:
            found = (np.exp(beside @ np.array(values)) - n) @ beside
            if with_region:
                each = np.exp(inside @ np.array(values))
                found = found + (1.0 - seen / each.sum()) * (each @ inside)
            return np.asarray(found)

        minuit = Minuit(cost, *self._start(counts, basis, with_region), grad=gradient)
        minuit.errordef = Minuit.LIKELIHOOD
        with np.errstate(over="ignore", invalid="ignore"):  # a step too far, which Minuit takes back
            minuit.migrad()
        if not minuit.valid or not minuit.accurate or minuit.covariance is None:
            raise NoFit(f"the fit with {parameters} parameters found no minimum")
        values, covariance = np.array(minuit.values), np.array(minuit.covariance)
        expected = np.exp(basis @ values)
        slope = expected[self.inside] @ inside
        return Fit(
            expected=expected,
            minimum=float(minuit.fval),
            in_region=float(expected[self.inside].sum()),
            error=math.sqrt(float(slope @ covariance @ slope)),
            band=expected * np.sqrt(np.einsum("ij,jk,ik->i", basis, covariance, basis)),
        )

    def quality(self, counts: Counts, fitted: Fit, parameters: int, starts: Counts) -> Quality:
        """Pearson's chi-squared beside the region, in the bins that begin at `starts`."""
        return _judged(counts[~self.inside], fitted.expected[~self.inside], starts, parameters)

    def excess(self, counts: Counts) -> Excess:
        """What the region holds beside what the counts (n_bins,) at its sides give. Raises `NoFit`.

        The fourth parameter is taken where the F-test of both fits' chi-squared asks for it. The significance is of
        the profile likelihood: the sides and the region's one number, with and without a signal there of any size;
        the fit's uncertainty is in it.
        """
        if int(counts[~self.inside].sum()) < FEWEST_EVENTS:
            raise NoFit(f"there are fewer than {FEWEST_EVENTS} events beside the region")
        fitted = self.fit(counts, 3, with_region=False)
        starts = join_bins(fitted.expected[~self.inside])
        quality = self.quality(counts, fitted, 3, starts)
        parameters, f_test = 3, None
        try:
            more = self.fit(counts, 4, with_region=False)
        except NoFit:
            more = None
        if more is not None and len(starts) > 4:
            better = self.quality(counts, more, 4, starts)
            gain = max(quality.chi2 - better.chi2, 0.0)
            f_test = float(f.sf(gain / (better.chi2 / (len(starts) - 4)), 1, len(starts) - 4))
            if f_test < F_TEST_LEVEL:
                fitted, quality, parameters = more, better, 4
        seen = int(counts[self.inside].sum())
        z = self._signed_root(counts, fitted, parameters, seen)
        return Excess(
            seen=seen,
            expected=fitted.in_region,
            error=fitted.error,
            parameters=parameters,
            f_test=f_test,
            quality=quality,
            z=z,
            p_value=float(norm.sf(z)),
            fit=fitted,
        )

    def peak(self, counts: Counts, excess: Excess) -> Peak | None:
        """A Gaussian over the function, fitted to all counts (n_bins,): where in m_jj the events of an excess are.

        None where no such fit is found, or only one at the ends of what is allowed: within half a region of the
        region's middle, with a standard deviation from half a bin to half a region.
        """
        basis = self._basis[:, : excess.parameters]
        low, high = self.edges[:-1][self.inside][0], self.edges[1:][self.inside][-1]
        width, bin_width = high - low, self.edges[1] - self.edges[0]
        n = counts.astype(np.float64)

        def expected(values: Sequence[float]) -> Floats:
            shape = np.diff(norm.cdf(self.edges, values[1], values[2]))
            found: Floats = np.exp(basis @ np.array(values[3:])) + values[0] * shape
            return found

        def cost(*values: float) -> float:
            mean = expected(values)
            return math.inf if (mean <= 0).any() else float(np.sum(mean - n * np.log(mean)))

        start = np.linalg.lstsq(basis, np.log(excess.fit.expected), rcond=None)[0]
        most = max(3.0 * (excess.seen - excess.expected), 10.0)
        minuit = Minuit(cost, most / 3, (low + high) / 2, width / 6, *start)
        minuit.errordef = Minuit.LIKELIHOOD
        allowed = [(0, most), (low - width / 2, high + width / 2), (bin_width / 2, width / 2)]
        for place, limits in enumerate(allowed):
            minuit.limits[place] = limits
        with np.errstate(over="ignore", invalid="ignore"):
            minuit.migrad()
            minuit.hesse()
        if not minuit.valid or not minuit.accurate:
            return None
        events, mass, sigma = minuit.values[0], minuit.values[1], minuit.values[2]
        if not allowed[1][0] + bin_width < mass < allowed[1][1] - bin_width:
            return None
        mean, widest = expected(list(minuit.values)), _AT_THE_END * width / 2
        return Peak(
            mass=float(mass),
            error=float(minuit.errors[1]),
            sigma=float(sigma),
            events=float(events),
            events_error=float(minuit.errors[0]),
            expected=mean,
            quality=_judged(n, mean, join_bins(mean), len(minuit.values)) if sigma < widest else None,
        )

    def _signed_root(self, counts: Counts, beside: Fit, parameters: int, seen: int) -> float:
        """Of the likelihood ratio of no signal in the region to a signal of any size, a negative one too."""
        without = self.fit(counts, parameters, with_region=True)
        best = beside.minimum + (seen - seen * math.log(seen) if seen else 0.0)
        root = math.sqrt(max(2.0 * (without.minimum - best), 0.0))
        return root if seen > beside.in_region else -root

    def _start(self, counts: Counts, basis: Floats, with_region: bool) -> Floats:
        """Where Minuit starts: least squares of the logarithm of the counts, by their own errors."""
        used = np.ones(len(counts), bool) if with_region else ~self.inside
        weight = np.sqrt(counts[used] + 0.5)
        values = np.log(counts[used] + 0.5) * weight
        found: Floats = np.linalg.lstsq(basis[used] * weight[:, None], values, rcond=None)[0]
        return found


def _judged(counts: Counts | Floats, expected: Floats, starts: Counts, parameters: int) -> Quality:
    """Pearson's chi-squared of bins (n_bins,), joined to those that begin at `starts`."""
    seen, mean = (np.add.reduceat(one.astype(np.float64), starts) for one in (counts, expected))
    value, freedom = float(((seen - mean) ** 2 / mean).sum()), len(starts) - parameters
    return Quality(
        chi2=value,
        bins=len(starts),
        parameters=parameters,
        p_value=float(chi2.sf(value, freedom)) if freedom > 0 else None,
    )


def upper_limit(excess: Excess) -> float:
    """The largest signal in the region, in events after the selection, that 95% confidence leaves (CLs).

    By the asymptotic formulas of Cowan, Cranmer, Gross and Vitells (Eur. Phys. J. C 71 (2011) 1554) for a number of
    events beside an expectation with a Gaussian error.
    """
    b, error, seen = excess.expected, max(excess.error, 1e-9), float(excess.seen)

    def root(n: float, s: float) -> float:
        """The root of the profile likelihood ratio of a signal `s` to the likeliest one from zero on."""
        best = max(n - b, 0.0)
        free = b if n >= b else _profiled(n, 0.0, b, error)
        fixed = _profiled(n, s, b, error)
        q = 2.0 * (_minus_log(n, s, fixed, b, error) - _minus_log(n, best, free, b, error))
        return math.sqrt(max(q, 0.0)) if s >= best else 0.0

    def cls(s: float) -> float:
        found, alone = root(seen, s), root(b, s)  # of what is seen, and of what background alone would show
        if found > alone > 0:  # beyond where the likeliest signal would be negative
            found = (found**2 + alone**2) / (2 * alone)
        return float(norm.sf(found) / norm.cdf(alone - found))

    low, high = 0.0, max(seen - b, 0.0) + 3.0 * math.sqrt(b + error**2) + 5.0
    while cls(high) > 1 - CONFIDENCE:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cls(middle) > 1 - CONFIDENCE else (low, middle)
    return high


def _profiled(n: float, s: float, b: float, error: float) -> float:
    """The likeliest background for `n` events with a signal `s`, where it is known to be b +- error."""
    # d/dx of (x + s) - n ln(x + s) + (x - b)^2 / (2 error^2) is zero: a quadratic equation.
    half = (b - error**2 - s) / 2
    return half + math.sqrt(max((half + s) ** 2 + error**2 * n, 0.0))


def _minus_log(n: float, s: float, background: float, b: float, error: float) -> float:
    mean = max(background + s, 1e-12)
    return mean - (n * math.log(mean) if n else 0.0) + (background - b) ** 2 / (2 * error**2)
