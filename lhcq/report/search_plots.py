"""The plots of a search: local p-values by mass, selected spectra with fits and pulls, and looks of the excess."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import norm

from lhcq.report.style import BACKGROUND, FAINT, INK, MODEL, RATE, SIGNAL, Plot, scale_log

_COLOURS = (MODEL, RATE, SIGNAL, BACKGROUND)
_MARKERS = "osD^"
_SMALLEST = 1e-300


def plot_tests(found: dict[str, Any]) -> Plot:
    """Local p-values by m_jj, one line a selection, with that of all events and lines of equal σ."""
    n_tests = len(found["tests"])
    return Plot(
        draw=lambda axes: _draw_tests(axes, found),
        left=found["name"],
        right=f"{found['n_events']:,} events, {n_tests} test{'s' if n_tests > 1 else ''}",
    )


def _draw_tests(axes: Axes, found: dict[str, Any]) -> None:
    shares = found["config"]["selections"]
    groups = [([test for test in found["tests"] if test["share"] == share], share) for share in shares]
    groups.append((found["inclusive"], 1.0))
    smallest = 0.3
    for place, (tests, share) in enumerate(groups):
        there = [test for test in tests if test["p_value"] is not None]
        if not there:
            continue
        masses = [(test["low"] + test["high"]) / 2 for test in there]
        values = [max(test["p_value"], _SMALLEST) for test in there]
        smallest = min(smallest, *values)
        inclusive = share == 1.0
        axes.errorbar(
            masses,
            values,
            xerr=(there[0]["high"] - there[0]["low"]) / 2,
            fmt="--" if inclusive else "-",
            marker="x" if inclusive else _MARKERS[place % 4],
            ms=5,
            lw=1.2,
            elinewidth=0.6,
            capsize=0,
            color=FAINT if inclusive else _COLOURS[place % 4],
            label="all events" if inclusive else f"{share:.2%} selected",
        )
    edges = found["edges"]
    sigma = 1
    most = max(float(norm.isf(smallest)) + 1.0, 3.5)
    while sigma <= most:
        axes.axhline(norm.sf(sigma), color=FAINT, lw=0.7, ls=":")
        if most < 12 or sigma % 5 == 0:
            axes.annotate(f"{sigma}σ", (1, norm.sf(sigma)), (-4, 2), xycoords=("axes fraction", "data"),
                          textcoords="offset points", ha="right", fontsize=8.5, color=FAINT)  # fmt: skip
        sigma += 1
    scale_log(axes, norm.sf(most), 3.0)
    axes.set_xlim(max(edges[0], found["config"]["low"] - 200), found["config"]["high"] + 200)
    axes.set_xlabel(r"$m_{jj}$ [GeV]", color=INK)
    axes.set_ylabel("Local p-value")
    axes.legend(loc="best")


def plot_spectrum(found: dict[str, Any], test: dict[str, Any]) -> Plot:
    """The selected events of a test with what was fitted beside its region, and pulls."""
    edges = np.array(found["edges"])
    counts = np.array(test["counts"], float)
    expected, band = (np.array(test["fit"][name]) for name in ("expected", "band"))
    last = np.flatnonzero((counts > 0) | (expected > 0.2))
    stop = int(last[-1]) + 1 if len(last) else len(counts)
    shown = slice(0, min(stop + 1, len(counts)))
    return Plot(
        draw=lambda axes: _draw_spectrum(
            axes, edges, counts, expected, band, test, shown, _peak_of(found, test)
        ),
        left=f"{test['low']:,.0f}–{test['high']:,.0f} GeV",
        right=f"{test['share']:.2%} selected, {test['z']:.1f} σ",
        below=lambda axes: _draw_pulls(axes, edges, counts, expected, test, shown),
    )


def _peak_of(found: dict[str, Any], test: dict[str, Any]) -> dict[str, Any] | None:
    """The Gaussian over the function, of the largest excess alone; a search of before has not kept it."""
    mass = (found["excess"] or {}).get("mass")
    return mass if mass and "expected" in mass and test == found["tests"][found["best"]] else None


def _draw_spectrum(
    axes: Axes,
    edges: Any,
    counts: Any,
    expected: Any,
    band: Any,
    test: dict[str, Any],
    shown: slice,
    peak: dict[str, Any] | None,
) -> None:
    shown_edges = edges[shown.start : shown.stop + 1]
    axes.axvspan(test["low"], test["high"], color=SIGNAL, alpha=0.08, lw=0)
    axes.stairs(
        (expected + band)[shown],
        shown_edges,
        baseline=(expected - band)[shown].clip(min=1e-3),
        fill=True,
        color=BACKGROUND,
        alpha=0.3,
    )
    parameters = test["fit"]["parameters"]
    axes.stairs(
        expected[shown],
        shown_edges,
        baseline=None,
        color=BACKGROUND,
        lw=1.5,
        label=f"fit, {parameters} parameters",
    )
    if peak is not None:
        axes.stairs(
            np.array(peak["expected"])[shown],
            shown_edges,
            baseline=None,
            color=SIGNAL,
            lw=1.2,
            ls="--",
            label=f"with a Gaussian at {peak['value']:,.0f} GeV",
        )
    centres = (edges[:-1] + edges[1:]) / 2
    there = (counts > 0) & (centres < shown_edges[-1])
    axes.errorbar(
        centres[there],
        counts[there],
        yerr=np.sqrt(counts[there]),
        fmt="o",
        ms=3,
        lw=0.9,
        capsize=0,
        color=MODEL,
        label="selected events",
    )
    scale_log(axes, 0.2, 8 * max(counts.max(), expected.max(), 1.0))
    axes.set_xlim(shown_edges[0], shown_edges[-1])
    axes.set_xlabel(r"$m_{jj}$ [GeV]", color=INK)
    axes.set_ylabel(f"Events / {edges[1] - edges[0]:g} GeV")
    axes.legend(
        loc="upper right",
        title=f"{test['seen']:,} seen, {test['expected']:,.1f} ± {test['error']:,.1f} expected",
    )


def _draw_pulls(
    axes: Axes, edges: Any, counts: Any, expected: Any, test: dict[str, Any], shown: slice
) -> None:
    """The signed root of each bin's likelihood ratio, which is the usual pull where a bin expects many events."""
    log = np.log(np.maximum(counts, 1.0) / expected)
    ratio = 2 * (counts * log - (counts - expected))
    pulls = np.sign(counts - expected) * np.sqrt(np.maximum(ratio, 0.0))
    axes.axvspan(test["low"], test["high"], color=SIGNAL, alpha=0.08, lw=0)
    axes.axhline(0, color=FAINT, lw=0.8)
    axes.stairs(pulls[shown], edges[shown.start : shown.stop + 1], fill=True, color=MODEL, alpha=0.6)
    most = max(3.5, 1.1 * float(np.abs(pulls[shown]).max()))
    axes.set_ylim(-most, most)
    axes.set_ylabel("Pull", loc="center")


def plot_look(excess: dict[str, Any], name: str, meaning: tuple[str, str]) -> Plot:
    """One feature of the selected events of a region, beside what background gives of them."""
    look = excess["looks"][name]
    title, unit = meaning
    return Plot(
        draw=lambda axes: _draw_look(axes, look, f"{title} [{unit}]" if unit else title),
        left=f"{excess['low']:,.0f}–{excess['high']:,.0f} GeV",
        right=f"{excess['share']:.2%} selected",
    )


def _draw_look(axes: Axes, look: dict[str, Any], title: str) -> None:
    edges, inside = np.array(look["edges"]), np.array(look["inside"], float)
    axes.stairs(
        look["expected"], edges, fill=True, color=BACKGROUND, alpha=0.35, label="expected of background"
    )
    centres = (edges[:-1] + edges[1:]) / 2
    there = inside > 0
    axes.errorbar(
        centres[there],
        inside[there],
        yerr=np.sqrt(inside[there]),
        fmt="o",
        ms=3.5,
        color=MODEL,
        label="selected events",
    )
    if look["median"] is not None:
        axes.axvline(look["median"], color=SIGNAL, lw=1.2, ls="--", label="median of the excess")
    axes.set_ylim(0, 1.45 * max(inside.max() + np.sqrt(inside.max()), 1.0))
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel(title, color=INK)
    axes.set_ylabel("Events")
    axes.legend(loc="upper right")
