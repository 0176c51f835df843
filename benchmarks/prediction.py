"""A black box's size: `lhcq predict` of a million events, killed in the middle and given again.

The model is a single small layer with random weights, so that what is left is lhcq's own part: reading, writing
prompts, parts, the merge, what is kept when everything dies. How fast a real model scores says `benchmarks.gpu`.
"""

import contextlib
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq

from benchmarks.command import LOOK_SECONDS, start, watch
from benchmarks.events import N_EVENTS, cache_directory, generated_events, repeat_events
from benchmarks.rows import Row, row, say
from lhcq.model.sources import obtain
from lhcq.workspace import Workspace

N_ROWS = 1_000_000
KILLED_AFTER = 60
"""Parts, of some 250."""
SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
PREDICT = ("predict", "run", "box")
MB = 1e6


def measure() -> list[Row]:
    """The rows of the result."""
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        root = Path(scratch) / "workspace"
        prepare(root, Path(scratch))
        kept = killed(root)
        say("prediction: again")
        seconds, answer, peaks = watch(root, *PREDICT)
        assert peaks["pool"]
        check(answer)
        note = f"the {N_EVENTS:,} events again and again; {kept} parts stood from a command that was killed"
        scores = Path(answer["scores"])
        return [
            row("a million events, the command that goes on", seconds, "s", note=note),
            row("peak memory of the process that scores and merges", peaks["pool"] / MB, "MB", at_most=2000),
            row("peak memory of the command itself", peaks["command"] / MB, "MB", at_most=500),
            row("the scores on disk", scores.stat().st_size / MB, "MB"),
        ]


def prepare(root: Path, scratch: Path) -> None:
    """A run on the generated events, and a dataset of a million."""
    from benchmarks.gpu_models import SMOLLM2_135M, write_random_model

    model = scratch / "model"
    tokenizer = obtain("smollm2", Workspace(cache_directory()), say=say)
    write_random_model(SMOLLM2_135M | SMALL, model, tokenizer=tokenizer)
    watch(root, "cluster", str(generated_events()), "--name", "made", "--features", "jets")
    watch(root, "prepare", "made", "--split", "split", "--limit", "2000", "--model", str(model))
    quick = ("--max-steps", "2", "--checkpoints", "1")
    watch(root, "train", "split", "--name", "run", "--model", str(model), *quick)
    say(f"prediction: clustering {N_ROWS:,} rows")
    source = scratch / "events.h5"
    repeat_events(generated_events(), source, N_ROWS)
    watch(root, "cluster", str(source), "--name", "box", "--features", "jets")
    source.unlink()


def killed(root: Path) -> int:
    """Kill the command and all that it started, once some parts stand; how many do."""
    say("prediction: a first time, to be killed")
    parts = root / "jobs/predict-run-box/parts"
    with start(root, *PREDICT) as command:
        while len(list(parts.rglob("[0-9]*.arrows"))) < KILLED_AFTER:
            assert command.poll() is None
            time.sleep(LOOK_SECONDS)
        family = [*psutil.Process(command.pid).children(recursive=True), psutil.Process(command.pid)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(family)
    return len(list(parts.rglob("[0-9]*.arrows")))


def check(answer: dict[str, Any]) -> None:
    """Each event is there once, and each copy of an event has the same score."""
    table = pq.read_table(answer["scores"])
    assert answer["n_events"] == table.num_rows == N_ROWS
    assert (table["row"].to_numpy() == np.arange(N_ROWS)).all()
    assert (np.sort(table["rank"].to_numpy()) == np.arange(1, N_ROWS + 1)).all()
    p_signal = table["p_signal"].to_numpy()
    apart = np.abs(p_signal[N_EVENTS:] - p_signal[:-N_EVENTS]).max()
    assert apart < 1e-4, apart
