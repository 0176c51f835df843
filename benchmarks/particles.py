"""`python -m benchmarks.particles --events N --place DIR [--stage STAGE]`: what the particles of an event tell
beyond its features, and whether a language model reads it better than others do.

The stages, in this order, each leaving what stands already, and going on where it was cut:
  data     generates the events of the quality benchmark (some 15 ms of a core each), clusters them with their
           constituents and splits them; with `--more` it makes others for training alone, without constituents; CPU
  tokens   counts the tokens of prompts by coding and constituents, of `--model` and `--mistral`; CPU
  trees    boosted trees on 34 features, and on these with flattened constituents; CPU
  network  a particle transformer of about a million weights; a GPU, or a CPU for some thousand events
  model    fine-tunes the language model on `particles`, pretrained and of random weights; a GPU, or a few steps
  channel  fine-tunes it with constituents as vectors in place of words, pretrained and of random weights; the same
  table    writes results/particles.json and the tables of docs/results.md

Whatever is trained is judged on the validation subset. The table takes of each kind what is best there, and only for
that looks at the test subset. `--events 1000 --max-steps 8` tries everything out on a CPU.
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.events import cache_directory
from benchmarks.quality_data import events_of_more, make_more
from benchmarks.rows import say
from lhcq.workspace import Workspace

STAGES = ("data", "tokens", "trees", "network", "model", "channel", "table")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", choices=STAGES, action="append", help="Default: all of them.")
    parser.add_argument("--place", type=Path, help="Directory for events, models and scores.")
    parser.add_argument("--events", type=int, default=200_000, help="Events of each class.")
    parser.add_argument("--more", type=int, default=0, help="Events of each class more, to train on alone.")
    parser.add_argument(
        "--train", type=int, nargs="+", metavar="N", help="Of so many training events. Default: all."
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="Train these alone, in this order.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", default="smollm2", help="As `lhcq train` takes it.")
    parser.add_argument("--mistral", type=Path, help="Mistral's tokenizer v3, a sentencepiece file.")
    parser.add_argument("--epochs", type=int, help="Of a network or a channel. Default: its own.")
    parser.add_argument(
        "--max-steps", type=int, help="End each training of a model on prompts after so many steps."
    )
    chosen = parser.parse_args()
    place = Workspace(chosen.place or cache_directory() / "particles")
    stages = chosen.stage or STAGES
    if "data" in stages:
        from benchmarks.particles_data import make_events

        make_events(place, chosen.events, chosen.processes)
        if chosen.more:
            make_more(place, chosen.more, chosen.processes)
    if "tokens" in stages:
        from benchmarks.particles_codings import count_tokens
        from lhcq.model.sources import obtain

        count_tokens(place, obtain(chosen.model, place, say=say), chosen.mistral)
    if "trees" in stages:
        from benchmarks.particles_trees import TREES, fit_trees

        fit_trees(
            place, _among(chosen.only, _possible(place, TREES)), chosen.train, chosen.seeds, chosen.processes
        )
    if "network" in stages:
        from benchmarks.particles_network import NETWORKS, train_networks

        train_networks(place, _among(chosen.only, NETWORKS), chosen.train, chosen.seeds, chosen.epochs)
    if "model" in stages or "channel" in stages:
        from benchmarks.particles_channel import CHANNELS, train_channels
        from benchmarks.particles_model import MODELS, train_models
        from lhcq.model.sources import obtain

        model = obtain(chosen.model, place, say=say)
        if "model" in stages:
            names = _among(chosen.only, _possible(place, MODELS))
            train_models(place, model, names, chosen.train, chosen.seeds, chosen.max_steps)
        if "channel" in stages:
            train_channels(place, model, _among(chosen.only, CHANNELS), chosen.seeds, chosen.epochs)
    if "table" in stages:
        from benchmarks.particles_table import collect, store, write_document

        found = collect(place)
        store(found)
        write_document(found)
    return 0


def _possible(place: Workspace, known: Mapping[str, Any]) -> dict[str, Any]:
    """Without `--more` there is nothing to train on for what wants it."""
    return {name: one for name, one in known.items() if not one.more or events_of_more(place) is not None}


def _among(only: list[str] | None, known: Mapping[str, Any]) -> list[str]:
    return [name for name in only or known if name in known]


if __name__ == "__main__":
    raise SystemExit(main())
