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
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.rows import put_table, say, write_result
from benchmarks.searching_model_data import REGION, Place, draw_events
from lhcq.config import TrainConfig
from lhcq.evaluate.injection import Injected, idealised_fold, supervised_fold
from lhcq.evaluate.weak import WeakEvents, drawn_rows, score_fold
from lhcq.prompts.templates import render_features
from lhcq.records.searches import write_chunk
from lhcq.requests.fine_tuning import training_config
from lhcq.requests.search import search_config
from lhcq.storage import read_json, write_json

STAGES = ("data", "trees", "model", "table", "document")
RESULT = "searching_model"
MADE_BY = "python -m benchmarks.searching_model"
DOCUMENT = Path(__file__).parents[1] / "docs" / "search.md"

Floats = NDArray[np.float64]
LearnFold = Callable[[Injected, int], Floats]
"""What a classifier gives the events of a fold, in their order."""


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
        from benchmarks.searching_model_table import collect, lines_of

        found = collect(place)
        write_json(place.root / f"{RESULT}.json", found)
        print("\n".join(lines_of(found)), flush=True)
    if "document" in stages:
        from benchmarks.searching_model_table import lines_of

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
