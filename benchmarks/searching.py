"""What searches find, and what they find where there is nothing.

    python -m benchmarks.searching scan WORKSPACE --background DATASET... --signal DATASET
    python -m benchmarks.searching alarms [--samples 20]
    python -m benchmarks.searching tables

`scan` puts signal events into generated background, so many and by so many seeds, and tests the region where they are
as `lhcq search` does: significance out against significance in, beside trees that are taught by labels (of other
signal events, on the same features and folds). `alarms` searches made-up background whole, samples that share no
event: are the global p-values uniform? Both write results/searching_*.json and a table of docs/search.md, `scan` the
picture docs/search-scan.png; `tables` writes the tables of what was measured last.
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import kstest
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from benchmarks.rows import RESULTS, Row, put_table, row, say, table
from lhcq.evaluate.hunt import RegionTest, bin_edges, hunt, judge_by_truth, pseudo_experiments, summarize
from lhcq.evaluate.weak import PARAMETERS, WeakEvents, assign_folds, score_all, shuffled
from lhcq.records.events import events_sha256, read_dataset
from lhcq.records.specs import SearchSpec
from lhcq.requests.search import in_range, search_config, search_request
from lhcq.storage import read_json, write_json
from lhcq.workspace import Workspace

REGION = (3300.0, 3700.0)
PUT_IN = (0, 200, 400, 700, 1000)
SEEDS = 3
SHARES = (0.01, 0.001)
DOCUMENT = Path(__file__).parents[1] / "docs" / "search.md"
_PICTURE = DOCUMENT.with_name("search-scan.png")

Floats = NDArray[np.float64]
Bits = NDArray[np.bool_]


def scan(workspace: Workspace, backgrounds: list[str], signal: str) -> list[Row]:
    """For each number of signal events and seed what the region shows."""
    spec = search_request(workspace, backgrounds[0], search_config()).spec_of(SearchSpec)
    events = [_read(workspace, spec, name, 0) for name in backgrounds]
    background = replace(
        events[0],
        rows=np.arange(sum(len(one.rows) for one in events)),
        mjj=np.concatenate([one.mjj for one in events]),
        values=np.concatenate([one.values for one in events]),
    )
    pool = _read(workspace, spec, signal, 1)
    n_signal_there = len(pool.rows)
    points = []
    for n_signal in PUT_IN:
        for seed in range(SEEDS):
            points.append(_point(background, pool, n_signal, seed))
            say(f"searching: {n_signal} signal events, seed {seed}: {points[-1]['out']}")
    facts = {"background": len(background.rows), "signal_there": n_signal_there, "points": points}
    write_json(RESULTS / "searching_scan.json", facts)
    put_tables()
    _draw(points, len(background.rows))
    return [one for n_signal in PUT_IN for one in _rows(n_signal, points)]


def _read(workspace: Workspace, spec: SearchSpec, name: str, label: int) -> WeakEvents:
    """The events of one label of a dataset in the range of the fit, with the features of a search."""
    import tasks.stages.search as stage

    sha256 = events_sha256(read_dataset(workspace.dataset(name)))
    spec = spec.model_copy(update={"dataset": name, "dataset_sha256": sha256})
    events = stage._read_events(workspace, spec)
    labels = stage.read_labels(workspace, spec, events.rows)
    kept = labels == label
    return WeakEvents(
        rows=events.rows[kept], mjj=events.mjj[kept], folds=events.folds[kept], values=events.values[kept]
    )


def _point(background: WeakEvents, pool: WeakEvents, n_signal: int, seed: int) -> dict[str, Any]:
    """One number of signal events, by one seed, in the region where they are."""
    config = search_config()
    random = np.random.default_rng([seed, n_signal])
    drawn = random.permutation(len(pool.rows))
    chosen, others = drawn[:n_signal], drawn[n_signal:]
    rows = np.arange(len(background.rows) + n_signal)
    events = WeakEvents(
        rows=rows,
        mjj=np.concatenate([background.mjj, pool.mjj[chosen]]),
        folds=assign_folds(rows, config.folds, f"{seed}"),
        values=np.concatenate([background.values, pool.values[chosen]]),
    )
    labels = (rows >= len(background.rows)).astype(np.int8)
    inside = (events.mjj >= REGION[0]) & (events.mjj < REGION[1])
    s, b = int((inside & (labels == 1)).sum()), int((inside & (labels == 0)).sum())
    edges = bin_edges(config.fit_low, config.fit_high, config.regions[0])

    def tests(scores: Floats) -> list[RegionTest]:
        return hunt(events, [scores], [REGION], (1.0, *SHARES), edges)

    weak = tests(
        score_all(events, REGION, config.sideband, n_folds=config.folds, seeds=[seed], check=lambda: None)
    )
    taught = tests(_supervised(events, labels == 1, pool.values[others], config.folds, seed))
    return {
        "put_in": n_signal,
        "seed": seed,
        "in_region": s,
        "background_in_region": b,
        "in": s / math.sqrt(b),
        "inclusive": _z(weak[0]),
        "out": [_z(one) for one in weak[1:]],
        "taught": [_z(one) for one in taught[1:]],
        "improvement": [one["improvement"] for one in judge_by_truth(labels, events.mjj, weak)[1:]],
        "taught_improvement": [one["improvement"] for one in judge_by_truth(labels, events.mjj, taught)[1:]],
    }


def _supervised(events: WeakEvents, signal: Bits, others: Floats, folds: int, seed: int) -> Floats:
    """P(signal) by trees that labels taught: background of the other folds against signal that is not put in."""
    scores = np.zeros(len(events.rows))
    for fold in range(folds):
        background = events.values[(events.folds != fold) & ~signal]
        values = np.concatenate([background, others])
        labels = np.arange(len(values)) >= len(background)
        trees = HistGradientBoostingClassifier(**PARAMETERS, random_state=seed)
        with threadpool_limits(limits=1, user_api="openmp"):
            trees.fit(values, labels)
            scores[events.folds == fold] = trees.predict_proba(events.values[events.folds == fold])[:, 1]
    return scores


def _z(test: RegionTest) -> float | None:
    return test.excess.z if test.excess else None


def _rows(n_signal: int, points: list[dict[str, Any]]) -> list[Row]:
    """The median over the seeds, with the least and the most beside it."""
    here = [point for point in points if point["put_in"] == n_signal]
    rows = [row(f"{n_signal} signal events: S/sqrt(B) in the region", _median(here, "in"), "sigma")]
    rows.append(row(f"{n_signal} signal events: all events", _median(here, "inclusive"), "sigma"))
    for kind, name in (("out", "trees without labels"), ("taught", "trees taught by labels")):
        for place, share in enumerate(SHARES):
            values = [point[kind][place] for point in here if point[kind][place] is not None]
            if values:
                found = row(
                    f"{n_signal} signal events: {name}, {share:.1%}", float(np.median(values)), "sigma"
                )
                rows.append(found | {"least": min(values), "most": max(values)})
    return rows


def _median(points: list[dict[str, Any]], name: str) -> float:
    return float(np.median([point[name] for point in points]))


def _draw(points: list[dict[str, Any]], n_background: int) -> None:
    """Significance out against the number of signal events, and the significance improvement."""
    import matplotlib as mpl

    from lhcq.report.style import FAINT, MODEL, RATE, SIGNAL
    from lhcq.report.style import PARAMETERS as STYLE

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 4.3))
        left, right = figure.subplots(1, 2)
        _band(left, points, lambda point: point["in"], FAINT, ":", r"$S/\sqrt{B}$ in the region")
        _band(left, points, lambda point: point["inclusive"], FAINT, "--", "all events, fit")
        for kind, style, said in (("taught", "-.", "taught by labels"), ("out", "-", "without labels")):
            for place, colour in ((0, MODEL), (1, RATE)):
                label = f"{said}, {SHARES[place]:.1%}"
                if kind == "out" or place == 0:
                    shade = colour if kind == "out" else SIGNAL
                    _band(left, points, lambda p, k=kind, a=place: p[k][a], shade, style, label)
                    name = "improvement" if kind == "out" else "taught_improvement"
                    _band(right, points, lambda p, n=name, a=place: p[n][a], shade, style, label)
        left.axhline(5, color=FAINT, lw=0.7)
        left.set_ylabel("Significance in 3,300 to 3,700 GeV [σ]")
        right.set_ylabel("Significance improvement")
        for axes in (left, right):
            axes.set_xlabel(f"Signal events among {n_background:,} of background")
            axes.legend(loc="upper left")
            axes.set_ylim(0, None)
            axes.set_xlim(0, None)
        figure.tight_layout()
        figure.savefig(_PICTURE, dpi=110)


def _band(axes: Axes, points: list[dict[str, Any]], value: Any, colour: str, style: str, label: str) -> None:
    """The median over the seeds, and from the least to the most."""
    found = [
        (n, [v for point in points if point["put_in"] == n and (v := value(point)) is not None])
        for n in sorted({point["put_in"] for point in points})
    ]
    there = [(n, values) for n, values in found if values]
    n = [one for one, _ in there]
    axes.plot(n, [float(np.median(values)) for _, values in there], style, color=colour, label=label)
    axes.fill_between(
        n, [min(v) for _, v in there], [max(v) for _, v in there], color=colour, alpha=0.15, lw=0
    )


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
    facts = read_json(RESULTS / "searching_scan.json")
    points = facts["points"]
    lines = [
        f"| signal events among {facts['background']:,} | of them in the region | all events | "
        + " | ".join(f"{100 * share:g}% selected" for share in SHARES)
        + f" | {100 * SHARES[0]:g}%, trees taught by labels |",
        "|---" * (4 + len(SHARES)) + "|",
    ]
    for n_signal in sorted({point["put_in"] for point in points}):
        here = [point for point in points if point["put_in"] == n_signal]
        shown = [[point["inclusive"] for point in here]]
        shown += [[point["out"][place] for point in here] for place in range(len(SHARES))]
        shown.append([point["taught"][0] for point in here])
        cells = [f"{n_signal:,}", f"{_median(here, 'in_region'):.0f}", *map(_spread, shown)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _spread(values: list[float | None]) -> str:
    known = [one for one in values if one is not None]
    if not known:
        return "no fit"
    return f"{np.median(known):.1f} ({min(known):.1f} to {max(known):.1f})"


def alarm_lines() -> list[str]:
    """What searches in background alone show."""
    found = read_json(RESULTS / "searching_alarms.json")["samples"]
    rows = [(one["figure"], f"{one['value']:.3g} {one['unit']}".strip()) for one in alarm_rows(found)]
    return ["| what | value |", "|---|---|", *(f"| {figure} | {value} |" for figure, value in rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("scan", "alarms", "tables"))
    parser.add_argument("workspace", nargs="?", type=Path)
    parser.add_argument("--background", action="append", default=[])
    parser.add_argument("--signal", default="signal")
    parser.add_argument("--samples", type=int, default=20)
    options = parser.parse_args()
    if options.what == "tables":
        put_tables()
        return
    if options.what == "alarms":
        rows = alarms(options.samples)
    else:
        rows = scan(Workspace(options.workspace), options.background, options.signal)
    print(table(f"searching {options.what}", rows))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
