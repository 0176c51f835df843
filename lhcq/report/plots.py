"""The plots of a report, each drawn when it is asked for, or None while its data is not there yet."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from lhcq.records.labels import LABELS
from lhcq.records.validations import Evaluation
from lhcq.report.style import (
    BACKGROUND,
    FAINT,
    INK,
    MODEL,
    PAPER,
    PROMPT_TREES,
    RATE,
    SIGNAL,
    STUDY,
    TREES,
    Plot,
    scale_log,
)
from lhcq.report.verdict import STUDY_ACCURACY
from lhcq.report.views import Checkpoint, RunView

CALIBRATION_BINS = 10


def plot_run(view: RunView) -> dict[str, Plot | None]:
    """Every plot of the report by name."""
    return {
        "loss": _drawn(view, draw_loss if view.history.steps.size else None, subset="training"),
        "accuracy": _by_checkpoint(view, "accuracy"),
        "auc": _by_checkpoint(view, "auc"),
        "roc": _drawn(view, draw_roc if _has_both_classes(view.shown) else None),
        "sic": _drawn(view, draw_sic if _has_both_classes(view.shown) else None),
        "scores": _drawn(view, draw_scores if view.shown else None),
        "calibration": _drawn(view, draw_calibration if view.shown else None),
        "m_heavy": _spectrum(view, "m_heavy", "Mass of the heavier leading jet [GeV]"),
        "mjj": _spectrum(view, "mjj", r"$m_{jj}$ [GeV]"),
    }


def draw_loss(axes: Axes, view: RunView) -> None:
    """Training loss, raw and smoothed, the validation likelihood, and the learning rate."""
    history = view.history
    axes.plot(history.steps, history.loss, color=MODEL, alpha=0.25, lw=0.8, label="training, each step")
    width = max(3, history.steps.size // 20)
    if history.steps.size > width:
        axes.plot(
            history.steps, running_mean(history.loss, width), color=MODEL, label=f"mean of {width} steps"
        )
    done = [one for one in view.checkpoints if one.metrics]
    if done:
        nll = [one.metrics.nll for one in done if one.metrics]
        axes.plot([one.step for one in done], nll, "o", color=INK, mfc=PAPER, label="validation (NLL)")
    axes.axhline(math.log(2), color=FAINT, lw=1, ls=":")
    axes.annotate("ln 2: coin toss", (0.98, math.log(2)), (0, 3), xycoords=("axes fraction", "data"),
                  textcoords="offset points", fontsize=8.5, color=FAINT, ha="right")  # fmt: skip
    shown = history.loss[np.isfinite(history.loss)]
    if shown.size:
        axes.set_ylim(0, 1.15 * max(0.8, float(np.quantile(shown, 0.995))))
    axes.set_xlabel("Optimizer step")
    axes.set_ylabel("Cross-entropy of the label [nats]")
    _draw_rate(axes, view)
    axes.legend(loc="upper right")
    _step_axis(axes, view)


def _draw_rate(axes: Axes, view: RunView) -> None:
    rate = view.history.learning_rate
    if not np.isfinite(rate).any():
        return
    power = math.floor(math.log10(max(float(np.nanmax(rate)), 1e-12)))
    axes.set_position((0.145, 0.135, 0.745, 0.785))  # room for the second axis
    right = axes.twinx()
    right.plot(view.history.steps, rate / 10.0**power, color=RATE, lw=1.2, ls="--")
    right.set_ylim(0, 2.6 * max(float(np.nanmax(rate)) / 10.0**power, 1e-3))
    right.set_ylabel(rf"Learning rate [$\mathrm{{10^{{{power}}}}}$]", color=RATE)
    right.tick_params(axis="y", which="both", colors=RATE)
    axes.tick_params(axis="y", which="both", right=False)


def draw_by_checkpoint(axes: Axes, view: RunView, name: str) -> None:
    """A metric of every validated checkpoint with its 95% interval, and the boosted trees' lines and bands."""
    done = [one for one in view.checkpoints if one.metrics]
    for one in done:
        _draw_checkpoint(axes, one, name, best=one.step == view.best_step)
    axes.plot([one.step for one in done], [_metrics(one)[name] for one in done], color=MODEL, lw=1, alpha=0.6)
    axes.plot([], [], "o", color=MODEL, mfc=PAPER, label="language model")
    axes.plot([], [], "o", color=MODEL, label="best checkpoint")
    for trees in _trees(view, "validation"):
        metrics = trees.evaluation.metrics.model_dump()
        axes.axhline(metrics[name], color=trees.colour, ls=trees.line, label=trees.name)
        if metrics[f"{name}_low"] is not None:
            axes.axhspan(
                metrics[f"{name}_low"], metrics[f"{name}_high"], color=trees.colour, alpha=0.16, lw=0
            )
    if name == "accuracy":
        axes.axhline(STUDY_ACCURACY, color=STUDY, ls=":", lw=1.6, label=f"reference study, {STUDY_ACCURACY}")
    axes.set_xlabel("Optimizer step")
    axes.set_ylabel("Validation accuracy" if name == "accuracy" else "Validation AUC")
    low, high = axes.get_ylim()
    axes.set_ylim(max(low - 0.35 * (high - low), 0), min(high + 0.02, 1.005))
    axes.legend(loc="lower right")
    _step_axis(axes, view)


def _draw_checkpoint(axes: Axes, one: Checkpoint, name: str, *, best: bool) -> None:
    metrics = _metrics(one)
    value, low, high = metrics[name], metrics[f"{name}_low"], metrics[f"{name}_high"]
    if value is None:
        return
    error = None if low is None else [[value - low], [high - value]]
    axes.errorbar([one.step], [value], yerr=error, fmt="o", color=MODEL, mfc=MODEL if best else PAPER, lw=1.3)


def draw_roc(axes: Axes, view: RunView) -> None:
    """Background rejection against signal efficiency, with 68% bands of the background's statistics."""
    shown = view.shown
    assert shown is not None  # noqa: S101  (the caller asked `_has_both_classes`)
    for one in _classifiers(view):
        _draw_roc_curve(axes, one)
    efficiency = np.linspace(0.01, 1, 100)
    axes.plot(efficiency, 1 / efficiency, color=FAINT, lw=1, ls=":", label="coin toss")
    axes.set_xlim(0, 1)
    n_background = int((shown.scores.labels == 0).sum())
    scale_log(axes, 1, max(20.0, 1.5 * n_background))
    floor = shown.metrics.max_sic_background_floor
    if n_background > floor:
        axes.axhline(n_background / floor, color=FAINT, lw=0.8)
        axes.annotate(f"above: fewer than {floor} background events", (0.02, n_background / floor), (0, 3),
                      textcoords="offset points", fontsize=8.5, color=FAINT,
                      bbox={"fc": PAPER, "ec": "none", "alpha": 0.8, "pad": 0.5})  # fmt: skip
    axes.set_xlabel(r"Signal efficiency $\varepsilon_S$")
    axes.set_ylabel(r"Background rejection $1/\varepsilon_B$")
    axes.legend(loc="lower left", frameon=True, framealpha=0.85, edgecolor="none")


def draw_sic(axes: Axes, view: RunView) -> None:
    """Significance improvement against signal efficiency, with 68% bands of the background's statistics.

    Where fewer background events pass than count for its maximum there is no curve.
    """
    largest = 1.0
    for one in _classifiers(view):
        scores = one.evaluation.scores
        eps_b, eps_s, _ = roc_curve(scores.labels, scores.p_signal)
        n_background = int((scores.labels == 0).sum())
        kept = np.rint(eps_b * n_background)
        floor = one.evaluation.metrics.max_sic_background_floor
        seen = np.flatnonzero(kept >= floor)
        if not seen.size:
            continue
        low, high = binomial_band(kept[seen], n_background)
        improvement = eps_s[seen] / np.sqrt(eps_b[seen])
        axes.plot(eps_s[seen], improvement, color=one.colour, ls=one.line, label=one.name)
        upper = eps_s[seen] / np.sqrt(low)
        axes.fill_between(eps_s[seen], eps_s[seen] / np.sqrt(high), upper, color=one.colour, alpha=0.15, lw=0)
        largest = max(largest, float(upper.max()))
        efficiency = np.array([0.0, 1.0])
        axes.plot(efficiency, efficiency * np.sqrt(n_background / floor), color=FAINT, lw=0.8)
    axes.plot([], [], color=FAINT, lw=0.8, label="the most that these events can show")
    efficiency = np.linspace(0, 1, 100)
    axes.plot(efficiency, np.sqrt(efficiency), color=FAINT, lw=1, ls=":", label="coin toss")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.6 * largest)
    axes.set_xlabel(r"Signal efficiency $\varepsilon_S$")
    axes.set_ylabel(r"Significance improvement $\varepsilon_S/$√$\varepsilon_B$")
    axes.legend(loc="upper left")


class _Drawn(NamedTuple):
    """A classifier as it is drawn."""

    evaluation: Evaluation
    name: str
    colour: str
    line: str
    marker: str


def _trees(view: RunView, subset: str) -> list[_Drawn]:
    looks = ((view.baseline.prompt, PROMPT_TREES, "--", "s"), (view.baseline.all, TREES, "-.", "D"))
    return [
        _Drawn(evaluation, trees.name, *look) for trees, *look in looks if (evaluation := trees.on(subset))
    ]


def _classifiers(view: RunView) -> list[_Drawn]:
    """The trees below, the shown checkpoint on top."""
    shown = view.shown
    model = [_Drawn(shown, f"language model, step {shown.step}", MODEL, "-", "o")] if shown else []
    return [*_trees(view, view.shown_subset), *model]


def _draw_roc_curve(axes: Axes, one: _Drawn) -> None:
    scores = one.evaluation.scores
    eps_b, eps_s, thresholds = roc_curve(scores.labels, scores.p_signal)
    n_background = int((scores.labels == 0).sum())
    kept = np.rint(eps_b * n_background)
    seen = np.flatnonzero(kept >= 1)
    # A long curve is thinned evenly in log(eps_B), as it is drawn.
    seen = seen[np.unique(np.geomspace(1, seen.size, 500).astype(np.int64)) - 1]
    low, high = binomial_band(kept[seen], n_background)
    named = f"{one.name}: AUC {one.evaluation.metrics.auc:.3f}"
    axes.plot(eps_s[seen], 1 / eps_b[seen], color=one.colour, ls=one.line, label=named)
    axes.fill_between(eps_s[seen], 1 / high, 1 / low, color=one.colour, alpha=0.15, lw=0)
    at_half = int(np.searchsorted(-thresholds, -0.5, side="right")) - 1
    if kept[at_half] >= 1:
        axes.plot(eps_s[at_half], 1 / eps_b[at_half], "o", color=one.colour, ms=5.5)


def draw_scores(axes: Axes, view: RunView) -> None:
    """P(signal) of signal and of background, each normalised to one."""
    shown = view.shown
    assert shown is not None  # noqa: S101  (the caller asked)
    edges = np.linspace(0, 1, 26)
    for label, colour, fill in ((0, BACKGROUND, 0.22), (1, SIGNAL, 0.0)):
        scores = shown.scores.p_signal[shown.scores.labels == label]
        if not scores.size:
            continue
        counts, _ = np.histogram(scores, edges)
        share, error = counts / scores.size, np.sqrt(counts) / scores.size
        axes.stairs(share, edges, color=colour, lw=1.6, label=f"{LABELS[label]} ({scores.size:,})")
        if fill:
            axes.stairs(share, edges, color=colour, fill=True, alpha=fill)
        axes.errorbar(_centres(edges), share, error, fmt="none", ecolor=colour, lw=1, capsize=0)
    axes.axvline(0.5, color=FAINT, lw=0.9, ls=":")
    axes.set_yscale("log")
    axes.set_xlim(0, 1)
    low, high = axes.get_ylim()
    scale_log(axes, low, high * 6)
    axes.set_xlabel("P(signal)")
    axes.set_ylabel("Share of events / 0.04")
    axes.legend(loc="upper center", ncols=2)


def draw_calibration(axes: Axes, view: RunView) -> None:
    """Observed signal share against predicted, in bins of equal occupancy with 95% intervals."""
    axes.plot([0, 1], [0, 1], color=FAINT, lw=1, ls=":", label="perfect")
    for one in _classifiers(view):
        scores = one.evaluation.scores
        mean, observed, low, high = reliability(scores.labels, scores.p_signal)
        axes.errorbar(
            mean, observed, [observed - low, high - observed], fmt=one.marker, color=one.colour, ms=5, lw=1.2,
            mfc=MODEL if one.evaluation is view.shown else PAPER,
            label=f"{one.name}: ECE {one.evaluation.metrics.ece:.3f}",
        )  # fmt: skip
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("Mean predicted P(signal)")
    axes.set_ylabel("Observed share of signal")
    axes.legend(loc="upper left")


def draw_spectrum(axes: Axes, view: RunView, name: str, label: str) -> None:
    """A mass of signal and background, and of the events that the model selects."""
    shown, masses = view.shown, view.masses
    assert shown is not None  # noqa: S101  (the caller asked)
    assert masses is not None  # noqa: S101
    values = masses[name]
    there = np.isfinite(values)
    edges = nice_edges(values[there])
    # Overflow and underflow are drawn in the outermost bins, so that no event is hidden.
    binned = np.clip(values, edges[0], np.nextafter(edges[-1], edges[0]))
    selected = shown.scores.p_signal >= shown.metrics.threshold

    def counts(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.histogram(binned[there & mask], edges)[0]

    is_signal = shown.scores.labels == 1
    axes.stairs(counts(~is_signal), edges, color=BACKGROUND, lw=1.6, label=LABELS[0])
    axes.stairs(counts(~is_signal), edges, color=BACKGROUND, fill=True, alpha=0.18)
    axes.stairs(counts(is_signal), edges, color=SIGNAL, lw=1.6, label=LABELS[1])
    axes.stairs(counts(~is_signal & selected), edges, color=BACKGROUND, fill=True, alpha=0.75,
                label="background selected")  # fmt: skip
    chosen = counts(selected)
    filled = chosen > 0
    axes.errorbar(_centres(edges)[filled], chosen[filled], np.sqrt(chosen[filled]), fmt="o", color=INK, ms=3.8,
                  lw=1, capsize=0, label="all selected")  # fmt: skip
    axes.set_xlim(edges[0], edges[-1])
    top = max(1.0, axes.get_ylim()[1])
    if is_signal.mean() < 0.2:  # a rare signal only shows on a logarithmic axis
        scale_log(axes, 0.5, 30 * top)
    else:
        axes.set_ylim(0, 1.35 * top)
    axes.set_xlabel(label)
    axes.set_ylabel(f"Events / {edges[1] - edges[0]:g} GeV")
    axes.legend(loc="upper right")


def running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Centred mean of the finite values within `width` steps; the window is cut off at both ends."""
    finite = np.isfinite(values)
    window = np.ones(width)
    total = np.convolve(np.where(finite, values, 0.0), window, mode="same")
    count = np.convolve(finite.astype(np.float64), window, mode="same")
    mean: NDArray[np.float64] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def binomial_band(
    k: NDArray[np.float64], n: NDArray[np.float64] | int, z: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson intervals of the shares `k` in `n` at `z` standard deviations (68% for 1)."""
    share = k / n
    shrunk = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrunk
    half = z / shrunk * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return np.minimum(centre - half, share).clip(min=0), np.maximum(centre + half, share).clip(max=1)


def reliability(
    labels: NDArray[Any], p_signal: NDArray[np.float64], *, bins: int = CALIBRATION_BINS
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean prediction, observed share, and its 95% bounds in the occupied bins of equal occupancy."""
    edges = np.quantile(p_signal, np.linspace(0, 1, bins + 1)[1:-1])
    place = np.searchsorted(edges, p_signal, side="right")
    n = np.bincount(place, minlength=bins).astype(np.float64)
    used = n > 0
    mean = np.bincount(place, weights=p_signal, minlength=bins)[used] / n[used]
    k = np.bincount(place, weights=labels, minlength=bins)[used].astype(np.float64)
    low, high = binomial_band(k, n[used], z=1.96)
    return mean, k / n[used], low, high


def nice_edges(values: NDArray[np.float64], *, target: int = 30) -> NDArray[np.float64]:
    """About `target` equal bins with round edges over the central 99% of the values, GeV."""
    low, high = np.quantile(values, [0.005, 0.995])
    rough = max(high - low, 1.0) / target
    power = 10.0 ** math.floor(math.log10(rough))
    width = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    first = math.floor(low / width)
    return width * np.arange(first, max(math.ceil(high / width), first + 1) + 1)


def _by_checkpoint(view: RunView, name: str) -> Plot | None:
    known = any(_metrics(one).get(name) is not None for one in view.checkpoints)
    return _drawn(view, partial(draw_by_checkpoint, name=name) if known else None, subset="validation")


def _spectrum(view: RunView, name: str, label: str) -> Plot | None:
    known = view.masses is not None and bool(np.isfinite(view.masses[name]).any())
    return _drawn(view, partial(draw_spectrum, name=name, label=label) if known else None)


def _drawn(view: RunView, draw: Callable[[Axes, RunView], None] | None, *, subset: str = "") -> Plot | None:
    """The plot, labelled with the run and with the subset that its events are from."""
    if draw is None:
        return None
    subset = subset or view.shown_subset
    one = {"validation": view.validation, "test": view.test}.get(subset)
    events = f", {one.scores.labels.size:,} events" if one else ""
    return Plot(draw=lambda axes: draw(axes, view), left=view.name, right=f"{subset}{events}")


def _metrics(one: Checkpoint) -> dict[str, Any]:
    return one.metrics.model_dump() if one.metrics else {}


def _has_both_classes(one: Evaluation | None) -> bool:
    return one is not None and one.metrics.auc is not None


def _centres(edges: NDArray[np.float64]) -> NDArray[np.float64]:
    return (edges[:-1] + edges[1:]) / 2


def _step_axis(axes: Axes, view: RunView) -> None:
    last = max([*(one.step for one in view.checkpoints), *view.history.steps.tolist()], default=1)
    axes.set_xlim(0, 1.04 * last)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
