"""What a language model finds in a region where signal was put in, beside trees on the same events.

    python -m benchmarks.searching_model EVENTS.parquet... --place DIR [--epochs 1 3] [--seconds 220]

The stages, in this order, each leaving what stands already, and going on where it was cut:
  data   draws `--background` background events of clustered ones (`lhcq cluster --features full`), and 20,000 of
         signal, and keeps the features of a search: some megabytes, all that the others need; CPU
  trees  without labels, idealised, and taught by labels: lhcq.evaluate.injection; CPU
  model  the language model without labels, as `lhcq search --model` trains it, a training a fold; a GPU
  table  prints what was found and writes PLACE/searching_model.json; needs iminuit
  document  puts that into results/ and docs/search.md; only where it is asked for

`--signal` signal events are put in, in the range of the fit, and one region is looked at. No training begins after
`--seconds`; the same command goes on. `--signal 200 --background 5000 --folds 2 --max-steps 3` tries it out on a CPU.
"""

import argparse
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.rows import circumstances, put_table, say, write_result
from lhcq.config import SearchConfig, TrainConfig
from lhcq.evaluate.injection import Injected, idealised_fold, inject, supervised_fold
from lhcq.evaluate.weak import WeakEvents, drawn_rows, score_fold
from lhcq.prompts.features import KNOWN, compute_features, record_columns
from lhcq.prompts.templates import describe_template, render_features
from lhcq.records.events import ROW_GROUP
from lhcq.records.searches import read_chunk, write_chunk
from lhcq.records.specs import Template
from lhcq.requests.fine_tuning import training_config
from lhcq.requests.search import in_range, search_config
from lhcq.storage import read_json, sha256_of_json, staged_file, write_json

REGION = (3300.0, 3700.0)
SIGNAL_KEPT = 20_000
"""Of which some are put in, and the others teach the supervised classifier."""
STAGES = ("data", "trees", "model", "table", "document")
RESULT = "searching_model"
MADE_BY = "python -m benchmarks.searching_model"
DOCUMENT = Path(__file__).parents[1] / "docs" / "search.md"
_DRAWN_KEY, _TEMPLATE_KEY = b"lhcq.drawn", b"lhcq.template"

Floats = NDArray[np.float64]
LearnFold = Callable[[Injected, int], Floats]
"""What a classifier gives the events of a fold, in their order."""


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
    kept = np.sort(np.concatenate([background[:n_background], signal[:SIGNAL_KEPT]]))
    events = events.take(pa.array(kept))
    mjj = events["mjj"].fill_null(np.nan).to_numpy()
    events = events.add_column(0, "row", pa.array(kept)).filter(pa.array(in_range(mjj, place.config)))
    said = f"{n_background:,} of {len(background):,} background events, {SIGNAL_KEPT:,} of {len(signal):,} of signal"
    about = {_DRAWN_KEY: said, _TEMPLATE_KEY: template.model_dump_json()}
    with staged_file(place.events_file) as temporary:
        pq.write_table(events.replace_schema_metadata(about), temporary, compression="zstd")
    say(f"data: {said}; {events.num_rows:,} in the range of the fit")


def fill(
    place: Place, learner: dict[str, Any], seeds: int, until: float, learn: Callable[[int], LearnFold]
) -> None:
    """Score every fold of every seed that has no scores yet; `learn` gives what does it for a seed."""
    for seed in range(1, seeds + 1):
        todo = [
            fold
            for fold in range(place.config.folds)
            if not place.scores(learner, seed, fold).with_suffix(".json").exists()
        ]
        put = place.put(seed) if todo else None
        for fold in todo:
            if put is None or time.monotonic() > until:
                say(f"{learner['name']}: seed {seed}, fold {fold} and what follows wait for the next command")
                return
            began = time.perf_counter()
            scores = learn(seed)(put, fold)
            facts = {"seconds": time.perf_counter() - began, **_judged(put, fold, scores)}
            path = place.scores(learner, seed, fold)
            write_chunk(path, scores)
            write_json(path.with_suffix(".json"), {**learner, "seed": seed, "fold": fold, **facts})
            say(
                f"{learner['name']}: seed {seed}, fold {fold}: AUC in the region {facts['auc']:.3f}, "
                f"{facts['seconds']:.1f} s"
            )


def _judged(put: Injected, fold: int, scores: Floats) -> dict[str, Any]:
    """By labels: the AUC of signal against background in the region."""
    of = put.events.folds == fold
    mjj, labels = put.events.mjj[of], put.labels[of]
    inside = (mjj >= REGION[0]) & (mjj < REGION[1])
    return {"auc": float(roc_auc_score(labels[inside], scores[inside]))}


def by_trees(place: Place, seeds: int, until: float) -> None:
    """The three kinds of trees."""
    sideband = place.config.sideband
    kinds: dict[str, Callable[[int], LearnFold]] = {
        "trees": lambda seed: (
            lambda put, fold: score_fold(put.events, REGION, sideband, fold=fold, seed=seed)
        ),
        "idealised": lambda seed: lambda put, fold: idealised_fold(put, REGION, fold=fold, seed=seed),
        "supervised": lambda seed: lambda put, fold: supervised_fold(put, fold=fold, seed=seed),
    }
    for name, learn in kinds.items():
        fill(place, {"name": name}, seeds, until, learn)


def by_model(place: Place, model: str, configs: list[TrainConfig], seeds: int, until: float) -> None:
    """The language model, by each way of training."""
    import torch

    from lhcq.model.base import load_base
    from lhcq.model.sources import obtain
    from lhcq.workspace import Workspace

    base = load_base(obtain(model, Workspace(place.root), say=say))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    say(f"model: {model} on {device}")
    for config in configs:
        fill(
            place,
            {**learner_of(model, config), "device": device},
            seeds,
            until,
            lambda seed, config=config: _FineTuned(base, place, config.model_copy(update={"seed": seed})),
        )


def learner_of(model: str, config: TrainConfig) -> dict[str, Any]:
    """What tells one way of training from others, but for where it was done."""
    until = f", {config.max_steps} steps" if config.max_steps is not None else ""
    return {
        "name": f"{Path(model).name}, {config.epochs:g} epochs{until}",
        "training": config.model_dump(mode="json"),
    }


class _FineTuned:
    """A training a fold, from the base each time."""

    def __init__(self, base: Any, place: Place, config: TrainConfig) -> None:
        self._base = base
        self._place = place
        self._config = config

    def __call__(self, put: Injected, fold: int) -> Floats:
        from lhcq.model.loop import train_whole
        from lhcq.model.score import score_attached

        config, events = self._config, put.events
        drawn, labels = drawn_rows(events, REGION, self._place.config.sideband, fold=fold, seed=config.seed)
        prompts = self._prompts(events, drawn)
        began = time.perf_counter()
        state = train_whole(self._base, prompts=prompts, labels=labels, config=config)
        trained = time.perf_counter()
        self._base.adapter.graphs.clear()  # their memory is wanted for scoring
        asked = self._prompts(events, np.flatnonzero(events.folds == fold))
        found = score_attached(self._base, asked, config.max_tokens, batch_size=config.evaluation_batch)
        n_read = state.step * config.batch_size
        say(
            f"model: {len(prompts):,} prompts such as {prompts[0]!r}: {state.step:,} steps, "
            f"{n_read / (trained - began):,.0f} prompts/s in training, "
            f"{len(asked) / (time.perf_counter() - trained):,.0f} in scoring"
        )
        return found.p_signal

    def _prompts(self, events: WeakEvents, places: NDArray[np.int64]) -> list[str]:
        template = self._place.template
        return render_features(template, dict(zip(template.columns, events.values[places].T, strict=True)))


def collect(place: Place) -> dict[str, Any]:
    """What every learner finds, of those seeds whose folds are all scored."""
    from lhcq.evaluate.hunt import bin_edges
    from lhcq.evaluate.scan import judge_point

    trainings: dict[str, list[dict[str, Any]]] = {}
    for path in sorted((place.root / "scores").glob("*.json")):
        known = read_json(path)
        learner = {key: known[key] for key in ("name", "training", "device") if key in known}
        if place.scores(learner, known["seed"], known["fold"]).with_suffix(".json") == path:
            trainings.setdefault(known["name"], []).append({**known, "learner": learner})
    trainings = dict(sorted(trainings.items(), key=lambda one: _rank(one[1][0])))
    edges = bin_edges(place.config.fit_low, place.config.fit_high, place.config.regions[0])
    points, learners = [], []
    for seed in sorted({one["seed"] for some in trainings.values() for one in some}):
        put, scores = place.put(seed), {}
        for name, some in trainings.items():
            here = {one["fold"]: one for one in some if one["seed"] == seed}
            if not here:
                continue
            if len(here) < place.config.folds:
                say(
                    f"table: {name}: seed {seed} has {len(here)} of {place.config.folds} folds, and is left out"
                )
                continue
            scores[name] = np.zeros(len(put.events.rows))
            for fold, one in here.items():
                members = put.events.folds == fold
                path = place.scores(one["learner"], seed, fold)
                scores[name][members] = read_chunk(path, int(members.sum()))
        judged = judge_point(put, scores, REGION, place.config.selections, edges)
        masses = {name: _mass(place, put, values, edges) for name, values in scores.items()}
        points.append({"seed": seed, **judged, "masses": masses})
    for name, some in trainings.items():
        seconds, auc = ([one[key] for one in some] for key in ("seconds", "auc"))
        known = {"name": name, "trainings": len(some), "seconds": float(np.mean(seconds)), "auc": auc}
        learners.append({**some[0]["learner"], **known})
    return {**circumstances(), **place.facts, "points": points, "learners": learners}


def _mass(place: Place, put: Injected, scores: Floats, edges: Floats) -> float | None:
    """GeV, where the events of the clearer selection are, as the page of a search has it."""
    from lhcq.evaluate.dijet import Spectrum
    from lhcq.evaluate.hunt import hunt

    fitted = [
        (test, test.excess)
        for test in hunt(put.events, [scores], [REGION], place.config.selections, edges)
        if test.excess is not None
    ]
    if not fitted:
        return None
    test, excess = max(fitted, key=lambda one: one[1].z)
    peak = Spectrum(edges, REGION).peak(test.counts, excess)
    return None if peak is None else peak.mass


def _rank(training: dict[str, Any]) -> tuple[int, float]:
    """The place in the table: those without labels first, language models by their epochs."""
    if "training" in training:
        return 1, training["training"]["epochs"]
    return {"trees": 0, "idealised": 2, "supervised": 3}[training["name"]], 0.0


def lines_of(found: dict[str, Any]) -> list[str]:
    """The table: a line a learner, the median over the seeds with the least and the most."""
    shares = found["config"]["selections"]
    lines = [
        "| learner | "
        + " | ".join(f"{100 * share:g}% selected | its improvement" for share in shares)
        + " | mass, GeV | AUC in the region | a training |",
        "|---" * (4 + 2 * len(shares)) + "|",
    ]
    for one in found["learners"]:
        of = [point["learners"][one["name"]] for point in found["points"] if one["name"] in point["learners"]]
        if not of:
            continue
        cells = []
        for place in range(len(shares)):
            cells += [_spread([tests[place][key] for tests in of]) for key in ("z", "improvement")]
        cells.append(_spread([point["masses"].get(one["name"]) for point in found["points"]], 0))
        cells += [_spread(one["auc"], 3), f"{one['seconds']:.1f} s ({one.get('device', 'one core')})"]
        seeds = f" (seeds: {len(of)})" if len(of) < len(found["points"]) else ""
        lines.append(f"| {one['name']}{seeds} | {' | '.join(cells)} |")
    inclusive = _spread([point["inclusive"] for point in found["points"]])
    empty = " | ".join([""] * (2 * len(shares) + 2))
    lines.append(f"| all events | {inclusive} | {empty} |")
    return lines


def _spread(values: list[float | None], digits: int = 1) -> str:
    known = [one for one in values if one is not None]
    if not known:
        return "none"
    median = f"{np.median(known):.{digits}f}"
    return median if len(known) == 1 else f"{median} ({min(known):.{digits}f} to {max(known):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("events", nargs="*", type=Path, help="For the stage data.")
    parser.add_argument("--place", type=Path, required=True, help="Directory of what stands.")
    parser.add_argument("--stage", choices=STAGES, action="append", help="Default: all but document.")
    parser.add_argument("--background", type=int, default=100_000, help="Events, of which some are in range.")
    parser.add_argument("--signal", type=int, default=1000, help="Events to put in, in the range of the fit.")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--model", default="smollm2", help="As `lhcq train` takes it.")
    parser.add_argument("--epochs", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--max-steps", type=int, help="End each training of a model after so many steps.")
    parser.add_argument("--seconds", type=float, default=220.0, help="No training begins after so many.")
    chosen = parser.parse_args()
    until = time.monotonic() + chosen.seconds
    place = Place(root=chosen.place, config=search_config(folds=chosen.folds), n_signal=chosen.signal)
    stages = chosen.stage or STAGES[:-1]
    if "data" in stages:
        draw_events(place, chosen.events, chosen.background)
    if "trees" in stages:
        by_trees(place, chosen.seeds, until)
    if "model" in stages:
        searching = place.config.model_copy(update={"model": chosen.model})
        given = {"batch_size": chosen.batch_size, "max_steps": chosen.max_steps, "learning_rate": 1e-3}
        configs = [training_config(searching, epochs=epochs, **given) for epochs in chosen.epochs]
        by_model(place, chosen.model, [one for one in configs if one is not None], chosen.seeds, until)
    if "table" in stages:
        found = collect(place)
        write_json(place.root / f"{RESULT}.json", found)
        print("\n".join(lines_of(found)), flush=True)
    if "document" in stages:
        found = read_json(place.root / f"{RESULT}.json")
        write_result(RESULT, found)
        introduced = (
            f"The same with {found['put_in']:,} signal events among {found['background_in_range']:,}, by a language "
            f"model beside trees (seeds: {len(found['points'])}; AUC: median of {found['config']['folds']} folds a "
            "seed, least to most):"
        )
        put_table("searching model", [introduced, "", *lines_of(found), ""], MADE_BY, DOCUMENT)


if __name__ == "__main__":
    main()
