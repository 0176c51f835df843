"""Where the CPU time of a chunk task goes, a step at a time."""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks import clustering as task
from benchmarks.events import N_EVENTS, cache_directory, generated_events
from benchmarks.rows import Row, row, say
from lhcq.config import ClusterConfig
from lhcq.events import soundness
from lhcq.jets import clustering
from lhcq.jets.vectors import FourVectors
from lhcq.records import chunks

ROUNDS = 5
STEPS = ("reading", "checking", "momenta", "jets", "substructure", "table", "writing")
# The functions whose calls are the steps; reading is what `read_blocks` does besides checking.
PLACES: tuple[tuple[str, Any, str], ...] = (
    ("checking", soundness, "count_particles"),
    ("momenta", FourVectors, "massless"),
    ("jets", clustering, "find_jets"),
    ("substructure", clustering, "_measure_leading"),
    ("table", clustering, "_build_table"),
    ("writing", chunks, "append_message"),
)


def measure() -> list[Row]:
    """The rows of the result."""
    source = generated_events()
    clustering.compile_kernels()
    rows = []
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        for config in (task.JETS, task.FULL):
            say(f"profile: {config.features}")
            rounds = [
                profile(source, Path(scratch) / f"{config.features}-{number}.arrows", config)
                for number in range(ROUNDS)
            ]
            rows += [
                row(f"{config.features}: {step}", [1e6 * one[step] / N_EVENTS for one in rounds], "us/event")
                for step in (*STEPS, "the rest", "all")
                if step in rounds[0]
            ]
    return rows


def profile(source: Path, out: Path, config: ClusterConfig) -> dict[str, float]:
    """The seconds of each step of one task."""
    spent: dict[str, float] = defaultdict(float)
    with ExitStack() as stack:
        for step, owner, name in PLACES:
            timed = staticmethod(_timed(spent, step, getattr(owner, name)))
            stack.enter_context(patch.object(owner, name, timed if owner is FourVectors else timed.__func__))
        stack.enter_context(patch.object(task, "read_blocks", _timed_blocks(spent, task.read_blocks)))
        spent["all"] = task.seconds(task.chunk_task, source, out, config)
    spent["reading"] -= spent["checking"]
    spent["the rest"] = spent["all"] - sum(spent[step] for step in STEPS if step in spent)
    return dict(spent)


def _timed(spent: dict[str, float], step: str, work: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.process_time()
        result = work(*arguments, **options)
        spent[step] += time.process_time() - began
        return result

    return timed


def _timed_blocks(spent: dict[str, float], work: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        blocks = work(*arguments, **options)
        while True:
            began = time.process_time()
            block = next(blocks, None)
            spent["reading"] += time.process_time() - began
            if block is None:
                return
            yield block

    return timed
