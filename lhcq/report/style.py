"""How the plots look: one palette, one set of matplotlib parameters, and the same picture on a dark page.

Colours are told apart with the common colour-vision deficiencies (Petroff, arXiv:2107.02270), and every pair that
shares axes also differs in line style or marker.
"""

import base64
import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import mplhep
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, LogLocator, MaxNLocator, NullFormatter

INK, PAPER, GRID, FAINT = "#1f2328", "#ffffff", "#dfe3e8", "#6b747d"
SIGNAL, BACKGROUND = "#bd1f01", "#3f90da"
MODEL, STUDY, RATE = "#832db6", "#a96b59", "#e76300"
PROMPT_TREES, TREES = "#717581", "#b9ac70"

DARK = {
    INK: "#e6e8ea",
    PAPER: "#16191d",
    GRID: "#33393f",
    FAINT: "#9aa3ab",
    SIGNAL: "#ff6a4d",
    BACKGROUND: "#62a9ea",
    MODEL: "#c58af0",
    PROMPT_TREES: "#a9afb9",
    TREES: "#cfc48c",
    STUDY: "#d39a88",
    RATE: "#ff8c33",
}
"""Each colour on a dark page."""

# ATLAS's style for axes and fonts (which mplhep ships, so that every machine draws the same picture); no experiment's
# label, since nothing here is one's result. Sizes are for a column of a page. Any: matplotlib types the keys of its
# parameters only since 3.11.
PARAMETERS: Any = {
    **mplhep.style.ATLAS,
    "axes.autolimit_mode": "data",
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.facecolor": PAPER,
    "axes.formatter.limits": (-4, 5),
    "axes.labelcolor": INK,
    "axes.labelpad": 4,
    "axes.labelsize": 11.5,
    "axes.linewidth": 0.9,
    "axes.titlesize": 10,
    "axes.unicode_minus": True,
    "errorbar.capsize": 2.5,
    "figure.facecolor": PAPER,
    # The second is matplotlib's own, and has the letters that the first lacks.
    "font.family": ["TeX Gyre Heros", "DejaVu Sans"],
    "font.size": 10.5,
    "hatch.linewidth": 0.6,
    "legend.borderpad": 0.4,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.labelspacing": 0.5,
    "lines.linewidth": 1.7,
    "lines.markersize": 6,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "path",
    "svg.hashsalt": "lhcq",  # equal plots are equal bytes
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "xtick.major.size": 6,
    "ytick.major.size": 6,
    "xtick.minor.size": 3,
    "ytick.minor.size": 3,
}

SIZE = (5.4, 4.2)
"""Inches; one column of the page, and still readable at the width of a phone."""


_DPI = 200
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
"""What would tell one drawing of the same plot from another."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One plot, drawn when it is asked for."""

    draw: Callable[[Axes], None]
    left: str
    """Stands above the axes, as experiments label theirs."""
    right: str
    below: Callable[[Axes], None] | None = None
    """Draws a lower panel with the same abscissa, such as pulls."""

    def svg(self) -> str:
        """As the text of an SVG."""
        return self.file("svg").decode()

    def file(self, form: str) -> bytes:
        """As the bytes of a file: `svg`, `pdf` or `png`."""
        with mpl.rc_context(PARAMETERS):
            return saved(self._figure(), form, dpi=_DPI)

    def _figure(self) -> Figure:
        figure = Figure(figsize=SIZE)
        # Fixed margins: all plots of a page line up, and a layout engine would take half of the drawing time.
        axes = figure.add_axes(
            (0.145, 0.135, 0.82, 0.785) if self.below is None else (0.145, 0.33, 0.82, 0.59)
        )
        self.draw(axes)
        if self.below is not None:
            panel = figure.add_axes((0.145, 0.135, 0.82, 0.17), sharex=axes)
            self.below(panel)
            panel.set_xlabel(axes.get_xlabel(), color=INK)
            axes.set_xlabel("")
            axes.tick_params(labelbottom=False)
        above: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
        axes.annotate("lhcq", (0, 1), (0, 6), fontweight="bold", fontsize=11.5, **above)
        left = self.left if len(self.left) <= 24 else self.left[:23] + "…"  # a run's name may have 64 letters
        axes.annotate(left, (0, 1), (38, 6), fontsize=10, **above)
        axes.annotate(self.right, (1, 1), (0, 6), fontsize=10, ha="right", **above)
        return figure


def saved(figure: Figure, form: str, *, dpi: int) -> bytes:
    """A figure as the bytes of a file, the same whenever it is drawn; `dpi` is for pixels."""
    stream = io.BytesIO()
    figure.savefig(stream, format=form, dpi=dpi, metadata=_METADATA[form])
    return stream.getvalue()


def scale_log(axes: Axes, low: float, high: float) -> None:
    """Make the ordinate logarithmic from `low` to `high`, with as many numbers on it as there is room for.

    In a range that holds one power of ten or none, matplotlib writes `6×10⁻²` and the like, which reach into
    the axis's title, or nothing. Here a narrow range has plain numbers.
    """
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    decades = math.log10(high / low)
    axis = axes.yaxis
    if decades >= _WIDE:
        axis.set_major_locator(LogLocator(numticks=8))
        axis.set_major_formatter(LogFormatterMathtext())
        axis.set_minor_locator(LogLocator(subs="auto", numticks=99))
    else:
        axis.set_major_locator(
            LogLocator(subs=(1, 2, 5), numticks=99)
            if decades >= _NARROW
            else MaxNLocator(4, steps=[1, 2, 5, 10])
        )
        axis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
        axis.set_minor_locator(LogLocator(subs=range(1, 10), numticks=99))
    axis.set_minor_formatter(NullFormatter())


_WIDE, _NARROW = 2.0, 0.7
"""Decades from which on powers of ten are enough numbers, and below which 1, 2, 5 would be too few."""


def _plain(value: float) -> str:
    """A number without a power of ten, unless it would be long."""
    if value <= 0:  # asked of places beyond the axis as well
        return ""
    if 1e-3 <= value < 1e5:
        return f"{value:,.10g}"
    power = math.floor(math.log10(value) + 1e-9)
    return rf"${value / 10.0**power:.3g}\cdot10^{{{power}}}$"


def darkened(svg: str) -> str:
    """The same picture in the colours for a dark page."""
    return re.sub("|".join(DARK), lambda match: DARK[match.group()], svg)


def pictured(plot: Plot | None) -> dict[str, str]:
    """A plot as the addresses of its `light` and its `dark` picture, empty for None: a page needs no second file."""
    if plot is None:
        return {"light": "", "dark": ""}
    svg = plot.svg()
    return {"light": data_uri(svg), "dark": data_uri(darkened(svg))}


def data_uri(svg: str) -> str:
    """The picture inside an address, so that the page needs no second file."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
