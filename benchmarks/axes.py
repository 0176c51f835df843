"""What the axes of N-subjettiness change for trees: the same generated events, clustered about each kind.

    python -m benchmarks.axes

Trees on the numbers of `wide` and on all features score every event of the benchmarks' 22,528 out of fold, the same
three folds for each kind. So figures of kt axes, as most of docs/results.md, are told from what the default axes would
give. Writes results/axes.json and the table there.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from benchmarks.clustering import tables_of
from benchmarks.events import generated_events
from benchmarks.quality_table import auc_difference
from benchmarks.rows import Row, markdown, put_table, row, say, store, table
from lhcq.config import CLUSTER_PRESETS, Axes, ClusterConfig
from lhcq.evaluate.baseline import build_trees
from lhcq.evaluate.metrics import metrics_of
from lhcq.events.layout import open_event_file
from lhcq.prompts.features import compute_features
from lhcq.prompts.templates import render
from lhcq.records.prompt_numbers import read_numbers

MADE_BY = "python -m benchmarks.axes"
FOLDS = 3
DEFAULT = CLUSTER_PRESETS["lhco"].axes
KINDS: tuple[Axes, ...] = (DEFAULT, "kt")

Floats = NDArray[np.float64]


def measure() -> list[Row]:
    """The rows of the result."""
    file = open_event_file(generated_events())
    labels: NDArray[np.int64] = np.zeros(0, np.int64)
    scores: dict[str, dict[str, Floats]] = {}
    for axes in KINDS:
        say(f"axes: {axes}")
        records = pa.concat_tables(tables_of(file, ClusterConfig(features="full", axes=axes)))
        labels = records["label"].to_numpy().astype(np.int64)
        scores[axes] = {name: out_of_fold(values, labels) for name, values in seen_by_trees(records).items()}
    return rows_of(scores, labels)


def seen_by_trees(records: pa.Table) -> Mapping[str, Floats]:
    """What the trees of each row see, (n_events, n_columns)."""
    features = compute_features(records)
    return {
        "`wide`": read_numbers(render("wide", records)).astype(np.float64),
        "all features": np.column_stack(list(features.values())),
    }


def out_of_fold(values: Floats, labels: NDArray[np.int64]) -> Floats:
    """P(signal) of every event, by trees that did not see it, (n_events,)."""
    p_signal = np.empty(len(labels))
    for rest, left_out in StratifiedKFold(FOLDS, shuffle=True, random_state=1).split(values, labels):
        with threadpool_limits(1, user_api="openmp"):
            trees = build_trees(len(rest)).set_params(random_state=1).fit(values[rest], labels[rest])
            p_signal[left_out] = trees.predict_proba(values[left_out])[:, 1]
    return p_signal


def rows_of(scores: Mapping[str, Mapping[str, Floats]], labels: NDArray[np.int64]) -> list[Row]:
    """AUC with the default axes, and how much more or less it is with the others; paired intervals."""
    rows = []
    for name, default in scores[DEFAULT].items():
        found: Any = metrics_of(labels, default)
        interval = {"low": found.auc_low, "high": found.auc_high}
        rows.append(row(f"{name}: AUC with {DEFAULT} axes", found.auc, "", **interval))
        for other in KINDS:
            if other != DEFAULT:
                shift, low, high = auc_difference(labels, default, scores[other][name])
                rows.append(row(f"{name}: less that with {other} axes", shift, "", low=low, high=high))
    n_signal = int(labels.sum())
    return [one | {"background": len(labels) - n_signal, "signal": n_signal} for one in rows]


def main() -> None:
    rows = measure()
    store("axes", rows)
    put_table("axes", markdown(rows), MADE_BY)
    print(table("axes", rows))


if __name__ == "__main__":
    main()
