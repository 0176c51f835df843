"""The page of a scan: significance out against the number of signal events put in, by learner and selection."""

from typing import Any

import numpy as np

from lhcq.config import TREES
from lhcq.report.scan_plots import plot_improvements, plot_significances
from lhcq.report.style import Plot, pictured
from lhcq.report.templates import html_template

_FOUND = 5.0
"""Standard deviations of a discovery."""


def scan_verdict(found: dict[str, Any]) -> list[str]:
    """What may be said of a scan, in sentences; the answer first."""
    low, high = found["region"]
    share, seeds = found["config"]["selections"][0], found["config"]["seeds"]
    said = [f"{said_learner(name)} {_said_threshold(found, name, 0)}" for name in found["learners"]]
    inclusive = [one for point in found["points"] if (one := point["inclusive"]) is not None]
    alone = f" Without any selection the fit shows at most {max(inclusive):.1f} σ." if inclusive else ""
    return [
        f"Among {found['n_background']:,} background events, in {low:,.0f}–{high:,.0f} GeV with {share:.2%} "
        f"selected, {_FOUND:g} σ are found by {'; by '.join(said)} (median of {seeds} seeds).{alone}",
        "Significances are the fits' own, not divided by their spread by chance, which for classifiers without "
        "labels is 10 to 20% above 1, and without the trials of a search in many regions.",
        "Bands are over seeds, which draw signal, deal folds and train anew; the background is the same in all. The "
        "idealised classifier tells the region from background of the region, known by labels; the supervised one "
        "learnt from signal that was not put in. Both are trees.",
    ]


def _said_threshold(found: dict[str, Any], learner: str, place: int) -> str:
    medians = [(n, median_of(values)) for n, values in significances(found, learner, place)]
    reached = [n for n, median in medians if median is not None and median >= _FOUND]
    if not reached:
        return f"of none of up to {medians[-1][0]:,} signal events"
    missed = [n for n, _ in medians if n > min(reached) and n not in reached]
    if missed:  # as where a selection is full of signal, and nothing is left beside it to fit
        return f"of {_in_words(reached)} signal events, but not of {_in_words(missed)}"
    return f"from {min(reached):,} signal events on"


def _in_words(numbers: list[int]) -> str:
    *others, last = (f"{n:,}" for n in numbers)
    return f"{', '.join(others)} and {last}" if others else last


def said_learner(name: str) -> str:
    """How a learner is called in plots and tables."""
    return {TREES: "trees without labels", "idealised": "the idealised classifier"}.get(
        name, "the supervised classifier" if name == "supervised" else f"{name} without labels"
    )


def significances(found: dict[str, Any], learner: str, place: int) -> list[tuple[int, list[float]]]:
    """For each number of signal events those of its seeds, where a fit was found, in the selection at `place`."""
    return [
        (n, [z for point in points if (z := point["learners"][learner][place]["z"]) is not None])
        for n, points in points_by_number(found)
    ]


def points_by_number(found: dict[str, Any]) -> list[tuple[int, list[dict[str, Any]]]]:
    """The points of each number of signal events, one a seed."""
    numbers = sorted({point["put_in"] for point in found["points"]})
    return [(n, [point for point in found["points"] if point["put_in"] == n]) for n in numbers]


def median_of(values: list[float]) -> float | None:
    """None of none."""
    return float(np.median(values)) if values else None


def columns_of(found: dict[str, Any]) -> list[str]:
    """The headings of the table of points."""
    return ["signal events", "in the region", "S/√B", "selected", "all events", *found["learners"]]


def rows_of_points(found: dict[str, Any]) -> list[list[str]]:
    """The cells of the table: a line for each number of signal events and selection, medians with least and most."""
    rows = []
    for n, points in points_by_number(found):
        inside = f"{np.median([point['signal_in_region'] for point in points]):,.0f}"
        at = said_spread([point["in"] for point in points if point["in"] is not None], band=False)
        inclusive = said_spread([one for point in points if (one := point["inclusive"]) is not None])
        for place, share in enumerate(found["config"]["selections"]):
            cells = [
                said_spread([z for point in points if (z := point["learners"][name][place]["z"]) is not None])
                for name in found["learners"]
            ]
            rows.append([f"{n:,}", inside, at, f"{share:.2%}", inclusive, *cells])
    return rows


def said_spread(values: list[float], *, band: bool = True) -> str:
    """A median with the least and the most beside it."""
    if not values:
        return "no fit"
    median = f"{np.median(values):.1f}"
    return f"{median} ({min(values):.1f} to {max(values):.1f})" if band and len(values) > 1 else median


def table_of_points(found: dict[str, Any]) -> str:
    """The table for a terminal."""
    lines = [columns_of(found), *rows_of_points(found)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def render_scan(found: dict[str, Any]) -> str:
    """The page as text, from what a scan found."""
    plots = plots_of_scan(found)
    page: str = html_template("scan.html.j2").render(
        found=found,
        facts=_facts(found),
        verdict=scan_verdict(found),
        pictures=[
            {
                "share": f"{share:.2%}",
                "significance": pictured(plots[f"significance-{share:g}"]),
                "improvement": pictured(plots[f"improvement-{share:g}"]),
            }
            for share in found["config"]["selections"]
        ],
        headings=columns_of(found),
        rows=rows_of_points(found),
    )
    return page


def plots_of_scan(found: dict[str, Any]) -> dict[str, Plot]:
    """The plots of the page, by name: significance and its improvement of each selection."""
    plots = {}
    for place, share in enumerate(found["config"]["selections"]):
        plots[f"significance-{share:g}"] = plot_significances(found, place)
        plots[f"improvement-{share:g}"] = plot_improvements(found, place)
    return plots


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    config = found["config"]
    return [
        ("Dataset", found["dataset"]),
        ("Background in the fit's range", f"{found['n_background']:,}"),
        ("Signal there", f"{found['n_signal']:,}, of which some are put in"),
        ("Region", f"{found['region'][0]:,.0f} to {found['region'][1]:,.0f} GeV"),
        ("Sidebands", f"{config['sideband']:,.0f} GeV"),
        ("Fit", f"{found['edges'][0]:,.0f} to {found['edges'][-1]:,.0f} GeV"),
        ("Folds and seeds", f"{config['folds']}, {config['seeds']}"),
        ("They see", ", ".join(found["template"]["columns"])),
    ]
