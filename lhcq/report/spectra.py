"""The picture of a dataset: its quantities by class, as experiments draw theirs."""

import math
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from lhcq.records.labels import LABELS, UNLABELLED
from lhcq.report.dataset import DatasetView, Spectrum
from lhcq.report.style import BACKGROUND, FAINT, INK, PARAMETERS, SIGNAL, saved, scale_log

_BACKGROUND, _SIGNAL = LABELS
COLOURS = {_BACKGROUND: BACKGROUND, _SIGNAL: SIGNAL, UNLABELLED: "#717581"}
LINES = {_BACKGROUND: 1.6, _SIGNAL: 2.0, UNLABELLED: 1.6}
"""Widths in points."""
FILL = 0.25
"""Opacity of the area of background; signal is a line, so that the two differ without colour."""

_PANEL = (5.0, 3.9)  # inches
_HEADER = 0.75
_LEFT = 0.95
_DPI = 120

# Sizes of a picture of many panels, which is shown half as large.
_PARAMETERS: Any = {
    **PARAMETERS,
    "axes.labelpad": 5,
    "axes.labelsize": 16,
    "axes.linewidth": 1.1,
    "errorbar.capsize": 0,
    "font.size": 13,
    "lines.linewidth": 1.8,
    "savefig.bbox": None,
    "xtick.labelsize": 13,
    "ytick.labelsize": 13,
    "xtick.major.size": 7,
    "xtick.minor.size": 3.5,
    "ytick.major.size": 7,
    "ytick.minor.size": 3.5,
}


def draw_picture(view: DatasetView, form: str = "png") -> bytes:
    """The picture as the bytes of a `png`, `pdf` or `svg`: a panel a quantity under one heading and one legend."""
    n_columns, n_rows = plan_grid(len(view.spectra))
    width, height = n_columns * _PANEL[0], n_rows * _PANEL[1] + _HEADER
    with mpl.rc_context(_PARAMETERS):
        figure = Figure(figsize=(width, height), dpi=_DPI)
        figure.subplots_adjust(
            left=_LEFT / width,
            right=1 - 0.25 / width,
            bottom=0.7 / height,
            top=1 - (_HEADER + 0.1) / height,
            wspace=1.15 / (_PANEL[0] - 1.15),
            hspace=0.95 / (_PANEL[1] - 0.95),
        )
        panels = np.atleast_1d(figure.subplots(n_rows, n_columns)).ravel()
        for axes, spectrum in zip(panels, view.spectra, strict=False):
            draw_spectrum(axes, spectrum)
        for axes in panels[len(view.spectra) :]:
            axes.set_axis_off()
        _draw_heading(figure, view, width, height)
        return saved(figure, form, dpi=_DPI)


def plan_grid(n_panels: int) -> tuple[int, int]:
    """Columns and rows for so many panels: no wider than a slide, with the fewest places empty."""
    if n_panels <= 3:
        return max(n_panels, 1), 1
    n_columns = min((3, 4), key=lambda columns: (-n_panels % columns, columns))
    if n_panels == 4:
        n_columns = 2
    return n_columns, math.ceil(n_panels / n_columns)


def draw_spectrum(axes: Axes, spectrum: Spectrum) -> None:
    """A quantity of each class, normalised to one, with statistical errors."""
    edges, quantity = spectrum.edges, spectrum.quantity
    for kind, found in spectrum.classes.items():
        look: dict[str, Any] = {"ax": axes, "color": COLOURS[kind], "flow": "none"}
        if kind != _SIGNAL:
            mplhep.histplot(found.shares, edges, histtype="fill", alpha=FILL, **look)
        errors = np.where(found.counts > 0, found.errors, np.nan)
        mplhep.histplot(found.shares, edges, histtype="step", yerr=errors, linewidth=LINES[kind], **look)
    axes.set_xlim(edges[0], edges[-1])
    low, high = _range(spectrum)
    if quantity.log:
        scale_log(axes, 0.4 * low, 2 * high)
    else:
        axes.set_ylim(0, 1.08 * high)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    width = f"{edges[1] - edges[0]:.3g} {quantity.unit}".strip()
    axes.set_xlabel(f"{quantity.axis} [{quantity.unit}]" if quantity.unit else quantity.axis)
    axes.set_ylabel("Fraction of events" if width == "1" else f"Fraction / {width}")
    axes.yaxis.set_label_coords(-0.16, 1.0)  # in line, however long the numbers are


def _range(spectrum: Spectrum) -> tuple[float, float]:
    """The smallest share that is not zero, and the largest with its error."""
    classes = spectrum.classes.values()
    low = min(float(found.shares[found.counts > 0].min()) for found in classes)
    return low, max(float((found.shares + found.errors).max()) for found in classes)


def _draw_heading(figure: Figure, view: DatasetView, width: float, height: float) -> None:
    y = 1 - 0.42 / height
    left = "LHC Olympics 2020" if view.doi else "lhcq"
    text = figure.text(_LEFT / width, y, left, fontsize=21, fontweight="bold", va="baseline", color=INK)
    right_edge = text.get_window_extent().x1 / figure.bbox.width
    events = f"{_shortened(view.source)}, {view.n_events:,} events"
    figure.text(right_edge + 0.15 / width, y, events, fontsize=15, va="baseline", color=FAINT)
    figure.legend(
        handles=list(_handles(view)),
        loc="center right",
        bbox_to_anchor=(1 - 0.2 / width, y + 0.08 / height),
        ncols=3,
        fontsize=15,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.4,
        handlelength=1.6,
    )


def _handles(view: DatasetView) -> Iterable[Patch | Line2D]:
    for kind, count in view.n_by_class.items():
        colour = COLOURS[kind]
        label = f"{kind if kind != 'unknown' else 'unlabelled'} ({count:,})"
        if kind == _SIGNAL:
            yield Line2D([], [], color=colour, lw=LINES[kind], label=label)
        else:
            yield Patch(
                facecolor=(*mpl.colors.to_rgb(colour), FILL), edgecolor=colour, lw=LINES[kind], label=label
            )


def _shortened(name: str, longest: int = 36) -> str:
    """The ends of a long name tell more than its middle."""
    return name if len(name) <= longest else f"{name[: longest - 17]}…{name[-16:]}"
