"""What a classifier is worth on some events, as it is kept on disk: each number with its interval."""

from lhcq.frozen import Kept


class Confusion(Kept):
    """Events by truth and decision; signal is positive."""

    tp: int
    fp: int
    tn: int
    fn: int


class Metrics(Kept):
    """What a classifier is worth on some events. What is undefined, as the AUC of one class, is None, and so are
    intervals that an older lhcq did not give."""

    n: int
    n_signal: int
    threshold: float
    """An event counts as signal when P(signal) is at least this."""
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    """Wilson interval, 95%."""
    balanced_accuracy: float | None
    """Mean of the signal and the background efficiency: does not depend on the class ratio."""
    balanced_accuracy_low: float | None = None
    balanced_accuracy_high: float | None = None
    """95% interval, from the Wilson intervals of both efficiencies."""
    auc: float | None
    auc_error: float | None
    """Standard error by DeLong; None when the estimate degenerates, as it does for a perfect separation."""
    auc_low: float | None
    auc_high: float | None
    """95% interval, symmetric in logit(AUC), so that it stays inside [0, 1]."""
    max_sic: float | None
    """Largest eps_S / sqrt(eps_B). Being a maximum over thresholds, it is biased upwards on few events."""
    max_sic_signal_efficiency: float | None
    max_sic_background_efficiency: float | None
    max_sic_background_floor: int
    """Only thresholds that keep at least so many background events took part in `max_sic`."""
    ece: float
    """Expected calibration error of P(signal), over `ece_bins` bins of equal occupancy. On few events it is above 0
    however well a classifier is calibrated."""
    ece_low: float | None = None
    ece_high: float | None = None
    """Interval, 95% or more: from 0 where these events cannot tell the classifier from a calibrated one."""
    ece_bins: int
    brier: float
    """Mean squared distance of P(signal) and the label."""
    brier_low: float | None = None
    brier_high: float | None = None
    """95% interval of the mean, by its normal limit; None of a single event."""
    nll: float
    """Mean negative log-likelihood in nats, probabilities clipped to [1e-6, 1 - 1e-6]."""
    nll_low: float | None = None
    nll_high: float | None = None
    """95% interval of the mean, by its normal limit; None of a single event."""
    confusion: Confusion
    unknown: int | None = None
    """Events whose generated answer is neither label; the choice between the two labels is counted all the same. None
    where nobody was asked for words, as of trees. A validation by an older lhcq, which generated no answers, counts
    the events where neither label was the likeliest token."""
    generated_accuracy: float | None = None
    """Share of events whose generated answer is their label: what is neither label is wrong."""
    generated_accuracy_low: float | None = None
    generated_accuracy_high: float | None = None
    """Wilson interval, 95%."""
    agreement: float | None = None
    """Share of events whose generated answer is the likelier of the two labels."""


class Calibration(Kept):
    """What was fitted, and on how many events."""

    n: int
    n_signal: int
    temperature: float
    """Logits are divided by it: above 1 the model was too sure of itself."""
    balanced_threshold: float
    """Of the calibrated P(signal), with the best balanced accuracy."""
    rare_threshold: float | None
    """Of the calibrated P(signal), with the best eps_S / sqrt(eps_B); None with too few background events."""


class NaturalMetrics(Kept):
    """What a selection by a threshold is worth where signal is a given share of the events."""

    threshold: float
    signal_fraction: float
    signal_efficiency: float
    background_efficiency: float
    precision: float | None
    """Share of signal among the selected events; None where nothing is selected."""
    precision_low: float
    """With the unfavourable ends of the 95% intervals of both efficiencies."""
    significance_improvement: float | None
    """eps_S / sqrt(eps_B); None where no background event was selected."""
    significance_improvement_low: float


class Gain(Kept):
    """By how many nats an event the log-likelihood is changed, and the 95% interval; no bounds for a single event."""

    mean: float
    low: float | None
    high: float | None


class Sculpting(Kept):
    """How far background that a selection keeps has another m_jj than background that it does not keep."""

    n_selected: int
    n_others: int
    distance: float
    """The largest distance of the two cumulative distributions (Kolmogorov-Smirnov): 0 where they are the same."""
    low: float
    high: float
    """Interval of the true distance, 95% or more."""
    p_value: float
    """For so large a distance or a larger one of two samples of one distribution."""


class CalibratedMetrics(Kept):
    """The test subset under a calibration."""

    calibration: Calibration
    calibrated: Metrics
    """With the calibrated probabilities, at the threshold of the best balanced accuracy."""
    natural: tuple[NaturalMetrics, ...]
    gain: Gain | None = None
    """What the temperature does to the likelihood of these events; None of a run of before it was looked at."""
    sculpting: Sculpting | None = None
    """Of the selection by the threshold for rare signal. None without one, without m_jj, and of a run of before it
    was looked at."""
