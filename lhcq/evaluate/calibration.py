"""Probabilities and thresholds that hold outside training: fitted on the calibration subset, shown on the test.

The calibration subset is one that neither the training nor the choice of the checkpoint has seen. Three things are
fitted on it: a temperature, which makes P(signal) mean what it says at the split's own ratio; the threshold of the
best balanced accuracy; and the threshold of the best significance improvement, for samples in which signal is rare.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from sklearn.metrics import roc_curve

from lhcq.errors import BadInput
from lhcq.evaluate.metrics import (
    SIC_BACKGROUND_FLOOR,
    log_likelihoods,
    mean_interval,
    metrics_of,
    wilson_interval,
)
from lhcq.evaluate.sculpting import sculpting_of
from lhcq.records.metrics import CalibratedMetrics, Calibration, Gain, NaturalMetrics, Sculpting

TEMPERATURES = (0.05, 20.0)
"""Bounds of the fit: a sample without a single mistake would have the temperature zero."""

_SURE = 1e-15
"""What a probability of 0 or 1 is taken for: its logit has to be finite, and as little order lost as can be."""

NATURAL_FRACTIONS = (1 / 11, 0.01, 834 / 1_000_000)
"""Share of signal in the R&D set (100,000 in 1,100,000), in a hundred events, and in the first black box."""


def calibrated_metrics(
    calibration: Calibration,
    labels: ArrayLike,
    p_signal: ArrayLike,
    answers: ArrayLike | None,
    mjj: NDArray[np.float64] | None = None,
) -> CalibratedMetrics:
    """The metrics of `(n,)` labels, raw probabilities and answers of another sample under `calibration`.

    `mjj` (n,), GeV, NaN where there is none, shows what the threshold for rare signal makes of the background's.
    """
    truth = np.asarray(labels)
    calibrated = apply_temperature(p_signal, calibration.temperature)
    thresholds = [calibration.balanced_threshold]
    if calibration.rare_threshold is not None:
        thresholds.append(calibration.rare_threshold)
    return CalibratedMetrics(
        calibration=calibration,
        calibrated=metrics_of(truth, calibrated, answers, threshold=calibration.balanced_threshold),
        natural=natural_metrics(truth, calibrated, thresholds, NATURAL_FRACTIONS),
        gain=likelihood_gain(truth, p_signal, calibration.temperature),
        sculpting=_sculpting(truth, calibrated, calibration.rare_threshold, mjj),
    )


def _sculpting(
    truth: NDArray[np.integer],
    p_signal: NDArray[np.float64],
    threshold: float | None,
    mjj: NDArray[np.float64] | None,
) -> Sculpting | None:
    if threshold is None or mjj is None:
        return None
    background = truth == 0
    return sculpting_of(mjj[background], p_signal[background] >= threshold)


def likelihood_gain(labels: ArrayLike, p_signal: ArrayLike, temperature: float) -> Gain:
    """By how many nats an event a temperature raises the log-likelihood of `(n,)` labels; below 0 it lowers it.

    The same events have both likelihoods, so the interval is that of the mean of their differences, by its normal
    limit.
    """
    truth, score = np.asarray(labels), np.asarray(p_signal, dtype=np.float64)
    change = log_likelihoods(truth, apply_temperature(score, temperature)) - log_likelihoods(truth, score)
    low, high = mean_interval(change) or (None, None)
    return Gain(mean=float(change.mean()), low=low, high=high)


def fit_calibration(labels: ArrayLike, p_signal: ArrayLike) -> Calibration:
    """Fit temperature and thresholds to `(n,)` labels and raw probabilities; raises `BadInput` for one class."""
    truth = np.asarray(labels)
    if truth.size == 0 or truth.min() == truth.max():
        raise BadInput("calibration: it takes events of both classes. Prepare a split with more events.")
    temperature = fit_temperature(truth, p_signal)
    balanced, rare = _thresholds(truth, apply_temperature(p_signal, temperature))
    return Calibration(
        n=truth.size,
        n_signal=int(truth.sum()),
        temperature=temperature,
        balanced_threshold=balanced,
        rare_threshold=rare,
    )


def fit_temperature(labels: ArrayLike, p_signal: ArrayLike) -> float:
    """The temperature of the highest likelihood. Guo et al., arXiv:1706.04599."""
    sign = np.where(np.asarray(labels) == 1, -1.0, 1.0)
    logits = _logits(p_signal)

    def nll(log_temperature: float) -> float:
        return float(np.logaddexp(0.0, sign * logits / math.exp(log_temperature)).mean())

    low, high = (math.log(bound) for bound in TEMPERATURES)
    return float(math.exp(minimize_scalar(nll, bounds=(low, high), method="bounded").x))


def apply_temperature(p_signal: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Calibrated probabilities; their order stays."""
    calibrated: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-_logits(p_signal) / temperature))
    return calibrated


def natural_metrics(
    labels: NDArray[np.integer],
    p_signal: NDArray[np.float64],
    thresholds: Sequence[float],
    fractions: Sequence[float],
) -> tuple[NaturalMetrics, ...]:
    """Precision and significance of each threshold at each share of signal, from the efficiencies of the sample.

    The sample may have any ratio: within a class, nothing depends on it.
    """
    return tuple(
        _natural(labels, p_signal >= threshold, threshold, fraction)
        for threshold in thresholds
        for fraction in fractions
    )


def _natural(
    labels: NDArray[np.integer], chosen: NDArray[np.bool_], threshold: float, fraction: float
) -> NaturalMetrics:
    n_signal, n_background = int((labels == 1).sum()), int((labels == 0).sum())
    signal, background = int(chosen[labels == 1].sum()), int(chosen[labels == 0].sum())
    eps_s, eps_b = signal / n_signal, background / n_background
    low_s, _ = wilson_interval(signal, n_signal)
    _, high_b = wilson_interval(background, n_background)
    return NaturalMetrics(
        threshold=threshold,
        signal_fraction=fraction,
        signal_efficiency=eps_s,
        background_efficiency=eps_b,
        precision=_precision(eps_s, eps_b, fraction) if signal + background else None,
        precision_low=_precision(low_s, high_b, fraction),
        significance_improvement=eps_s / math.sqrt(eps_b) if background else None,
        significance_improvement_low=low_s / math.sqrt(high_b),
    )


def _precision(eps_s: float, eps_b: float, fraction: float) -> float:
    return fraction * eps_s / (fraction * eps_s + (1 - fraction) * eps_b)


def _thresholds(truth: NDArray[np.integer], p_signal: NDArray[np.float64]) -> tuple[float, float | None]:
    """Of the best balanced accuracy, and of the best significance improvement above the background floor."""
    eps_b, eps_s, thresholds = roc_curve(truth, p_signal, drop_intermediate=False)
    balanced = float(thresholds[int(np.argmax(eps_s - eps_b))])
    kept = np.rint(eps_b * (truth == 0).sum()) >= SIC_BACKGROUND_FLOOR
    if not kept.any():
        return min(balanced, 1.0), None
    best = int(np.argmax(np.where(kept, eps_s / np.sqrt(np.maximum(eps_b, 1e-300)), -np.inf)))
    return min(balanced, 1.0), float(thresholds[best])


def _logits(p_signal: ArrayLike) -> NDArray[np.float64]:
    clipped = np.clip(np.asarray(p_signal, dtype=np.float64), _SURE, 1 - _SURE)
    logits: NDArray[np.float64] = np.log(clipped / (1 - clipped))
    return logits
