"""Predictions on disk: the scores of one dataset with p-values and ranks (`lhcq.evaluate.p_values`), and what they
amount to.

What to expect of background in the spectrum of m_jj is drawn from that same background, each event of which is
selected against the others, as any event is against all (`lhcq.evaluate.sculpting`).
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lhcq.errors import BadInput, DamagedChunk, NameTaken
from lhcq.evaluate.metrics import metrics_of, wilson_interval
from lhcq.evaluate.p_values import p_values, p_values_among, passing_background, ranks
from lhcq.evaluate.sculpting import compare, passing_share, sculpting_of
from lhcq.evaluate.spectrum import spectrum
from lhcq.records.chunks import Chunk, write_chunk
from lhcq.records.commits import differing, read_verified
from lhcq.records.predictions import (
    commit_prediction,
    has_scores_of,
    read_summary,
    reference_file,
    scores_file,
)
from lhcq.records.specs import PredictSpec
from lhcq.storage import MANIFEST

PART_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("label", pa.int8()),
        pa.field("mjj", pa.float64()),
        pa.field("p_signal", pa.float64(), nullable=False),
        pa.field("answer", pa.int8(), nullable=False),
    ]
)
"""What one task writes, and the columns of the reference: `mjj` in GeV, null with fewer than two jets; `answer` as in
`lhcq.records.scores`."""

SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("p_signal", pa.float64(), nullable=False),
        pa.field("p_value", pa.float64(), nullable=False),
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("mjj", pa.float64()),
        pa.field("label", pa.int8()),
        pa.field("part", pa.string()),
        pa.field("answer", pa.int8(), nullable=False),
    ]
)
"""`rank` is 1 for the most signal-like event, equal scores in order of row. `part` is the subset of the run's split
which the event is in; null where it is in none."""

_TOP = 10

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bits = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ScoredEvents:
    """The scores of events in order of row; all arrays have shape (n,)."""

    rows: Integers
    labels: NDArray[np.int8]
    """-1 where unknown."""
    mjj: Floats
    """GeV; NaN where there is none."""
    p_signal: Floats
    answers: NDArray[np.int8]
    """As in `lhcq.records.scores`."""


def write_scored(
    path: Path, *, rows: Any, labels: Any, mjj: Any, p_signal: NDArray[np.float64], answers: NDArray[np.int8]
) -> None:
    """Commit the scores of some events, (n,) each, as a part; None stands for labels or masses that are not there."""
    empty = [None] * len(p_signal)
    columns = [rows, empty if labels is None else labels, empty if mjj is None else mjj, p_signal, answers]
    arrays = [
        column.cast(field.type) if isinstance(column, pa.ChunkedArray) else pa.array(column, field.type)
        for column, field in zip(columns, PART_SCHEMA, strict=True)
    ]
    write_chunk(path, PART_SCHEMA, pa.Table.from_arrays(arrays, schema=PART_SCHEMA).to_batches())


def read_parts(paths: Sequence[Path], labels: NDArray[np.int8] | None = None) -> ScoredEvents:
    """The events of a prediction's parts, in order; `labels`, by source row, take the place of their own.

    Raises `BadInput` where a part is damaged, or no part.
    """
    events = _events_of(pa.concat_tables([PART_SCHEMA.empty_table(), *(_read_part(path) for path in paths)]))
    return events if labels is None else replace(events, labels=labels[events.rows])


def read_finished(prediction: Path, spec: PredictSpec) -> tuple[ScoredEvents, ScoredEvents]:
    """The reference and the events of a finished prediction, whose scores are those that `spec` asks for.

    Raises `NotThere` without it, and `BadInput` where its files are damaged, or its scores others.
    """
    again = "Run the same command again."
    manifest = read_verified(prediction, what=f"prediction {prediction.name!r}", remedy=again)
    if not has_scores_of(manifest, spec):
        raise BadInput(f"{prediction}: is not the prediction whose scores were to be used. {again}")
    reference, events = (_events_of(pq.read_table(of(prediction))) for of in (reference_file, scores_file))
    return reference, events


def write_prediction(
    final: Path,
    *,
    read: Callable[[], tuple[ScoredEvents, ScoredEvents]],
    n_events: int,
    largest_p_value: float,
    of: str,
    subsets: Mapping[str, Integers] | None = None,
    shared: Mapping[str, int] | None = None,
    fields: Mapping[str, Any],
    page: Callable[[dict[str, Any]], str],
) -> dict[str, Any]:
    """Commit the directory `final` from the scores of a prediction, and give its summary.

    `read` gives the background that p-values are taken against and the spectrum's expectation is drawn from, and the
    dataset's `n_events` events. Those with a p-value of at most `largest_p_value` are selected. `of` is the identity
    of the prediction's spec. With `subsets` (rows by name), the dataset is the one that the run was trained on:
    metrics and spectrum are of its test subset alone; without, `shared` is how many of the events stand there all
    the same (`lhcq.records.shared_events`). `fields` begin the summary, of which `page` makes the page. If `final`
    stands, it stays; made of other `fields`, `NameTaken` is raised. Raises `BadInput` where the events are not all,
    each once and in order of row, and what `read` raises.
    """
    if (final / MANIFEST).exists():
        return _read_standing(final, fields)
    background, events = read()
    _check_rows(events.rows, n_events, name=final.name)
    passed = p_values_among(background.p_signal) <= largest_p_value
    values = p_values(events.p_signal, background.p_signal)
    codes = _codes(events.rows, subsets)
    judged = np.ones(n_events, bool) if subsets is None else codes == list(subsets).index("test")
    summary = {
        **fields,
        "n_events": n_events,
        "unknown": int((events.answers < 0).sum()),
        "reference": {
            "n_background": len(background.rows),
            "smallest_p_value": 1.0 / (len(background.rows) + 1),
        },
        "parts": _count_subsets(codes, subsets),
        "shared": None if shared is None else dict(shared),
        "judged": {"events": "all" if subsets is None else "test part", "n": int(judged.sum())},
        **_judge(events, values <= largest_p_value, judged, largest_p_value, len(background.rows)),
        **_against_background(events, values <= largest_p_value, judged, background, passed, largest_p_value),
        "top": _top(events, values, judged),
    }
    table = _table(events, values, codes, list(subsets or ()))
    commit_prediction(
        final, table, _reference_table(background), of=of, summary=summary, page=page(summary), fields=fields
    )
    return summary


def _read_standing(final: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    manifest = read_verified(final, what=f"prediction {final.name!r}", remedy="Predict again.")
    different = differing(manifest, fields)
    if different:
        raise NameTaken(
            f"{final}: the prediction exists already, with another {', '.join(different)}. Choose another name."
        )
    return read_summary(final)


def _events_of(table: pa.Table) -> ScoredEvents:
    return ScoredEvents(
        rows=table["row"].to_numpy(),
        labels=table["label"].fill_null(-1).to_numpy().astype(np.int8),
        mjj=table["mjj"].fill_null(np.nan).to_numpy(),
        p_signal=table["p_signal"].to_numpy(),
        answers=table["answer"].to_numpy(),
    )


def _read_part(path: Path) -> pa.Table:
    try:
        batches = list(Chunk(path).batches())
    except FileNotFoundError as error:
        raise DamagedChunk.at(path, f"not a readable chunk ({error})") from error
    if any(not batch.schema.equals(PART_SCHEMA) for batch in batches):
        raise DamagedChunk.at(path, "has other columns than this version writes")
    return pa.Table.from_batches(batches, PART_SCHEMA)


def _check_rows(rows: Integers, n_events: int, *, name: str) -> None:
    if len(rows) != n_events or (np.diff(rows) <= 0).any():
        raise BadInput(
            f"{name}: its chunks have {len(rows):,} events, not the {n_events:,} of the dataset in order of row. "
            "Predict again, under another name."
        )


def _codes(rows: Integers, subsets: Mapping[str, Integers] | None) -> NDArray[np.int8]:
    """The subset of each event as a position in `subsets`; -1 where it is in none."""
    codes = np.full(len(rows), -1, np.int8)
    for code, members in enumerate((subsets or {}).values()):
        codes[np.isin(rows, members)] = code
    return codes


def _count_subsets(codes: NDArray[np.int8], subsets: Mapping[str, Integers] | None) -> dict[str, int] | None:
    if subsets is None:
        return None
    counts = Counter(codes.tolist())
    return {**{name: counts[code] for code, name in enumerate(subsets)}, "none": counts[-1]}


def _judge(
    events: ScoredEvents, selected: Bits, judged: Bits, largest_p_value: float, n_background: int
) -> dict[str, Any]:
    """Selection and metrics of the `judged` events."""
    share, error = passing_background(n_background, largest_p_value)
    labels, chosen = events.labels[judged], selected[judged]
    known = labels >= 0
    n_judged = int(judged.sum())
    metrics = None
    if known.any():
        metrics = metrics_of(
            labels[known], events.p_signal[judged][known], events.answers[judged][known]
        ).model_dump()
    return {
        "selection": {
            "largest_p_value": largest_p_value,
            "n_selected": int(chosen.sum()),
            "expected_of_background": share * n_judged,
            "expected_of_background_error": error * n_judged,
            "signal_efficiency": _efficiency(chosen[labels == 1]),
            "background_efficiency": _efficiency(chosen[labels == 0]),
        },
        "figures": metrics,
    }


def _against_background(
    events: ScoredEvents,
    selected: Bits,
    judged: Bits,
    background: ScoredEvents,
    passed: Bits,
    largest_p_value: float,
) -> dict[str, Any]:
    """The spectrum of the `judged` events, with what to expect of background, and how far either is sculpted.

    `passed` are the events of the reference that are selected. Without their m_jj nothing is expected.
    """
    mjj, chosen, labels = events.mjj[judged], selected[judged], events.labels[judged]
    true = labels == 0
    there = np.isfinite(mjj)
    passing = passing_share(background.mjj, passed) if np.isfinite(background.mjj).any() else None
    if passing:
        share, error = passing_background(len(background.rows), largest_p_value)
        if error and len(passing.share) == 1 and math.isclose(passing.share[0], share):
            passing = replace(passing, error=np.array([error]))  # of one bin it is what the selection says
    found = [sculpting_of(background.mjj, passed), sculpting_of(mjj[true], chosen[true])]
    return {
        "spectrum": spectrum(mjj, chosen, labels, passing),
        "expectation": compare(passing, mjj[there], chosen[there]) if passing and there.any() else None,
        "sculpting": {
            name: one.model_dump() if one else None
            for name, one in zip(("reference", "judged"), found, strict=True)
        },
    }


def _efficiency(chosen: Bits) -> dict[str, float] | None:
    """The share of a class that is selected, with its 95% Wilson interval; None without events."""
    if not len(chosen):
        return None
    low, high = wilson_interval(int(chosen.sum()), len(chosen))
    return {"value": float(chosen.mean()), "low": low, "high": high}


def _top(events: ScoredEvents, values: Floats, judged: Bits) -> list[dict[str, Any]]:
    """The most signal-like of the judged events."""
    places = np.flatnonzero(judged)
    best = places[np.argsort(-events.p_signal[places], kind="stable")[:_TOP]]
    return [
        {
            "row": int(events.rows[place]),
            "p_signal": float(events.p_signal[place]),
            "p_value": float(values[place]),
            "mjj": float(events.mjj[place]) if np.isfinite(events.mjj[place]) else None,
            "label": int(events.labels[place]) if events.labels[place] >= 0 else None,
        }
        for place in best.tolist()
    ]


def _table(events: ScoredEvents, values: Floats, codes: NDArray[np.int8], names: Sequence[str]) -> pa.Table:
    return pa.Table.from_arrays(
        [
            pa.array(events.rows),
            pa.array(events.p_signal),
            pa.array(values),
            pa.array(ranks(events.p_signal)),
            _masses(events),
            _labels(events),
            pa.array([*names, None], pa.string()).take(pa.array(np.where(codes < 0, len(names), codes))),
            pa.array(events.answers),
        ],
        schema=SCHEMA,
    )


def _reference_table(background: ScoredEvents) -> pa.Table:
    columns = [
        pa.array(background.rows),
        _labels(background),
        _masses(background),
        pa.array(background.p_signal),
        pa.array(background.answers),
    ]
    return pa.Table.from_arrays(columns, schema=PART_SCHEMA)


def _masses(events: ScoredEvents) -> pa.Array:
    return pa.array(events.mjj, mask=~np.isfinite(events.mjj))


def _labels(events: ScoredEvents) -> pa.Array:
    return pa.array(events.labels, mask=events.labels < 0)
