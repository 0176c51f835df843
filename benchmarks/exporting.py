"""What the check before an export is committed costs, with bitsandbytes' own packing of NF4 on a CPU and with lhcq's.

The demo's base model and prompts; the run is short, since how well it learnt changes nothing. Each export is a
command in a process of its own, the two ways in turn. What the libraries take to import is counted apart.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from functools import wraps
from pathlib import Path
from typing import Any

from benchmarks.command import watch
from benchmarks.events import cache_directory
from benchmarks.rows import Row, row, say

BOUND_SECONDS = 5.0
ROUNDS = 3
WAYS = ("lhcq", "bitsandbytes")
FEW = {"generate.background": 150, "generate.signal": 150, "prepare.limit": 200, "train.max_steps": 4}
FEW |= {"train.checkpoints": 1}


def measure() -> list[Row]:
    """The rows of the result."""
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        root = Path(scratch) / "workspace"
        say("exporting: a run of a few steps")
        run_briefly(root)
        for way in WAYS:
            export(root, way)  # once before it counts: a loop is compiled, a file read
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for turn in range(ROUNDS):
            for way in WAYS:
                say(f"exporting: round {turn + 1}, {way}")
                found[way].append(export(root, way))
    ours, theirs = (found[way] for way in WAYS)
    note = "the program of the card, from loading the base model to the comparison; libraries were imported before"
    return [
        row("check of an export", of(ours, "seconds"), "s", at_most=BOUND_SECONDS, note=note),
        row("the same with bitsandbytes' packing", of(theirs, "seconds"), "s"),
        row("CPU time of the check", of(ours, "cpu"), "s"),
        row("the same with bitsandbytes' packing", of(theirs, "cpu"), "s"),
        row("CPU time, lhcq's over bitsandbytes'", ratios(ours, theirs), "", at_most=1.0),
        row("the whole command", of(ours, "command"), "s"),
    ]


def run_briefly(root: Path) -> None:
    """The demo with few events and few steps, in the workspace `root`."""
    watch(root, "run", "demo", *(word for one in FEW.items() for word in ("--set", "{}={}".format(*one))))


def of(rounds: list[dict[str, Any]], name: str) -> list[float]:
    return [one[name] for one in rounds]


def ratios(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[float]:
    return [one["cpu"] / other["cpu"] for one, other in zip(ours, theirs, strict=True)]


def export(root: Path, way: str) -> dict[str, Any]:
    """Export the run's checkpoint in a process of its own."""
    began = time.perf_counter()
    words = (sys.executable, "-m", "benchmarks.exporting", str(root), way)
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return {**measured, "command": time.perf_counter() - began}


def main(root: str, way: str) -> None:
    """Export once, and print what the check took."""
    import peft  # noqa: F401
    import transformers
    from click.testing import CliRunner

    from lhcq.cli.main import cli
    from lhcq.model import alone
    from lhcq.model.kernels import nf4
    from lhcq.model.library_output import import_bitsandbytes

    import_bitsandbytes()
    for name in ("AutoModelForCausalLM", "AutoTokenizer", "BitsAndBytesConfig"):
        getattr(transformers, name)
    if way == "bitsandbytes":
        nf4.pack_quickly = lambda: False  # type: ignore[assignment]
    check, took = alone.try_program, {}

    @wraps(check)
    def timed(*arguments: Any, **more: Any) -> Any:
        began, used = time.perf_counter(), time.process_time()
        tried = check(*arguments, **more)
        took.update(seconds=time.perf_counter() - began, cpu=time.process_time() - used)
        return tried

    alone.try_program = timed
    directory = Path(root) / "exported"
    shutil.rmtree(directory, ignore_errors=True)
    words = ["export-adapter", name_of_run(root), "latest", str(directory)]
    found = CliRunner().invoke(cli, words, env={"LHCQ_WORKSPACE": root}, standalone_mode=False)
    if found.exception:
        raise found.exception
    print(json.dumps(took))


def name_of_run(root: str) -> str:
    (run,) = (Path(root) / "runs").iterdir()
    return run.name


if __name__ == "__main__":
    main(*sys.argv[1:])
