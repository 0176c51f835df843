"""How the plots look: one palette, one set of matplotlib parameters, and the same picture on a dark page.

Colours are told apart with the common colour-vision deficiencies (Petroff, arXiv:2107.02270), and every pair that
shares axes also differs in line style or marker.
"""

import base64
import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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

# Any: matplotlib types the keys of its parameters only since 3.11.
PARAMETERS: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.facecolor": PAPER,
    "axes.labelcolor": INK,
    "axes.labelsize": 11.5,
    "axes.linewidth": 0.9,
    "axes.titlesize": 10,
    "errorbar.capsize": 2.5,
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",  # ships with matplotlib, so that every machine draws the same picture
    "font.size": 10.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "lines.linewidth": 1.7,
    "mathtext.fontset": "dejavusans",
    "hatch.linewidth": 0.6,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "path",
    "svg.hashsalt": "lhcq",  # equal plots are equal bytes
    "text.color": INK,
    "xaxis.labellocation": "right",
    "yaxis.labellocation": "top",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "xtick.major.size": 6,
    "ytick.major.size": 6,
    "xtick.minor.size": 3,
    "ytick.minor.size": 3,
}

SIZE = (5.4, 4.2)
"""Inches; one column of the page, and still readable at the width of a phone."""


def draw_svg(
    draw: Callable[[Axes], None], *, left: str, right: str, below: Callable[[Axes], None] | None = None
) -> str:
    """The SVG of one plot; `left` and `right` stand above the axes, as experiments label theirs.

    `below` draws a lower panel with the same abscissa, such as pulls.
    """
    with mpl.rc_context(PARAMETERS):
        figure = Figure(figsize=SIZE)
        # Fixed margins: all plots of a page line up, and a layout engine would take half of the drawing time.
        axes = figure.add_axes((0.145, 0.135, 0.82, 0.785) if below is None else (0.145, 0.33, 0.82, 0.59))
        draw(axes)
        if below is not None:
            panel = figure.add_axes((0.145, 0.135, 0.82, 0.17), sharex=axes)
            below(panel)
            panel.set_xlabel(axes.get_xlabel(), color=INK)
            axes.set_xlabel("")
            axes.tick_params(labelbottom=False)
        above: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
        axes.annotate("lhcq", (0, 1), (0, 6), fontweight="bold", fontsize=11.5, **above)
        left = left if len(left) <= 24 else left[:23] + "…"  # a run's name may have 64 letters
        axes.annotate(left, (0, 1), (38, 6), fontsize=10, **above)
        axes.annotate(right, (1, 1), (0, 6), fontsize=10, ha="right", **above)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def darkened(svg: str) -> str:
    """The same picture in the colours for a dark page."""
    return re.sub("|".join(DARK), lambda match: DARK[match.group()], svg)


def data_uri(svg: str) -> str:
    """The picture inside an address, so that the page needs no second file."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
