"""The plots of a scan: significance, and its improvement, against the number of signal events put in."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lhcq.report.style import BACKGROUND, FAINT, INK, MODEL, RATE, SIGNAL, Plot

Value = Callable[[dict[str, Any]], float | None]
Line = str | tuple[int, tuple[int, ...]]

_STYLES: dict[str, tuple[str, Line, str]] = {
    "idealised": (BACKGROUND, "--", "idealised"),
    "supervised": (SIGNAL, "-.", "supervised"),
}
_SEARCHING: tuple[tuple[str, Line], ...] = ((MODEL, "-"), (RATE, (0, (4, 1, 1, 1))))
"""Of those without labels: the scan's own, and the trees beside it."""


def plot_significances(found: dict[str, Any], place: int) -> Plot:
    """Significance in the region by learner in the selection at `place`, with that of all events and S/√B."""
    return Plot(
        draw=lambda axes: _draw_significances(axes, found, place),
        left=found["name"],
        right=_said(found, place),
    )


def plot_improvements(found: dict[str, Any], place: int) -> Plot:
    """Significance improvement in the region, by labels: signal's selected share over the root of background's."""
    return Plot(
        draw=lambda axes: _draw_improvements(axes, found, place),
        left=found["name"],
        right=_said(found, place),
    )


def _said(found: dict[str, Any], place: int) -> str:
    low, high = found["region"]
    return f"{low:,.0f}–{high:,.0f} GeV, {found['config']['selections'][place]:.2%} selected"


def _draw_significances(axes: Axes, found: dict[str, Any], place: int) -> None:
    _band(axes, found, lambda point: point["in"], FAINT, ":", "S/√B in the region")
    _band(axes, found, lambda point: point["inclusive"], FAINT, (0, (6, 2)), "all events, fit")
    _draw_learners(axes, found, place, "z")
    axes.axhline(5, color=FAINT, lw=0.7)
    axes.set_ylabel("Significance [σ]")
    _finish(axes, found)


def _draw_improvements(axes: Axes, found: dict[str, Any], place: int) -> None:
    _draw_learners(axes, found, place, "improvement")
    axes.axhline(1, color=FAINT, lw=0.7)
    axes.set_ylabel(r"Significance improvement, $\epsilon_S\,/\,\epsilon_B^{1/2}$")
    _finish(axes, found)


def _draw_learners(axes: Axes, found: dict[str, Any], place: int, field: str) -> None:
    searching = [name for name in found["learners"] if name not in _STYLES]
    for name in found["learners"]:
        if name in _STYLES:
            colour, line, label = _STYLES[name]
        else:
            colour, line = _SEARCHING[searching.index(name)]
            label = f"{name}, without labels"
        _band(axes, found, _of_learner(name, place, field), colour, line, label)


def _of_learner(name: str, place: int, field: str) -> Value:
    def value(point: dict[str, Any]) -> float | None:
        found: float | None = point["learners"][name][place][field]
        return found

    return value


def _band(axes: Axes, found: dict[str, Any], value: Value, colour: str, line: Line, label: str) -> None:
    """The median over the seeds, and from the least to the most."""
    there: list[tuple[int, list[float]]] = []
    for n in sorted({point["put_in"] for point in found["points"]}):
        values = [v for point in found["points"] if point["put_in"] == n and (v := value(point)) is not None]
        if values:
            there.append((n, values))
    numbers = [n for n, _ in there]
    medians = [float(np.median(values)) for _, values in there]
    marker = "o" if len(there) == 1 else None
    axes.plot(numbers, medians, linestyle=line, color=colour, label=label, marker=marker, ms=4)
    if len(there) > 1:
        low, high = ([reach(values) for _, values in there] for reach in (min, max))
        axes.fill_between(numbers, low, high, color=colour, alpha=0.15, lw=0)


def _finish(axes: Axes, found: dict[str, Any]) -> None:
    axes.set_xlabel(f"Signal events among {found['n_background']:,} of background", color=INK)
    low, high = axes.get_ylim()
    axes.set_ylim(min(0.0, low), high + 0.35 * max(high, 1.0))  # the legend stands above the lines
    axes.set_xlim(0, max(1, *(point["put_in"] for point in found["points"])))
    axes.legend(loc="upper left", ncols=2, fontsize=8.5)
