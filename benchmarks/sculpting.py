"""Whether a selection sculpts m_jj: trees on what each template writes, of generated events of both classes.

    python -m benchmarks.sculpting EVENTS.parquet...

The files hold clustered events with all features, as `lhcq cluster` makes them of what `lhcq generate` made. For each
of ten seeds the background is cut anew: a quarter for training, with half of the signal, and the rest for a reference
and for events to judge, which go through what `lhcq predict` does. The seeds share their events, so that they are no
ten independent experiments. Writes results/sculpting.json and the table of docs/results.md.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from benchmarks.quality_table import to_table
from benchmarks.rows import Row, put_table, row, say, store, table
from lhcq.config import knows_mass
from lhcq.evaluate.baseline import build_trees
from lhcq.evaluate.predictions import p_values, p_values_among
from lhcq.evaluate.sculpting import compare, passing_share
from lhcq.prompts.templates import render

TEMPLATES = ("compact", "compact-without-mass", "wide", "wide-without-mass")
SEEDS = range(10)
SELECTED = 0.01
LEVEL = 0.05

Floats = NDArray[np.float64]


def measure(paths: Iterable[Path]) -> list[Row]:
    """The rows of the result."""
    events = pa.concat_tables(pq.read_table(path) for path in paths)
    there = np.isfinite(events["mjj"].fill_null(np.nan).to_numpy())
    events = events.filter(pa.array(there))
    labels, mjj = events["label"].to_numpy(), events["mjj"].to_numpy()
    rows: list[Row] = []
    for template in TEMPLATES:
        numbers = read_numbers(render(template, events))
        found = [one_seed(numbers, labels, mjj, seed) for seed in SEEDS]
        say(f"sculpting: {template}")
        rows += rows_of(template, found, told_mass(numbers[labels == 0], mjj[labels == 0]))
    facts = {"n_background": int((labels == 0).sum()), "n_signal": int((labels == 1).sum())}
    return [one | facts for one in rows]


def read_numbers(prompts: list[str]) -> Floats:
    """What prompts of bare numbers say, (n, n_numbers): the very numbers that a model reads."""
    return np.array([prompt[:-1].split() for prompt in prompts], dtype=np.float64)


def one_seed(numbers: Floats, labels: NDArray[np.int8], mjj: Floats, seed: int) -> dict[str, Any]:
    """Trees of one cut of the events, and what their selection does."""
    random = np.random.default_rng(seed)
    background, signal = (random.permutation(np.flatnonzero(labels == label)) for label in (0, 1))
    quarter, half = len(background) // 4, len(signal) // 2
    train = np.concatenate([background[:quarter], signal[:half]])
    trees = build_trees(len(train)).set_params(random_state=seed).fit(numbers[train], labels[train])
    p_signal = trees.predict_proba(numbers)[:, 1]
    middle = (quarter + len(background)) // 2
    reference, judged = background[quarter:middle], background[middle:]
    passed = p_values_among(p_signal[reference]) <= SELECTED
    selected = p_values(p_signal[judged], p_signal[reference]) <= SELECTED
    compared = compare(passing_share(mjj[reference], passed), mjj[judged], selected)
    both, chosen = np.concatenate([reference, judged]), np.concatenate([passed, selected])
    distance = ks_2samp(mjj[both][chosen], mjj[both][~chosen], method="asymp")
    tested = np.concatenate([both, signal[half:]])
    return {
        "auc": float(roc_auc_score(labels[tested], p_signal[tested])),
        "n_selected": int(chosen.sum()),
        "distance": float(distance.statistic),
        "p_value": float(distance.pvalue),
        "chi2": compared["chi2"],
        "bins": compared["bins"],
        "seen": compared["seen"],
        "expected": compared["expected"],
    }


def told_mass(numbers: Floats, mjj: Floats) -> float:
    """The share of the variance of background's log(m_jj) that trees tell of other events from a prompt's numbers."""
    half = len(mjj) // 2
    order = np.random.default_rng(0).permutation(len(mjj))
    learnt, asked = order[:half], order[half:]
    trees = HistGradientBoostingRegressor(random_state=1).fit(numbers[learnt], np.log(mjj[learnt]))
    return float(trees.score(numbers[asked], np.log(mjj[asked])))


def rows_of(template: str, found: list[dict[str, Any]], told: float) -> list[Row]:
    """What the seeds of one template amount to."""
    chi2, bins = (sum(one[name] for one in found) for name in ("chi2", "bins"))
    alike = sum(one["p_value"] > LEVEL for one in found)
    return [
        row(f"{template}: AUC", [one["auc"] for one in found], ""),
        row(f"{template}: KS distance", [one["distance"] for one in found], ""),
        row(
            f"{template}: seeds with KS p above {LEVEL:g}",
            alike,
            f"of {len(found)}",
            at_least=None if knows_mass(template) else 8,
            seeds=found,
        ),
        row(
            f"{template}: chi-squared per bin of seen and expected",
            chi2 / bins,
            "",
            at_least=0.7,
            at_most=1.3,
            bins=bins,
        ),
        row(f"{template}: share of log(m_jj) that its numbers tell", told, ""),
    ]


def lines_of(rows: list[Row]) -> list[str]:
    """The table of the document."""
    by_template = {
        template: {
            one["figure"].partition(": ")[2]: one for one in rows if one["figure"].startswith(f"{template}: ")
        }
        for template in TEMPLATES
    }
    alike = f"seeds with KS p above {LEVEL:g}"
    return to_table(
        ["template", "AUC of trees", "KS distance of the selected 1%", f"p above {LEVEL:g}", "chi-squared per bin",
         "log(m_jj) told"],
        (
            [
                f"`{template}`",
                f"{of['AUC']['value']:.4f} ({min(of['AUC']['rounds']):.4f} to {max(of['AUC']['rounds']):.4f})",
                f"{of['KS distance']['value']:.3f}",
                f"{of[alike]['value']:.0f} {of[alike]['unit']}",
                f"{of['chi-squared per bin of seen and expected']['value']:.2f}",
                f"{of['share of log(m_jj) that its numbers tell']['value']:.3f}",
            ]
            for template, of in by_template.items()
        ),
    )  # fmt: skip


def main() -> int:
    if len(sys.argv) < 2:
        say("sculpting: name the parquet files of clustered events, of both classes, with all features.")
        return 2
    with threadpool_limits(limits=1):
        rows = measure(map(Path, sys.argv[1:]))
    store("sculpting", rows)
    put_table("sculpting", lines_of(rows), "python -m benchmarks.sculpting")
    print(table("sculpting", rows), flush=True)
    return int(not all(one["holds"] for one in rows))


if __name__ == "__main__":
    sys.exit(main())
