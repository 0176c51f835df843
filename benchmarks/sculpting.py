"""Whether a selection sculpts m_jj: trees on what each template writes, of generated events of both classes.

    python -m benchmarks.sculpting EVENTS.parquet... [--model smollm2]

The files hold clustered events with all features, as `lhcq cluster` makes them of what `lhcq generate` made. For each
of ten seeds the background is cut anew: a quarter for training, with half of the signal, and the rest for a reference
and for events to judge, which go through what `lhcq predict` does. The seeds share their events, so that they are no
ten independent experiments. With a model, that is trained and asked too, ten times, on a template without a mass. It
wants a GPU, and may be done alone (`--model-alone`): what it leaves in results/sculpting_model.json is in the table
from then on. Writes results/sculpting.json and the table of docs/results.md.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
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
from benchmarks.rows import RESULTS, Row, put_table, row, say, store, table
from lhcq.config import knows_mass
from lhcq.evaluate.baseline import build_trees
from lhcq.evaluate.p_values import p_values, p_values_among
from lhcq.evaluate.sculpting import compare, passing_share
from lhcq.prompts.templates import render
from lhcq.records.prompt_numbers import read_numbers

TEMPLATES = ("compact", "compact-without-mass", "wide", "wide-without-mass")
SEEDS = range(10)
SELECTED = 0.01
LEVEL = 0.05

MODELS_TEMPLATE = "compact-without-mass"
OF_MODEL = "a language model"
EPOCHS = 6.0

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Classify = Callable[[Integers, Integers, int], Floats]
"""Learns from some events, and gives P(signal) of others; by a seed."""


def read_events(paths: Iterable[Path]) -> pa.Table:
    """The events that have an m_jj."""
    events = pa.concat_tables(pq.read_table(path) for path in paths)
    return events.filter(pa.array(np.isfinite(events["mjj"].fill_null(np.nan).to_numpy())))


def measure(events: pa.Table) -> list[Row]:
    """The rows of the result, of trees."""
    labels, mjj = events["label"].to_numpy(), events["mjj"].to_numpy()
    rows: list[Row] = []
    for template in TEMPLATES:
        numbers = read_numbers(render(template, events)).astype(np.float64)
        found = [one_seed(by_trees(numbers, labels), labels, mjj, seed) for seed in SEEDS]
        say(f"sculpting: {template}")
        told = told_mass(numbers[labels == 0], mjj[labels == 0])
        rows += rows_of(template, found, sculpts=knows_mass(template))
        rows.append(row(f"{template}: share of log(m_jj) that its numbers tell", told, ""))
    return [one | facts_of(labels) for one in rows]


def measure_model(events: pa.Table, model: str) -> list[Row]:
    """The rows of a language model, asked for P(signal) of the prompts without a mass."""
    import torch

    from lhcq.model.sources import obtain
    from lhcq.workspace import Workspace

    labels, mjj = events["label"].to_numpy(), events["mjj"].to_numpy()
    with tempfile.TemporaryDirectory() as scratch:
        directory = obtain(model, Workspace(Path(scratch)), say=say)
        classify = by_model(render(MODELS_TEMPLATE, events), labels, directory)
        found = []
        for seed in SEEDS:
            found.append(one_seed(classify, labels, mjj, seed))
            say(f"sculpting: {OF_MODEL}: {json.dumps(found[-1])}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    rows = rows_of(f"{MODELS_TEMPLATE}, {OF_MODEL}", found, sculpts=False)
    return [one | facts_of(labels) | {"device": device, "model": model} for one in rows]


def facts_of(labels: NDArray[np.int8]) -> dict[str, int]:
    """How many events there are."""
    return {"n_background": int((labels == 0).sum()), "n_signal": int((labels == 1).sum())}


def by_trees(numbers: Floats, labels: NDArray[np.int8]) -> Classify:
    """Boosted trees on the numbers of prompts."""

    def classify(train: Integers, asked: Integers, seed: int) -> Floats:
        trees = build_trees(len(train)).set_params(random_state=seed).fit(numbers[train], labels[train])
        p_signal: Floats = trees.predict_proba(numbers[asked])[:, 1]
        return p_signal

    return classify


def by_model(prompts: list[str], labels: NDArray[np.int8], directory: Path) -> Classify:
    """A language model by QLoRA. What has not learnt enough sculpts more: six epochs of these few events."""
    from lhcq.config import ANSWER_WEIGHT, TrainConfig
    from lhcq.model.base import load_base
    from lhcq.model.loop import train_whole
    from lhcq.model.score import score_attached

    base = load_base(directory)

    def classify(train: Integers, asked: Integers, seed: int) -> Floats:
        config = TrainConfig(
            rank=16, alpha=32.0, learning_rate=1e-3, batch_size=512, epochs=EPOCHS, answer_weight=ANSWER_WEIGHT,
            seed=seed + 1,
        )  # fmt: skip
        train_whole(base, prompts=[prompts[row] for row in train], labels=labels[train], config=config)
        base.adapter.graphs.clear()  # their memory is wanted for scoring
        return score_attached(
            base, [prompts[row] for row in asked], config.max_tokens, batch_size=32
        ).p_signal

    return classify


def one_seed(classify: Classify, labels: NDArray[np.int8], mjj: Floats, seed: int) -> dict[str, Any]:
    """A classifier of one cut of the events, and what its selection does."""
    random = np.random.default_rng(seed)
    background, signal = (random.permutation(np.flatnonzero(labels == label)) for label in (0, 1))
    quarter, half = len(background) // 4, len(signal) // 2
    train = np.concatenate([background[:quarter], signal[:half]])
    tested = np.concatenate([background[quarter:], signal[half:]])
    p_signal = np.full(len(labels), np.nan)
    p_signal[tested] = classify(train, tested, seed)
    middle = (quarter + len(background)) // 2
    reference, judged = background[quarter:middle], background[middle:]
    passed = p_values_among(p_signal[reference]) <= SELECTED
    selected = p_values(p_signal[judged], p_signal[reference]) <= SELECTED
    compared = compare(passing_share(mjj[reference], passed), mjj[judged], selected)
    both, chosen = np.concatenate([reference, judged]), np.concatenate([passed, selected])
    distance = ks_2samp(mjj[both][chosen], mjj[both][~chosen], method="asymp")
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


def rows_of(what: str, found: list[dict[str, Any]], *, sculpts: bool) -> list[Row]:
    """What the seeds of one classifier amount to; `sculpts`: it is known to."""
    chi2, bins = (sum(one[name] for one in found) for name in ("chi2", "bins"))
    alike = sum(one["p_value"] > LEVEL for one in found)
    return [
        row(f"{what}: AUC", [one["auc"] for one in found], ""),
        row(f"{what}: KS distance", [one["distance"] for one in found], ""),
        row(
            f"{what}: seeds with KS p above {LEVEL:g}",
            alike,
            f"of {len(found)}",
            at_least=None if sculpts else 8,
            seeds=found,
        ),
        row(
            f"{what}: chi-squared per bin of seen and expected",
            chi2 / bins,
            "",
            at_least=0.7,
            at_most=1.3,
            bins=bins,
        ),
    ]


def lines_of(rows: list[Row]) -> list[str]:
    """The table of the document."""
    by_what: dict[str, dict[str, Row]] = {}
    for one in rows:
        what, _, figure = one["figure"].partition(": ")
        by_what.setdefault(what, {})[figure] = one
    alike = f"seeds with KS p above {LEVEL:g}"
    return to_table(
        ["template", "AUC", "KS distance of the selected 1%", f"p above {LEVEL:g}", "chi-squared per bin",
         "log(m_jj) told"],
        (
            [
                "`{}`{}{}".format(*what.partition(",")),
                f"{of['AUC']['value']:.4f} ({min(of['AUC']['rounds']):.4f} to {max(of['AUC']['rounds']):.4f})",
                f"{of['KS distance']['value']:.3f}",
                f"{of[alike]['value']:.0f} {of[alike]['unit']}",
                f"{of['chi-squared per bin of seen and expected']['value']:.2f}",
                f"{told['value']:.3f}" if (told := of.get("share of log(m_jj) that its numbers tell")) else "",
            ]
            for what, of in by_what.items()
        ),
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("events", nargs="+", type=Path)
    parser.add_argument("--model", help="As `lhcq train` takes it.")
    parser.add_argument("--model-alone", action="store_true", help="Leave the trees out.")
    chosen = parser.parse_args()
    events = read_events(chosen.events)
    if chosen.model:
        store("sculpting_model", measure_model(events, chosen.model))
    if not chosen.model_alone:
        with threadpool_limits(limits=1):
            store("sculpting", measure(events))
    rows = stored_rows()
    put_table("sculpting", lines_of(rows), "python -m benchmarks.sculpting")
    print(table("sculpting", rows), flush=True)
    return int(not all(one["holds"] for one in rows))


def stored_rows() -> list[Row]:
    """The rows of trees, and those of a model where there are any."""
    paths = [RESULTS / f"{name}.json" for name in ("sculpting", "sculpting_model")]
    return [one for path in paths if path.exists() for one in json.loads(path.read_text())["rows"]]


if __name__ == "__main__":
    sys.exit(main())
