"""Whole searches, with all defaults, in generated background alone: are global p-values uniform?

    python -m benchmarks.searching_generated --place DIR [--samples 20] [--events EVENTS.parquet] [--until 18:30]

A sample is 50,000 generated events that no other has: as many parts of one plan of `lhcq generate`, clustered with
R=1. Of them `--place` keeps row, m_jj and the features of a search, some megabytes a sample. `--events` names the
clustered events of another benchmark's data stage (`particles`, `quality`), whose background is the same plan's
beginning, so that it is not generated again; its last part is, to see that it is the same. Each sample is searched as
soon as it is there. The same command goes on where it was cut; no sample is begun after `--until`, the clock's time.
Results are in results/searching_generated.json and a table of docs/search.md.
"""

import argparse
import multiprocessing
import time
from datetime import datetime
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.quality_data import SEED, key_of
from benchmarks.rows import RESULTS, Row, circumstances, put_table, row, say, table, write_result
from benchmarks.searching import DOCUMENT, alarm_rows
from lhcq.config import ClusterConfig, GenerateConfig
from lhcq.evaluate.hunt import RegionTest, bin_edges, hunt, pseudo_experiments, summarize
from lhcq.evaluate.weak import WeakEvents, assign_folds, score_all, shuffled
from lhcq.events.pythia import GeneratePart, generate_part, plan_parts
from lhcq.jets.clustering import cluster_events, compile_kernels
from lhcq.prompts.features import KNOWN, compute_features, record_columns
from lhcq.prompts.templates import describe_template
from lhcq.records.events import ROW_GROUP
from lhcq.requests.search import in_range, search_config
from lhcq.storage import read_json, staged_file, write_json

SAMPLES = 20
PER_SAMPLE = 50_000
CLUSTERING = ClusterConfig(features="full", axes="kt")
"""Of kt axes, as the events whose searches are recorded."""
CONFIG = search_config()
"""Every default of `lhcq search`."""
RESULT = "searching_generated"
MADE_BY = "python -m benchmarks.searching_generated"

Floats = NDArray[np.float64]


def plan() -> list[GeneratePart]:
    """The parts of all samples, one sample's after the other's."""
    return plan_parts(GenerateConfig(background=SAMPLES * PER_SAMPLE, signal=0, seed=SEED))


def sample_path(place: Path, sample: int) -> Path:
    """What is kept of a sample's events."""
    return place / "samples" / f"{sample:02d}.parquet"


def kept_of(records: pa.Table) -> pa.Table:
    """Row, m_jj and the features that trees see of clustered events."""
    columns = describe_template(CONFIG.template, records.schema).columns
    features = compute_features(records, [one for one in KNOWN if one.name in columns])
    mjj = records["mjj"].combine_chunks().fill_null(np.nan)
    return pa.table({"row": records["row"], "mjj": mjj, **{name: features[name] for name in columns}})


def make_part(part: GeneratePart) -> pa.Table:
    """Generate and cluster a part; its rows count the events of the plan."""
    particles, labels = generate_part(part)
    rows = np.arange(part.n_events) + part.index * part.n_events
    return kept_of(pa.table(cluster_events(particles, CLUSTERING, rows=rows, labels=labels)))


def _make_piece(work: tuple[GeneratePart, Path]) -> None:
    part, path = work
    if not path.exists():
        _write(path, make_part(part))


def _write(path: Path, events: pa.Table) -> None:
    with staged_file(path) as temporary:
        pq.write_table(events, temporary, compression="zstd")


def make_sample(place: Path, sample: int, pool: Pool) -> None:
    """Generate the events of a sample; parts that stand are left."""
    path = sample_path(place, sample)
    if path.exists():
        return
    each = len(plan()) // SAMPLES
    scratch = place / "parts"
    parts = plan()[sample * each : (sample + 1) * each]
    paths = [scratch / f"{part.index:05d}.parquet" for part in parts]
    for done, _ in enumerate(pool.imap_unordered(_make_piece, zip(parts, paths, strict=True)), start=1):
        if done % 50 == 0:
            say(f"sample {sample}: {done} of {each} parts")
    _write(path, pa.concat_tables([pq.read_table(one) for one in paths]))
    for one in paths:
        one.unlink()


def take_samples(place: Path, path: Path) -> None:
    """Keep the samples that clustered events of the same plan hold whole."""
    schema = pq.read_schema(path)
    n_background = 0
    tables = []
    for batch in pq.ParquetFile(path).iter_batches(ROW_GROUP, columns=record_columns(schema)):
        records = pa.Table.from_batches([batch])
        records = records.filter(pc.equal(records["label"], 0))
        n_background += records.num_rows
        if records.num_rows:
            tables.append(kept_of(records))
    events = pa.concat_tables(tables)
    rows = events["row"].to_numpy()
    if not np.array_equal(rows, np.arange(n_background)):
        raise SystemExit(f"{path}: its background does not come first, as a plan of `lhcq generate` has it")
    whole = n_background // PER_SAMPLE
    last = plan()[whole * len(plan()) // SAMPLES - 1]
    again = make_part(last)
    if not again.equals(events.slice(int(again["row"][0].as_py()), last.n_events).combine_chunks()):
        raise SystemExit(f"{path}: its events are not those of this benchmark's plan, seed {SEED}")
    for sample in range(whole):
        if not sample_path(place, sample).exists():
            _write(sample_path(place, sample), events.slice(sample * PER_SAMPLE, PER_SAMPLE))
    say(f"{path}: {whole} samples")


def read_sample(place: Path, sample: int) -> WeakEvents:
    """The events of a sample in the range of the fit, dealt into folds."""
    events = pq.read_table(sample_path(place, sample))
    mjj = events["mjj"].to_numpy()
    kept = in_range(mjj, CONFIG)
    rows = events["row"].to_numpy()[kept]
    columns = [name for name in events.column_names if name not in ("row", "mjj")]
    return WeakEvents(
        rows=rows,
        mjj=mjj[kept],
        folds=assign_folds(rows, CONFIG.folds, f"{SEED} {sample}"),
        values=np.column_stack([events[name].to_numpy()[kept] for name in columns]),
    )


def edges() -> Floats:
    """The bins of the fits, GeV."""
    return bin_edges(CONFIG.fit_low, CONFIG.fit_high, CONFIG.regions[0])


def _scored(work: tuple[Path, int, int | None, int]) -> Floats:
    """Scores (n_events,) of a region's trees; of a shuffle the significance of each selection, NaN without a fit."""
    place, sample, shuffle, at = work
    events, region = read_sample(place, sample), CONFIG.regions[at]
    if shuffle is not None:
        events = shuffled(events, [CONFIG.seed, shuffle])
    scores = score_all(
        events, region, CONFIG.sideband, n_folds=CONFIG.folds, seeds=[CONFIG.seed], check=lambda: None
    )
    if shuffle is None:
        return scores
    tests = hunt(events, [scores], [region], CONFIG.selections, edges())
    return np.array([test.excess.z if test.excess else np.nan for test in tests])


def _drawn(work: tuple[list[RegionTest], int]) -> Floats:
    tests, experiment = work
    return pseudo_experiments(tests, edges(), seed=[CONFIG.seed, experiment], n=1)


def search(place: Path, sample: int, pool: Pool) -> dict[str, Any]:
    """A whole search in a sample, as the tasks of `lhcq search` do it."""
    began = time.perf_counter()
    n_regions = len(CONFIG.regions)
    work = [
        (place, sample, shuffle, at) for shuffle in (None, *range(CONFIG.shuffles)) for at in range(n_regions)
    ]
    found = pool.map(_scored, work, chunksize=1)
    events = read_sample(place, sample)
    tests = hunt(events, found[:n_regions], CONFIG.regions, CONFIG.selections, edges())
    shuffles = np.concatenate(found[n_regions:]).reshape(CONFIG.shuffles, -1)
    pseudo = pool.map(
        _drawn, ((tests, experiment) for experiment in range(CONFIG.pseudo_experiments)), chunksize=25
    )
    said = summarize(events, tests, [], shuffles, np.concatenate(pseudo), edges())
    return {
        "sample": sample,
        "in_range": len(events.rows),
        "p_value": said["global"]["p_value"],
        "how": said["global"]["how"],
        "tests": said["global"]["tests"],
        "z": [test["z"] for test in said["tests"]],
        "widths": [one["measured"] for one in said["spread"]],
        "seconds": time.perf_counter() - began,
    }


def found_path(place: Path, sample: int) -> Path:
    """What a search of a sample found."""
    return place / "found" / f"{sample:02d}.json"


def put_result(place: Path, wanted: int) -> list[Row]:
    """Write what the samples searched so far amount to, into results/ and the document."""
    samples = [read_json(path) for path in sorted((place / "found").glob("*.json"))]
    result = {
        **circumstances(),
        "events_each": PER_SAMPLE,
        "wanted": wanted,
        "key": key_of(GenerateConfig(background=SAMPLES * PER_SAMPLE, signal=0, seed=SEED)),
        "config": CONFIG.model_dump(mode="json"),
        "samples": samples,
    }
    write_result(RESULT, result)
    put_document()
    return rows_of(result)


def rows_of(result: dict[str, Any]) -> list[Row]:
    """The figures of a result."""
    wanted, *others = alarm_rows(result["samples"])
    return [
        row(
            f"{wanted['figure']}, {result['events_each']:,} events each",
            wanted["value"],
            f"of {result['wanted']}",
        ),
        *others,
    ]


def put_document() -> None:
    """Put what was measured last into docs/search.md."""
    rows = rows_of(read_json(RESULTS / f"{RESULT}.json"))
    lines = [f"| {one['figure']} | {one['value']:.3g} {one['unit']}".rstrip() + " |" for one in rows]
    put_table("searching generated", ["| what | value |", "|---|---|", *lines], MADE_BY, DOCUMENT)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--events", type=Path, help="Clustered events of the same plan.")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--until", type=lambda text: datetime.strptime(text, "%H:%M").time(), metavar="HH:MM")
    chosen = parser.parse_args()
    compile_kernels()
    with multiprocessing.get_context("spawn").Pool(chosen.processes) as pool:
        if chosen.events is not None:
            take_samples(chosen.place, chosen.events)
        for sample in range(chosen.samples):
            if found_path(chosen.place, sample).exists():
                continue
            if chosen.until is not None and datetime.now().time() > chosen.until:
                say(f"sample {sample} and those behind it wait for the next command")
                break
            make_sample(chosen.place, sample, pool)
            found = search(chosen.place, sample, pool)
            write_json(found_path(chosen.place, sample), found)
            say(f"sample {sample}: global p-value {found['p_value']:.3f}, {found['seconds']:.0f} s")
    rows = put_result(chosen.place, chosen.samples)
    print(table("searching generated", rows))


if __name__ == "__main__":
    main()
