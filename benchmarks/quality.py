"""`python -m benchmarks.quality --stage data|trees|train|table`: how well a fine-tuned SmolLM2 tells signal from
background, against boosted trees on the features of its prompt and on all.

The stages, in this order, each leaving what stands already:
  data   generates and clusters the events (some 15 ms of a core each), and splits them; CPU
  trees  fits boosted trees on the features of each prompt, and on all; CPU
  train  trains and scores each variant (`benchmarks/quality_variants.py`), one after the other; wants a GPU
  table  writes results/quality.json and the tables of docs/results.md

LHCQ_TEST_DATA names the directory of the released 1,000 events, which all are scored on too.
"""

import argparse
import os
from pathlib import Path

from benchmarks.events import cache_directory
from benchmarks.rows import say
from lhcq.workspace import Workspace

STAGES = ("data", "trees", "train", "table")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", choices=STAGES, action="append", help="Default: all of them.")
    parser.add_argument("--place", type=Path, help="Directory for events, adapters and scores (1 GB).")
    parser.add_argument("--events", type=int, default=120_000, help="Events of each class.")
    parser.add_argument("--more", type=int, help="As many more of each class for `more` variants' training.")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", default="smollm2", help="As `lhcq train` takes it.")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="Train these alone, in this order.")
    parser.add_argument("--max-steps", type=int, help="End each training after so many steps, to try it out.")
    chosen = parser.parse_args()
    place = Workspace(chosen.place or cache_directory() / "quality")
    stages = chosen.stage or STAGES
    holds = True
    if "data" in stages:
        from benchmarks.quality_data import CLUSTERING, make_data, make_more, make_released

        make_released(place, CLUSTERING)
        make_data(place, chosen.events, chosen.processes)
        if chosen.more:
            make_more(place, chosen.more, chosen.processes)
    if "trees" in stages:
        from benchmarks.quality_trees import fit_trees

        fit_trees(place, chosen.processes)
    if "train" in stages:
        from benchmarks.quality_train import train_variants
        from benchmarks.quality_variants import VARIANTS
        from lhcq.model.sources import obtain

        model = obtain(chosen.model, place, say=say)
        train_variants(place, model, chosen.only or list(VARIANTS), max_steps=chosen.max_steps)
    if "table" in stages:
        from benchmarks.quality_table import collect, store, write_document

        found = collect(place)
        store(found)
        write_document(found)
        holds = all(one["holds"] for one in found["bounds"])
    return int(not holds)


if __name__ == "__main__":
    raise SystemExit(main())
