"""The metrics of a classifier on one set of events, each with its uncertainty or its bound."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, rankdata
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve

from lhcq.errors import BadInput
from lhcq.records.metrics import Confusion, Metrics
from lhcq.records.scores import check_scores

Z95 = 1.959963984540054
"""Standard normal quantile of a two-sided 95% interval."""

SIC_BACKGROUND_FLOOR = 25
"""Background events that a threshold must keep for its significance improvement to count: 25 events know
their efficiency to 20%, so the improvement to 10%."""

ECE_BINS = 15
PROBABILITY_FLOOR = 1e-6
"""Probabilities are clipped to [1e-6, 1 - 1e-6] in the likelihood, so that one sure mistake costs 13.8 nats,
not infinity."""


def metrics_of(
    labels: ArrayLike, p_signal: ArrayLike, answers: ArrayLike | None = None, *, threshold: float = 0.5
) -> Metrics:
    """The metrics of `(n,)` truth labels (1 signal, 0 background) and probabilities of signal.

    `answers` are what was answered in words: 1, 0, or -1 where it was neither label.

    Raises `BadInput` without events, for other labels, and for probabilities outside [0, 1].
    """
    truth = np.asarray(labels).astype(np.int64)
    score = np.asarray(p_signal, dtype=np.float64)
    check_scores(truth, score, where="scores")
    if truth.size == 0:
        raise BadInput("scores: there is no event to evaluate. Make the split larger.")
    confusion = _confusion_of(truth, score >= threshold)
    right = confusion.tp + confusion.tn
    low, high = wilson_interval(right, truth.size)
    return Metrics(
        n=truth.size,
        n_signal=int(truth.sum()),
        threshold=threshold,
        accuracy=right / truth.size,
        accuracy_low=low,
        accuracy_high=high,
        ece_bins=ECE_BINS,
        confusion=confusion,
        **_balanced_fields(confusion),
        **_calibration_fields(truth, score),
        **_mean_fields("brier", (score - truth) ** 2),
        **_mean_fields("nll", -log_likelihoods(truth, score)),
        **_answer_fields(truth, score, answers),
        **_auc_fields(truth, score),
        **_sic_fields(truth, score),
    )


def _answer_fields(
    truth: NDArray[np.int64], score: NDArray[np.float64], answers: ArrayLike | None
) -> dict[str, Any]:
    if answers is None:
        return {}
    said = np.asarray(answers)
    right = int(np.count_nonzero(said == truth))
    low, high = wilson_interval(right, truth.size)
    return {
        "unknown": int(np.count_nonzero(said < 0)),
        "generated_accuracy": right / truth.size,
        "generated_accuracy_low": low,
        "generated_accuracy_high": high,
        "agreement": float(np.mean(said == (score >= 0.5))),
    }


def wilson_interval(k: int, n: int) -> tuple[float, float]:
    """Interval of a binomial share of `k` in `n`, 95%.

    Wilson, J. Am. Stat. Assoc. 22 (1927) 209: it inverts the score test, so it neither leaves [0, 1] nor
    shrinks to a point at k = 0 or k = n.
    """
    if not 0 <= k <= n or n < 1:
        raise BadInput(f"{k} of {n} is not a share.")
    found = binomtest(k, n).proportion_ci(method="wilson")
    # The bounds are exact at the ends, where rounding would leave the interval by an ulp.
    return (0.0 if k == 0 else float(found.low)), (1.0 if k == n else float(found.high))


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """Interval of the mean of `(n,)` values, 95%, by its normal limit; None of a single one."""
    if values.size < 2:
        return None
    mean, error = float(values.mean()), Z95 * float(values.std(ddof=1)) / math.sqrt(values.size)
    return mean - error, mean + error


def log_likelihoods(labels: NDArray[np.integer], score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each event `(n,)`, in nats, with the probability of its label clipped to `PROBABILITY_FLOOR`."""
    of_label = np.where(labels == 1, score, 1.0 - score)
    return np.asarray(np.log(of_label.clip(PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)))


def _mean_fields(name: str, losses: NDArray[np.float64]) -> dict[str, Any]:
    """A mean of what no event has less than 0 of."""
    low, high = mean_interval(losses) or (None, None)
    return {
        name: float(losses.mean()),
        f"{name}_low": None if low is None else max(0.0, low),
        f"{name}_high": high,
    }


def delong_error(labels: NDArray[np.int64], score: NDArray[np.float64]) -> float | None:
    """Standard error of the AUC; None with fewer than two events of a class or no overlap at all.

    DeLong, DeLong and Clarke-Pearson, Biometrics 44 (1988) 837, by midranks in O(n log n): Sun and Xu, IEEE
    Signal Process. Lett. 21 (2014) 1389.
    """
    of_signal, of_background = placements(labels, score)
    m, n = of_signal.size, of_background.size
    if min(m, n) < 2:
        return None
    variance = of_signal.var(ddof=1) / m + of_background.var(ddof=1) / n
    return float(math.sqrt(variance)) if variance > 0 else None


def placements(
    labels: NDArray[np.int64], score: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Placement values of the signal events, `(n_signal,)`, and of the background, `(n_background,)`.

    That of a signal event is the share of background that it beats, a tie counting half; their mean is the AUC. That
    of a background event is one less the share of signal that it loses to.
    """
    signal, background = score[labels == 1], score[labels == 0]
    m, n = signal.size, background.size
    together = rankdata(np.concatenate([signal, background]))
    return (together[:m] - rankdata(signal)) / max(n, 1), (together[m:] - rankdata(background)) / max(m, 1)


def calibration_error(
    labels: NDArray[np.int64], score: NDArray[np.float64], *, bins: int = ECE_BINS
) -> tuple[float, float, float]:
    """Mean distance between predicted and true signal share over bins of equal occupancy, with an interval.

    Equal scores stay in one bin, so the order of the events does not matter. Equal occupancy after Nixon et
    al., arXiv:1904.01685: with bins of equal width most events of a sharp classifier fall in two of them.

    The interval covers 95% or more. Distances add up noise of either sign, so a calibrated classifier shows an error
    above 0, and the bootstrap, which adds noise again, an interval above the truth. The two bounds are what holds
    whatever the truth is: it is at least the error less the sum of the bins' absolute noise (the triangle
    inequality), and at most the expected error (Jensen's), each at 97.5% with normal noise in each bin.
    """
    edges = np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1])
    place = np.searchsorted(edges, score, side="right")
    surplus = score - labels
    count = np.bincount(place, minlength=bins)
    total = np.bincount(place, weights=surplus, minlength=bins)
    squares = np.bincount(place, weights=surplus**2, minlength=bins)
    filled = count > 1  # a bin of one event does not know its noise; it has the largest there is
    variance = np.where(count == 1, 0.25, 0.0)
    variance[filled] = (squares - total**2 / np.maximum(count, 1))[filled] * (
        count / np.maximum(count - 1, 1)
    )[filled]
    error, noise = float(np.abs(total).sum()), np.sqrt(variance.clip(0.0))
    absolute = noise.sum() * math.sqrt(2 / math.pi) + Z95 * math.sqrt((noise**2).sum() * (1 - 2 / math.pi))
    n = score.size
    return error / n, max(0.0, error - absolute) / n, min(n, error + Z95 * math.sqrt((noise**2).sum())) / n


def _calibration_fields(truth: NDArray[np.int64], score: NDArray[np.float64]) -> dict[str, Any]:
    error, low, high = calibration_error(truth, score)
    return {"ece": error, "ece_low": low, "ece_high": high}


def _confusion_of(truth: NDArray[np.int64], chosen: NDArray[np.bool_]) -> Confusion:
    (tn, fp), (fn, tp) = confusion_matrix(truth, chosen, labels=[0, 1]).tolist()
    return Confusion(tp=tp, fp=fp, tn=tn, fn=fn)


def _balanced_fields(confusion: Confusion) -> dict[str, Any]:
    """The mean of two shares, whose Wilson intervals give its own.

    By the method of variance estimates recovery: Newcombe, Stat. Med. 17 (1998) 873; Zou and Donner, Stat. Med. 27
    (2008) 1693.
    """
    n_signal, n_background = confusion.tp + confusion.fn, confusion.tn + confusion.fp
    if not n_signal or not n_background:
        return dict.fromkeys(("balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high"))
    shares = [(confusion.tp, n_signal), (confusion.tn, n_background)]
    value = sum(k / n for k, n in shares) / 2.0
    bounds = [(k / n, *wilson_interval(k, n)) for k, n in shares]
    return {
        "balanced_accuracy": value,
        "balanced_accuracy_low": value - math.hypot(*(share - low for share, low, _ in bounds)) / 2.0,
        "balanced_accuracy_high": value + math.hypot(*(high - share for share, _, high in bounds)) / 2.0,
    }


def _auc_fields(truth: NDArray[np.int64], score: NDArray[np.float64]) -> dict[str, Any]:
    if truth.min() == truth.max():
        return {"auc": None, "auc_error": None, "auc_low": None, "auc_high": None}
    auc = float(roc_auc_score(truth, score))
    error = delong_error(truth, score)
    if error is None or not 0 < auc < 1:
        return {"auc": auc, "auc_error": None, "auc_low": None, "auc_high": None}
    logit = math.log(auc / (1 - auc))
    spread = Z95 * error / (auc * (1 - auc))
    return {
        "auc": auc,
        "auc_error": error,
        "auc_low": 1 / (1 + math.exp(spread - logit)),
        "auc_high": 1 / (1 + math.exp(-spread - logit)),
    }


def _sic_fields(truth: NDArray[np.int64], score: NDArray[np.float64]) -> dict[str, Any]:
    n_background = int((truth == 0).sum())
    found: dict[str, Any] = {
        "max_sic": None,
        "max_sic_signal_efficiency": None,
        "max_sic_background_efficiency": None,
        "max_sic_background_floor": SIC_BACKGROUND_FLOOR,
    }
    if n_background < SIC_BACKGROUND_FLOOR or n_background == truth.size:
        return found
    eps_b, eps_s, _ = roc_curve(truth, score, drop_intermediate=False)
    kept = np.rint(eps_b * n_background) >= SIC_BACKGROUND_FLOOR
    eps_b, eps_s = eps_b[kept], eps_s[kept]
    best = int(np.argmax(eps_s / np.sqrt(eps_b)))
    return found | {
        "max_sic": float(eps_s[best] / math.sqrt(eps_b[best])),
        "max_sic_signal_efficiency": float(eps_s[best]),
        "max_sic_background_efficiency": float(eps_b[best]),
    }
