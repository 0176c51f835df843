"""The loops alone, in memory, by CPU time of one thread: against C++ FastJet and against the loops before them.

The loops before are those of the commit `BEFORE`, one event at a time, read from the repository's history. Each level
of the CPU's vectors is a process of its own: `python -m benchmarks.kernels` prints what it measures as JSON.
Compiling is what a process on a new machine waits for: `compile_kernels` as it stands now and as it stood then, by
turns, each in a fresh process that has an empty cache.
"""

import importlib.util
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import reference
from benchmarks.events import cache_directory, generated_events, thin_events
from benchmarks.rows import Row, row, say
from lhcq.config import ClusterConfig
from lhcq.jets.clustering import Jets, cluster_four_vectors
from lhcq.jets.vectors import FourVectors

BEFORE = "6a10400"
ROUNDS = 25
STEP = 9  # of the storage chunks
PT_MIN = 20.0  # GeV
POWERS = {"antikt": -2, "kt": 2, "cambridge": 0}
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 700)
COMPILED = 5  # times, by turns with the loops before
MOST_COMPILING = 2.0  # times the CPU time of the loops before
# What other packages registered with numba is loaded beforehand: then it was, now it is not, and it is no compiling.
_COMPILE = """
import time
import lhcq.jets.clustering
from numba.core import entrypoints
entrypoints.init_all()
began = time.process_time()
lhcq.jets.clustering.compile_kernels()
print(time.process_time() - began, lhcq.__file__)
"""
# At least: rate over C++ FastJet; over the loops before by anti-kt, kt, Cambridge/Aachen; of substructure.
BOUNDS = {"AVX-512": (7.3, 3.1, 2.0, 1.8, 2.8), "AVX2": (5.7, 2.6, 1.7, 1.5, 2.3)}


def measure() -> list[Row]:
    """The rows of each level that this CPU has, of a tenth of the generated events, spread over the file."""
    rows = []
    with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        source = Path(scratch) / "events.h5"
        thin_events(generated_events(), source, STEP)
        for level, environment in levels().items():
            say(f"kernels: {level}")
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.kernels", str(source)],
                env={**os.environ, **environment, "NUMBA_CACHE_DIR": f"{scratch}/{level}"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            rows += rows_of(level, json.loads(done.stdout))
            rows += rows_of_compiling(level, environment, Path(scratch))
    return rows


def levels() -> dict[str, dict[str, str]]:
    """The levels of vectors that this CPU has, and what makes numba use no more."""
    import llvmlite.binding

    features = llvmlite.binding.get_host_cpu_features()
    narrow = ",".join(("-" if "avx512" in name or not has else "+") + name for name, has in features.items())
    found = {"AVX-512": {}} if features.get("avx512f") else {}
    if features.get("avx2"):
        found["AVX2"] = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": narrow}
    return found


def rows_of(level: str, rounds: dict[str, list[float]]) -> list[Row]:
    """Microseconds an event and ratios, of the rounds of one process."""
    fastjet, antikt, kt, cambridge, substructure = BOUNDS[level]
    ratios = {
        "antikt": ("jets: rate over plain C++ FastJet", rounds["fastjet"], fastjet),
        "antikt, before": (f"jets: rate over {BEFORE}", rounds.get("antikt, before"), antikt),
        "kt, before": (f"kt: rate over {BEFORE}", rounds.get("kt, before"), kt),
        "cambridge, before": (
            f"Cambridge/Aachen: rate over {BEFORE}",
            rounds.get("cambridge, before"),
            cambridge,
        ),
        "substructure, before": (
            f"substructure: rate over {BEFORE}",
            rounds.get("substructure, before"),
            substructure,
        ),
    }
    rows = [
        row(f"{level}, {name}", values, "us/event") for name, values in rounds.items() if "N = " not in name
    ]
    for name, (figure, others, bound) in ratios.items():
        if others:
            ours = rounds[name.removesuffix(", before")]
            values = [other / one for one, other in zip(ours, others, strict=True)]
            rows.append(row(f"{level}, {figure}", values, "times", at_least=bound))
    by_size = {
        name: statistics.median(before) / statistics.median(rounds[name.removesuffix(", before")])
        for name, before in rounds.items()
        if "N = " in name and name.endswith(", before")
    }
    if by_size:
        least = min(by_size.values())
        rows.append(
            row(f"{level}, any N: least rate over {BEFORE}", least, "times", at_least=1.0, by_size=by_size)
        )
    return rows


def rows_of_compiling(level: str, environment: dict[str, str], scratch: Path) -> list[Row]:
    """CPU seconds of compiling, and over those of the loops before where the history is at hand."""
    roots, seconds = {"compiling": Path(__file__).parent.parent}, dict[str, list[float]]()
    if packed := history("archive", "--format=tar", BEFORE, "lhcq"):
        roots["compiling, before"] = scratch / "before"
        with tarfile.open(fileobj=io.BytesIO(packed)) as files:
            files.extractall(roots["compiling, before"], filter="data")
    for number in range(COMPILED):
        for name, root in roots.items():
            say(f"kernels: {level}, {name}, {number + 1} of {COMPILED}")
            seconds.setdefault(name, []).append(seconds_of_compiling(root, environment))
    rows = [row(f"{level}, {name}", values, "s") for name, values in seconds.items()]
    if then := seconds.get("compiling, before"):
        times = [one / other for one, other in zip(seconds["compiling"], then, strict=True)]
        figure = f"{level}, compiling: CPU time over {BEFORE}"
        rows.append(row(figure, times, "times", at_most=MOST_COMPILING))
    return rows


def seconds_of_compiling(root: Path, environment: dict[str, str]) -> float:
    """CPU time of `compile_kernels` of the package in a directory, in a fresh process without a cache."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-c", _COMPILE],
            cwd=root,  # where a program that is given in words looks first
            env={**os.environ, **environment, "NUMBA_CACHE_DIR": cache},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    seconds, imported = done.stdout.split()[-2:]
    assert Path(imported).is_relative_to(root), imported
    return float(seconds)


def main() -> None:
    from benchmarks.clustering import momenta_of

    vectors, program, before = momenta_of(Path(sys.argv[1])), reference.build("plain"), loops_before()
    n_events = len(vectors.counts)
    work: dict[str, Callable[[], object]] = {}
    for algorithm, power in POWERS.items():
        work[algorithm] = lambda algorithm=algorithm: cluster_four_vectors(vectors, config_of(algorithm))
        if before:
            work[f"{algorithm}, before"] = lambda power=power: jets_before(before, vectors, power)
    jets = cluster_four_vectors(vectors, config_of("antikt"))
    leading, pt = np.flatnonzero(jets.rank < 2), jets.vectors.pt
    work["substructure"] = lambda: measure_ours(jets, vectors, leading, pt)
    if before:
        work["substructure, before"] = lambda: measure_before(before, jets, vectors, leading, pt)
    rounds = time_all(work, n_events, {"fastjet": lambda: reference.run(program, vectors)[0]})
    if before:
        for n in SIZES:
            some = made_up(n)
            for algorithm, power in POWERS.items():
                name = f"{algorithm}, N = {n}"
                sized: dict[str, Callable[[], object]] = {
                    name: lambda some=some, algorithm=algorithm: cluster_four_vectors(
                        some, config_of(algorithm)
                    ),
                    f"{name}, before": lambda some=some, power=power: jets_before(before, some, power),
                }
                rounds.update(time_all(sized, len(some.counts)))
    print(json.dumps(rounds))


def time_all(
    work: dict[str, Callable[[], object]], n_events: int, others: dict[str, Callable[[], float]] | None = None
) -> dict[str, list[float]]:
    """Microseconds of CPU an event, one after the other in each round; the first round warms up.

    `others` are programs, and say themselves how many seconds they took.
    """
    others = others or {}
    rounds: dict[str, list[float]] = {name: [] for name in (*work, *others)}
    for number in range(ROUNDS + 1):
        for name, call in work.items():
            began = time.thread_time()
            call()
            if number:
                rounds[name].append(1e6 * (time.thread_time() - began) / n_events)
        for name, ask in others.items():
            took = ask()
            if number:
                rounds[name].append(1e6 * took / n_events)
    return rounds


def config_of(algorithm: Any) -> ClusterConfig:
    return ClusterConfig(algorithm=algorithm, radius=1.0, pt_min=PT_MIN, features="jets")


def made_up(n: int) -> FourVectors:
    """Events of `n` particles around two directions, always the same."""
    n_events, rng = max(16, 16 * (2048 // (n * 16))), np.random.default_rng(n)
    shape = (n_events, n)
    eta = rng.normal(0.0, 0.7, shape)
    phi = np.pi * rng.integers(0, 2, shape) + rng.normal(0.0, 0.7, shape)
    return FourVectors.massless(np.stack([rng.exponential(20.0, shape) + 0.1, eta, phi], axis=2))


def loops_before() -> Any:
    """The module of the loops before; None where the history is not at hand."""
    found = history("show", f"{BEFORE}:lhcq/jets/kernels.py")
    if found is None:
        return None
    place = Path(tempfile.mkdtemp(prefix="lhcq-")) / "kernels_before.py"
    place.write_bytes(found)
    specification = importlib.util.spec_from_file_location("kernels_before", place)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules["kernels_before"] = module
    specification.loader.exec_module(module)
    return module


def history(*words: str) -> bytes | None:
    """What git says in this checkout; None where there is no history."""
    found = subprocess.run(
        ["git", *words], cwd=Path(__file__).parent.parent, capture_output=True, check=False
    )
    return None if found.returncode else found.stdout


def jets_before(
    before: Any, vectors: FourVectors, power: int, *, radius: float = 1.0, pt_min: float = PT_MIN
) -> tuple[Any, ...]:
    """Numbers of jets, momenta, starts, members and the pt of the hardest ones, as `find_jets` wrote them then."""
    n, n_events = len(vectors.px), len(vectors.counts)
    made = (
        np.zeros(n_events, np.int64),
        np.empty((4, n)),
        np.empty(n + 1, np.int64),
        np.empty(n, np.int64),
        np.empty(n),
    )
    before.find_jets(
        *(vectors.px, vectors.py, vectors.pz, vectors.e, vectors.offsets, power, radius, pt_min), *made
    )
    return made


def measure_before(before: Any, jets: Jets, vectors: FourVectors, leading: Any, pt: Any) -> None:
    out = np.empty((len(leading), 11))
    momenta = (vectors.px, vectors.py, vectors.pz, vectors.e)
    before.measure_jets(*momenta, jets.starts, jets.members, leading, pt[leading], 0.1, out)


def measure_ours(jets: Jets, vectors: FourVectors, leading: Any, pt: Any) -> None:
    from lhcq.jets.substructure import measure_substructure

    measure_substructure(
        vectors, jets.starts, jets.members, leading, pt[leading], "kt"
    )  # as the loops before


if __name__ == "__main__":
    main()
