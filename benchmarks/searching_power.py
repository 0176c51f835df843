"""What trees without labels make of a resonance by how many events there are: is it as good at a million?

    python -m benchmarks.searching_power --place DIR --events EVENTS.parquet [--seeds 10]

Background are the samples of `python -m benchmarks.searching_generated --place DIR`, all that stand there; signal is
that of EVENTS.parquet, the clustered events of another benchmark's data stage. Among N background events, S are put
in twice: as rare as 1,000 in a million are (S = N/1000), and as far above a fluctuation (S = the root of N); at a
million both are the same 1,000. One region is looked at, as `lhcq search` does it; labels tell the significance
improvement of its selections, the share of signal kept over the root of that of background, and fits what all events
and the selected ones show: with sidebands of a width, as by default, and of half a width, by one training a fold, and
with the former by the mean of five, as `lhcq search --seeds 5` has it. The same command goes on where it was cut, the
largest background first. Results are in results/searching_power.json and a table of docs/search.md, after each point.
"""

import argparse
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.quality_table import to_table
from benchmarks.rows import RESULTS, circumstances, put_table, say, write_result
from benchmarks.searching import DOCUMENT
from benchmarks.searching_generated import CONFIG, PER_SAMPLE, edges, kept_of, sample_path
from lhcq.evaluate.hunt import INCLUSIVE, hunt, judge_by_truth
from lhcq.evaluate.weak import WeakEvents, assign_folds, score_all
from lhcq.prompts.features import record_columns
from lhcq.records.events import ROW_GROUP
from lhcq.requests.search import in_range
from lhcq.storage import read_json, staged_file, write_json

REGION = (3300.0, 3700.0)
SIGNAL_KEPT = 20_000
WAYS = ((CONFIG.width / 2, 1), (CONFIG.sideband, 1), (CONFIG.sideband, 5))
"""GeV at either side of the region, `--sideband`, and trainings of a fold, whose scores are averaged, `--seeds`."""
RESULT = "searching_power"
MADE_BY = "python -m benchmarks.searching_power"


def read_signal(place: Path, path: Path) -> pa.Table:
    """As many signal events as are kept, with the features of a search."""
    kept = place / "signal.parquet"
    if not kept.exists():
        schema, tables, n = pq.read_schema(path), [], 0
        for batch in pq.ParquetFile(path).iter_batches(ROW_GROUP, columns=record_columns(schema)):
            records = pa.Table.from_batches([batch])
            tables.append(kept_of(records.filter(pc.equal(records["label"], 1))))
            n += tables[-1].num_rows
            if n >= SIGNAL_KEPT:
                break
        with staged_file(kept) as temporary:
            pq.write_table(pa.concat_tables(tables)[:SIGNAL_KEPT], temporary, compression="zstd")
    return pq.read_table(kept)


def measure(place: Path, path: Path, seeds: int) -> Iterator[dict[str, Any]]:
    """For each size of the background and number of signal events what the region shows, by seed."""
    signal = read_signal(place, path)
    samples = [one for at in range(100) if (one := sample_path(place, at)).exists()]
    background = pa.concat_tables([pq.read_table(one) for one in samples])
    sizes = [n for n in (PER_SAMPLE, 2 * PER_SAMPLE) if n < len(background)] + [len(background)]
    for n_background in reversed(sizes):
        for n_signal in sorted({n_background // 1000, math.isqrt(n_background)}):
            for sideband, trainings in WAYS:
                found = []
                for seed in range(1, seeds + 1):
                    name = f"{n_background}-{n_signal}-{sideband:.0f}-{trainings}-{seed}.json"
                    known = place / "power" / name
                    if not known.exists():
                        some = background[:n_background]
                        write_json(known, look(some, signal, n_signal, seed, sideband, trainings))
                    found.append(read_json(known))
                point = {
                    "background": n_background,
                    "signal": n_signal,
                    "sideband": sideband,
                    "trainings": trainings,
                }
                yield {**point, "seeds": found}
                say(f"{point}: {[one['improvement'] for one in found]}")


def look(
    background: pa.Table, signal: pa.Table, n_signal: int, seed: int, sideband: float, trainings: int
) -> dict[str, Any]:
    """What the region shows of so many signal events, of those of all masses, that a seed draws."""
    drawn = np.random.default_rng([seed, n_signal]).permutation(len(signal))[:n_signal]
    table = pa.concat_tables([background, signal.take(np.sort(drawn))])
    mjj = table["mjj"].to_numpy()
    kept = in_range(mjj, CONFIG)
    labels = (np.arange(len(mjj)) >= len(background)).astype(np.int8)[kept]
    features = [name for name in table.column_names if name not in ("row", "mjj")]
    rows = np.arange(len(labels))
    events = WeakEvents(
        rows=rows,
        mjj=mjj[kept],
        folds=assign_folds(rows, CONFIG.folds, f"{seed}"),
        values=np.column_stack([table[name].to_numpy()[kept] for name in features]),
    )
    scores = score_all(
        events,
        REGION,
        sideband,
        n_folds=CONFIG.folds,
        seeds=[seed + 1000 * at for at in range(trainings)],
        check=lambda: None,
    )
    tests = hunt(events, [scores], [REGION], (INCLUSIVE, *CONFIG.selections), edges())
    inclusive, *selected = judge_by_truth(labels, events.mjj, tests)
    return {
        "signal_in_region": inclusive["n_signal"],
        "background_in_region": inclusive["n_background"],
        "improvement": [one["improvement"] for one in selected],
        "z": [test.excess.z if test.excess else None for test in tests],
    }


def lines_of(points: list[dict[str, Any]]) -> list[str]:
    """The table of the document."""
    rows = []
    for point in points:
        of = point["seeds"]
        s, b = (
            statistics.median(one[f"{name}_in_region"] for one in of) for name in ("signal", "background")
        )
        cells = [_spread([one["z"][0] for one in of])]
        for at in range(len(CONFIG.selections)):
            cells += [
                _spread([one["improvement"][at] for one in of]),
                _spread([one["z"][1 + at] for one in of]),
            ]
        told = [f"{point[name]:,.0f}" for name in ("background", "signal", "sideband", "trainings")]
        rows.append([*told[:2], f"{s / b:.2%}", *told[2:], *cells])
    shares = [f"{share:.1%}" for share in CONFIG.selections]
    heads = [text for share in shares for text in (f"improvement, {share}", f"σ, {share}")]
    known = [
        "background",
        "signal",
        "S/B in the region",
        "sidebands, GeV",
        "trainings a fold",
        "σ, all events",
    ]
    return to_table([*known, *heads], rows)


def _spread(values: list[float | None]) -> str:
    """Median, least and most; a seed without a number is told."""
    known = [one for one in values if one is not None]
    if not known:
        return "none"
    missing = f", {len(values) - len(known)} none" if len(known) < len(values) else ""
    return f"{statistics.median(known):.1f} ({min(known):.1f} to {max(known):.1f}{missing})"


def put_document() -> None:
    """Put what was measured last into docs/search.md."""
    points = read_json(RESULTS / f"{RESULT}.json")["points"]
    put_table("searching power", lines_of(points), MADE_BY, DOCUMENT)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    chosen = parser.parse_args()
    points: list[dict[str, Any]] = []
    config = CONFIG.model_dump(mode="json")
    for point in measure(chosen.place, chosen.events, chosen.seeds):
        points = sorted(
            [*points, point],
            key=lambda one: (one["background"], one["signal"], one["sideband"], one["trainings"]),
        )
        write_result(RESULT, {**circumstances(), "config": config, "region": REGION, "points": points})
        put_document()
    print("\n".join(lines_of(points)))


if __name__ == "__main__":
    main()
