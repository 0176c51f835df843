"""The events of the benchmark of searches by a language model: which are drawn, and where their scores stand."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.rows import say
from lhcq.config import SearchConfig
from lhcq.evaluate.injection import Injected, inject
from lhcq.evaluate.weak import WeakEvents
from lhcq.prompts.features import KNOWN, compute_features, record_columns
from lhcq.prompts.templates import describe_template
from lhcq.records.events import ROW_GROUP
from lhcq.records.specs import Template
from lhcq.requests.search import in_range
from lhcq.storage import sha256_of_json, staged_file

REGION = (3300.0, 3700.0)
SIGNAL_KEPT = 20_000
"""Of which some are put in, and the others teach the supervised classifier."""
_DRAWN_KEY, _TEMPLATE_KEY = b"lhcq.drawn", b"lhcq.template"


@dataclass(frozen=True, kw_only=True)
class Place:
    """The directory of events and scores, and what is put in."""

    root: Path
    config: SearchConfig
    n_signal: int

    @property
    def events_file(self) -> Path:
        return self.root / "events.parquet"

    @cached_property
    def table(self) -> pa.Table:
        """Row, label, m_jj and the features of the template, of events in the range of the fit."""
        return pq.read_table(self.events_file)

    @cached_property
    def template(self) -> Template:
        return Template.model_validate_json(self.table.schema.metadata[_TEMPLATE_KEY])

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What is looked at: the same in all results of a place."""
        n_background = int((self.table["label"].to_numpy() == 0).sum())
        digest = hashlib.sha256(self.table["mjj"].to_numpy().tobytes())
        return {
            "drawn": self.table.schema.metadata[_DRAWN_KEY].decode(),
            "events_sha256": digest.hexdigest(),
            "background_in_range": n_background,
            "put_in": self.n_signal,
            "region": list(REGION),
            "config": self.config.model_dump(mode="json"),
        }

    def put(self, seed: int) -> Injected:
        """The events of a seed."""
        rows = self.table["row"].to_numpy()
        events = WeakEvents(
            rows=rows,
            mjj=self.table["mjj"].to_numpy(),
            folds=np.zeros(len(rows), np.int8),
            values=np.column_stack([self.table[name].to_numpy() for name in self.template.columns]),
        )
        labels = self.table["label"].to_numpy().astype(np.int8)
        folds = self.config.folds
        return inject(events, labels, rows, n_signal=self.n_signal, seed=seed, n_folds=folds, key=f"{seed}")

    def scores(self, learner: dict[str, Any], seed: int, fold: int) -> Path:
        """Where the scores of a fold stand; what is known of the training is beside them."""
        key = sha256_of_json({**self.facts, **learner})[:12]
        return self.root / "scores" / f"{key}-{seed}-{fold}.arrows"


def draw_events(place: Place, files: list[Path], n_background: int) -> None:
    """Keep as many background events and some signal of the files, in the range of the fit; what stands is left."""
    if place.events_file.exists():
        return
    random = np.random.default_rng(1)
    template = describe_template(place.config.template, pq.read_schema(files[0]))
    wanted = [one for one in KNOWN if one.name in template.columns]
    tables = []
    for path in files:
        schema = pq.read_schema(path)
        for batch in pq.ParquetFile(path).iter_batches(ROW_GROUP, columns=record_columns(schema)):
            records = pa.Table.from_batches([batch])
            features = compute_features(records, wanted)
            of = {name: records[name].combine_chunks() for name in ("label", "mjj")}
            tables.append(pa.table({**of, **{name: features[name] for name in template.columns}}))
    events = pa.concat_tables(tables)
    labels = events["label"].to_numpy()
    background, signal = (random.permutation(np.flatnonzero(labels == label)) for label in (0, 1))
    if len(background) < n_background:
        raise SystemExit(
            f"searching_model: {n_background:,} background events wanted, {len(background):,} there"
        )
    drawn = background[:n_background], signal[:SIGNAL_KEPT]
    kept = np.sort(np.concatenate(drawn))
    events = events.take(pa.array(kept))
    mjj = events["mjj"].fill_null(np.nan).to_numpy()
    events = events.add_column(0, "row", pa.array(kept)).filter(pa.array(in_range(mjj, place.config)))
    said = f"{n_background:,} of {len(background):,} background events"
    said += f", {len(drawn[1]):,} of {len(signal):,} of signal"
    about = {_DRAWN_KEY: said, _TEMPLATE_KEY: template.model_dump_json()}
    with staged_file(place.events_file) as temporary:
        pq.write_table(events.replace_schema_metadata(about), temporary, compression="zstd")
    say(f"data: {said}; {events.num_rows:,} in the range of the fit")
