"""Pictures of pages as files of their own, and what stands of a finished prediction, search or scan."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhcq.records import predictions, scans, searches
from lhcq.report.prediction import plot_selection, prediction_verdict
from lhcq.report.scan import plots_of_scan, scan_verdict, table_of_points
from lhcq.report.search import plots_of_search, search_verdict, table_of_tests
from lhcq.report.style import Plot
from lhcq.storage import MANIFEST, write_bytes
from lhcq.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished prediction, search or scan, as its page shows it."""

    what: str
    page: Path
    found: dict[str, Any]
    verdict: list[str]
    table: str
    """For a terminal; empty where there is none."""
    plots: dict[str, Plot | None]
    """By name; None where there is nothing to draw."""


def find_finished(workspace: Workspace, name: str, what: str | None = None) -> Finished | None:
    """The finished prediction, search or scan of a name, the first of these unless `what` chooses; None without."""
    for one, directory in {
        "prediction": workspace.prediction(name),
        "search": workspace.search(name),
        "scan": workspace.scan(name),
    }.items():
        if what in (None, one) and (directory / MANIFEST).is_file():
            return _read(one, directory)
    return None


def _read(what: str, directory: Path) -> Finished:
    if what == "prediction":
        found = predictions.read_summary(directory)
        page, verdict, table = predictions.page_file(directory), prediction_verdict(found), ""
        plots: dict[str, Plot | None] = {"mjj": plot_selection(found)}
    elif what == "search":
        found = searches.read_found(directory)
        page, verdict, table = searches.page_file(directory), search_verdict(found), table_of_tests(found)
        plots = {**plots_of_search(found)}
    else:
        found = scans.read_found(directory)
        page, verdict, table = scans.page_file(directory), scan_verdict(found), table_of_points(found)
        plots = {**plots_of_scan(found)}
    return Finished(what=what, page=page, found=found, verdict=verdict, table=table, plots=plots)


def write_figures(directory: Path, name: str, plots: Mapping[str, Plot | None]) -> list[Path]:
    """Write each plot as `NAME-PLOT.png` and `.pdf`, replacing earlier ones; gives their paths."""
    written = []
    for of, plot in plots.items():
        if plot is None:
            continue
        for form in ("png", "pdf"):
            written.append(directory / f"{name}-{of}.{form}")
            write_bytes(written[-1], plot.file(form))
    return written
