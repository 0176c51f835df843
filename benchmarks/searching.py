"""What searches find, and what they find where there is nothing.

    python -m benchmarks.searching scan WORKSPACE DATASET
    python -m benchmarks.searching alarms [--samples 20]
    python -m benchmarks.searching tables

`scan` is `lhcq search DATASET --scan` of a labelled dataset: significance out against significance in. `alarms`
searches made-up background whole, samples that share no event: are the global p-values uniform? Both write
results/searching_*.json and a table of docs/search.md, `scan` the picture docs/search-scan.png; `tables` writes the
tables of what was measured last.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import kstest

import lhcq
from benchmarks.quality_table import to_table
from benchmarks.rows import RESULTS, Row, circumstances, put_table, row, say, table, write_result
from lhcq.evaluate.hunt import RegionTest, bin_edges, hunt, pseudo_experiments, summarize
from lhcq.evaluate.weak import WeakEvents, assign_folds, score_all, shuffled
from lhcq.report.scan import columns_of, rows_of_points, table_of_points
from lhcq.report.scan_plots import plot_improvements, plot_significances
from lhcq.report.style import PARAMETERS
from lhcq.requests.search import in_range, search_config
from lhcq.storage import read_json, write_json
from lhcq.workspace import Workspace

PUT_IN = (0, 200, 400, 700, 1000)
SEEDS = 3
DOCUMENT = Path(__file__).parents[1] / "docs" / "search.md"
_PICTURE = DOCUMENT.with_name("search-scan.png")


def scan(workspace: Workspace, dataset: str) -> dict[str, Any]:
    """For each number of signal events and seed what the region shows, as `lhcq search --scan` finds it."""

    def tell(progress: Any) -> None:
        if progress.done % 25 == 0:
            say(f"searching: {progress.done} of {progress.total} chunks of the scan")

    found = lhcq.scan(dataset, PUT_IN, workspace=workspace, seeds=SEEDS, progress=tell).found
    write_result("searching_scan", {**circumstances(), "found": found})
    put_tables()
    _draw(found)
    return found


def _draw(found: dict[str, Any]) -> None:
    """Significance and its improvement in the largest selection, as the page of the scan has them."""
    with mpl.rc_context(PARAMETERS):
        figure = Figure(figsize=(10.4, 4.3))
        for axes, plot in zip(
            figure.subplots(1, 2), (plot_significances(found, 0), plot_improvements(found, 0)), strict=True
        ):
            plot.draw(axes)
            axes.set_title(plot.right, loc="right")
        figure.tight_layout()
        figure.savefig(_PICTURE, dpi=110)


def alarms(samples: int, n_events: int = 20_000) -> list[Row]:
    """Whole searches in made-up background: exponential in m_jj, six features that know nothing of it."""
    config = search_config(regions=(2900.0, 4100.0, 400.0), shuffles=6, pseudo_experiments=100)
    edges = bin_edges(config.fit_low, config.fit_high, config.regions[0])
    found = []
    for sample in range(samples):
        random = np.random.default_rng([17, sample])
        mjj = 2700 + random.exponential(500, n_events)
        mjj = mjj[in_range(mjj, config)]
        rows = np.arange(len(mjj))
        values = np.concatenate(
            [random.normal(size=(len(mjj), 4)), random.exponential(size=(len(mjj), 2))], axis=1
        )
        events = WeakEvents(
            rows=rows, mjj=mjj, folds=assign_folds(rows, config.folds, f"{sample}"), values=values
        )

        def search(some: WeakEvents) -> list[RegionTest]:
            scores = [
                score_all(some, one, config.sideband, n_folds=config.folds, seeds=[1], check=lambda: None)
                for one in config.regions
            ]
            return hunt(some, scores, config.regions, config.selections, edges)

        tests = search(events)
        chance = [search(shuffled(events, [1, at])) for at in range(config.shuffles)]
        shuffles = np.array([[t.excess.z if t.excess else np.nan for t in some] for some in chance])
        pseudo = pseudo_experiments(tests, edges, seed=[1, sample], n=config.pseudo_experiments)
        said = summarize(events, tests, [], shuffles, pseudo, edges)
        found.append(
            {
                "p_value": said["global"]["p_value"],
                "z": [test["z"] for test in said["tests"]],
                "widths": [one["measured"] for one in said["spread"]],
            }
        )
        say(f"searching: sample {sample}: global p-value {found[-1]['p_value']:.3f}")
        write_json(RESULTS / "searching_alarms.json", {"n_events": n_events, "samples": found})
    put_tables()
    return alarm_rows(found)


def alarm_rows(found: list[dict[str, Any]]) -> list[Row]:
    """What the samples of background amount to."""
    values = [one["p_value"] for one in found]
    z = np.array([z for one in found for z in one["z"] if z is not None])
    return [
        row("samples of background", len(values), ""),
        row("local significances among them", len(z), ""),
        row(
            "KS p-value of the global p-values against uniform ones",
            float(kstest(values, "uniform").pvalue),
            "",
        )
        | {"bound": "above 0.05"},
        row("smallest global p-value", min(values), ""),
        row("largest local excess", float(z.max()), "sigma"),
        row("standard deviation of all local significances", float(z.std()), "sigma"),
        row("spread by shuffles, 1% selected", float(np.mean([one["widths"][0] for one in found])), "sigma"),
        row(
            "spread by shuffles, 0.1% selected", float(np.mean([one["widths"][1] for one in found])), "sigma"
        ),
    ]


def put_tables() -> None:
    """Put what was measured last into docs/search.md."""
    for name, lines in (("scan", scan_lines()), ("alarms", alarm_lines())):
        put_table(f"searching {name}", lines, made_by(name), DOCUMENT)


def made_by(name: str) -> str:
    """The command that measures a table."""
    return f"python -m benchmarks.searching {name}"


def scan_lines() -> list[str]:
    """What the region shows of so many signal events: the median of the seeds, and the least and the most."""
    found = read_json(RESULTS / "searching_scan.json")["found"]
    return to_table(columns_of(found), rows_of_points(found))


def alarm_lines() -> list[str]:
    """What searches in background alone show."""
    found = read_json(RESULTS / "searching_alarms.json")["samples"]
    rows = [(one["figure"], f"{one['value']:.3g} {one['unit']}".strip()) for one in alarm_rows(found)]
    return ["| what | value |", "|---|---|", *(f"| {figure} | {value} |" for figure, value in rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("scan", "alarms", "tables"))
    parser.add_argument("workspace", nargs="?", type=Path)
    parser.add_argument("dataset", nargs="?")
    parser.add_argument("--samples", type=int, default=20)
    options = parser.parse_args()
    if options.what == "tables":
        put_tables()
        return
    if options.what == "scan":
        print(table_of_points(scan(Workspace(options.workspace), options.dataset)))
        return
    rows = alarms(options.samples)
    print(table("searching alarms", rows))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
