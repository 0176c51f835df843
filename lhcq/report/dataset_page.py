"""The page of a dataset: one HTML file with its picture and its numbers, and the picture as a file of its own."""

import base64
from pathlib import Path
from typing import Any, NamedTuple

from lhcq.records.labels import LABELS, UNLABELLED
from lhcq.report.dataset import ClassSpectrum, DatasetView, Spectrum, collect_dataset
from lhcq.report.spectra import draw_picture
from lhcq.report.templates import html_template
from lhcq.storage import write_bytes, write_text
from lhcq.workspace import Workspace

PICTURES = (".pdf", ".png", ".svg")
"""Endings of files that hold a picture alone."""
COLUMNS = ("Class", "Events", "Missing", "Mean", "Median", "Smallest", "Largest")

_ALGORITHMS = {"antikt": "anti-kt", "kt": "kt", "cambridge": "Cambridge/Aachen"}
_SAID = {**{name: name for name in LABELS}, UNLABELLED: "unlabelled"}


class DatasetPlots(NamedTuple):
    """What `write_plots` made."""

    png: Path
    page: Path
    view: DatasetView


def write_plots(workspace: Workspace, name: str, out_dir: Path) -> DatasetPlots:
    """Write `NAME.png` and `NAME.html` into `out_dir`, replacing earlier ones, each in one step.

    Raises `NotThere` when there is no dataset of that name, `BadInput` when it is empty or cannot be read.
    """
    view = collect_dataset(workspace, name)
    png = draw_picture(view)
    plots = DatasetPlots(png=out_dir / f"{name}.png", page=out_dir / f"{name}.html", view=view)
    write_bytes(plots.png, png)
    write_text(plots.page, render_dataset(view, png))
    return plots


def write_picture(workspace: Workspace, name: str, out: Path) -> DatasetView:
    """Write the picture alone, as the ending of `out` says: `.pdf`, `.png` or `.svg`; replaces an earlier one.

    Raises as `write_plots` does.
    """
    view = collect_dataset(workspace, name)
    write_bytes(out, draw_picture(view, out.suffix.lower().removeprefix(".")))
    return view


def render_dataset(view: DatasetView, png: bytes) -> str:
    """The page as text, with the picture in it."""
    page: str = html_template("dataset.html.j2").render(
        view=view,
        facts=_facts(view),
        picture="data:image/png;base64," + base64.b64encode(png).decode(),
        alt=describe_picture(view),
        columns=COLUMNS,
        tables=[(_title(one), _rows(one)) for one in view.spectra],
        provenance=_provenance(view),
    )
    return page


def describe_picture(view: DatasetView) -> str:
    """The picture in words: what each panel shows, and the medians by class."""
    panels = [
        f"{one.quantity.title}: median "
        + ", ".join(
            f"{_printed(found.median, one)} {one.quantity.unit}".strip() + f" for {_SAID[kind]}"
            for kind, found in one.classes.items()
        )
        for one in view.spectra
    ]
    return (
        f"Histograms of {len(panels)} quantities by class, each class normalised to one. {'; '.join(panels)}."
    )


def said_config(config: dict[str, Any] | None) -> str:
    """The clustering in the field's words."""
    if not config:
        return "imported: the jets were clustered elsewhere"
    kept = "all jets" if config["max_jets"] is None else f"{config['max_jets']} leading jets"
    algorithm = _ALGORITHMS.get(config["algorithm"], config["algorithm"])
    return f"{algorithm}, R = {config['radius']:g}, pT > {config['pt_min']:g} GeV, {kept} kept"


def _facts(view: DatasetView) -> list[tuple[str, str]]:
    counts = [(f"{_SAID[kind].capitalize()}", f"{count:,}") for kind, count in view.n_by_class.items()]
    return [
        ("Source", view.source),
        ("Events", f"{view.n_events:,}"),
        *counts,
        ("Clustering", said_config(view.manifest.get("config"))),
    ]


def _title(spectrum: Spectrum) -> str:
    quantity = spectrum.quantity
    return f"{quantity.title} [{quantity.unit}]" if quantity.unit else quantity.title


def _rows(spectrum: Spectrum) -> list[list[str]]:
    return [[_SAID[kind], *_cells(found, spectrum)] for kind, found in spectrum.classes.items()]


def _cells(found: ClassSpectrum, spectrum: Spectrum) -> list[str]:
    numbers = [_printed(value, spectrum) for value in (found.mean, found.median)]
    # The extremes of a count are counts.
    extremes = [
        f"{value:,.0f}" if spectrum.quantity.whole else _printed(value, spectrum)
        for value in (found.low, found.high)
    ]
    return [f"{found.n_events:,}", f"{found.n_missing:,}", *numbers, *extremes]


def _printed(value: float, spectrum: Spectrum) -> str:
    """One decimal for masses, momenta and counts, three for ratios."""
    quantity = spectrum.quantity
    return f"{value:,.1f}" if quantity.unit or quantity.whole else f"{value:.3f}"


def _provenance(view: DatasetView) -> list[tuple[str, str]]:
    manifest = view.manifest
    gaps = sum(gap["stop"] - gap["start"] for gap in manifest.get("gaps") or [])
    cite = (
        f"doi:{view.doi} (by the file's name), and arXiv:2101.08320"
        if view.doi
        else "not known: the source does not have the name of a released file"
    )
    lines = [
        ("Source", str(manifest.get("source", ""))),
        ("sha256", str(manifest.get("source_sha256", ""))),
        ("Left out", f"{gaps:,} rows of the source, which could not be used" if gaps else ""),
        ("To cite", cite),
    ]
    return [(name, text) for name, text in lines if text]
