"""What threads that spin while they wait cost a training on a CPU, and what they gain: by the time that they spin.

Alone, and with as many busy processes beside it as there are cores, as on a machine that others use as well. Each
training is a process of its own, since the policy is read when the library of threads is loaded; the policies
take turns, and each gives a ratio to the default of its round.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time

from benchmarks.events import cache_directory
from benchmarks.exporting import run_briefly
from benchmarks.machine import machine
from benchmarks.rows import Row, row, say
from lhcq.environment import SPINS
from lhcq.records.jobs import list_jobs
from lhcq.records.specs import TrainSpec
from lhcq.workspace import Workspace

N_STEPS = 4
ROUNDS = 3
POLICIES: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "workers'": {"GOMP_SPINCOUNT": SPINS},
}


def measure() -> list[Row]:
    """The rows of the result."""
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        root = Path(scratch) / "workspace"
        say("waiting: a run of a few steps")
        run_briefly(root)
        return [found for n_busy in (0, machine()["cores"]) for found in _beside(root, n_busy)]


def _beside(root: Path, n_busy: int) -> list[Row]:
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in POLICIES}
    with _busy(n_busy):
        for turn in range(ROUNDS):
            for name in list(POLICIES)[:: 1 if turn % 2 else -1]:
                say(f"waiting: {name}, beside {n_busy} busy processes, round {turn + 1} of {ROUNDS}")
                spent[name].append(_one(root, POLICIES[name]))
    where = f"beside {n_busy} busy processes" if n_busy else "alone"
    rows = []
    for what, unit in (("processor time", "s"), ("time", "s")):
        of = {name: [one[what] for one in every] for name, every in spent.items()}
        rows += [row(f"{N_STEPS} steps {where}, {name}: {what}", values, unit) for name, values in of.items()]
        for name, values in of.items():
            if name != "default":
                ratios = [one / default for default, one in zip(of["default"], values, strict=True)]
                rows.append(row(f"{N_STEPS} steps {where}: {what}, {name} over default", ratios, ""))
    return rows


def _one(root: Path, policy: dict[str, str]) -> dict[str, float]:
    theirs = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    environment = {name: value for name, value in os.environ.items() if name not in theirs} | policy
    command = [sys.executable, "-m", "benchmarks.waiting", str(root)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


@contextlib.contextmanager
def _busy(n: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def train(root: Path) -> dict[str, float]:
    """Seconds that steps of the only run of a workspace take here, the first one, which warms up, left out."""
    from lhcq.model.loop import train_segment
    from lhcq.model.model_cache import base_of
    from lhcq.records.subsets import read_subset

    workspace = Workspace(root)
    (job,) = (one for one in list_jobs(workspace) if one.kind == "train")
    spec = job.spec_of(TrainSpec)
    subset = read_subset(workspace.split(spec.split), "train", ["prompt", "label"])
    ends: list[tuple[float, float]] = []

    def note(_: object) -> bool:
        ends.append((process_time(), perf_counter()))
        return True

    train_segment(
        base_of(workspace, spec),
        prompts=subset["prompt"].to_pylist(),
        labels=subset["label"].to_numpy(),
        config=spec.config.model_copy(update={"max_steps": N_STEPS + 1, "epochs": 1000.0}),
        checkpoint=None,
        until_step=N_STEPS + 1,
        on_step=note,
    )
    steps = [(after[0] - before[0], after[1] - before[1]) for before, after in itertools.pairwise(ends)]
    return {"processor time": sum(one for one, _ in steps), "time": sum(one for _, one in steps)}


if __name__ == "__main__":
    print(json.dumps(train(Path(sys.argv[1]))))
