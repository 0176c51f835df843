"""What the queue costs a part: lhcq's no-op, committed to disk, beside plain Celery's group of the same no-op.

    python -m benchmarks.overhead

One worker with two processes a side, one after the other on the same broker. `alone` is from publishing one unit to
seeing its file, one at a time; `many` is from publishing the job to its last effect.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.storm import Plain
from tests.faults.noop import noop_file
from tests.faults.rig import Rig, running_rig, wait_until

RESULT = Path(__file__).parent / "results" / "overhead.json"
PROCESSES = 2
POLL_SECONDS = 0.0005


def await_file(present: Callable[[], bool]) -> None:
    while not present():
        time.sleep(POLL_SECONDS)


def times(n: int, act: Callable[[int], Callable[[], bool]]) -> list[float]:
    """Milliseconds from an act to its effect, one after the other."""
    seconds = []
    for number in range(n):
        started = time.perf_counter()
        await_file(act(number))
        seconds.append(1000 * (time.perf_counter() - started))
    return seconds


def summary(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median_ms": round(statistics.median(ordered), 2),
        "p95_ms": round(ordered[int(0.95 * len(ordered))], 2),
    }


def lhcq_alone(rig: Rig, n: int) -> dict[str, float]:
    """Publish to commit of single parts, from a process that has published before."""
    events = noop_file(rig.directory / "alone.h5", n)
    code = f"""
import json
from pathlib import Path
from benchmarks.overhead import summary, times
from lhcq.config import CLUSTER_PRESETS
from lhcq.events.layout import open_event_file
from lhcq.requests.cluster import cluster_request
from tasks.app import own_workspace
from tasks.engine.publish import publish_unit
from tasks.jobs.kinds import chunk_path, chunk_unit
from tasks.jobs.store import create_job
file = open_event_file(Path({str(events)!r}))
request = cluster_request(own_workspace(), file, "alone", CLUSTER_PRESETS["lhco"], chunk=1)
job = create_job(own_workspace(), request)
def act(index):
    publish_unit(chunk_unit(job, index))
    return chunk_path(own_workspace(), job, index).exists
print(json.dumps(summary(times(job.parts - 1, act))))
"""
    return dict(json.loads(rig.python(code)))


def plain_alone(plain: Plain, n: int) -> dict[str, float]:
    code = f"""
import json
from pathlib import Path
from benchmarks.overhead import summary, times
from benchmarks.plain import noop
done = Path({str(plain.done)!r})
def act(index):
    size = done.stat().st_size
    noop.delay(index)
    return lambda: done.stat().st_size > size
print(json.dumps(summary(times({n}, act))))
"""
    environment = plain.environment
    return dict(json.loads(subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)))


def lhcq_many(rig: Rig, n: int) -> dict[str, float]:
    events = noop_file(rig.directory / "many.h5", n)
    words = ("cluster", events, "--name", "many", "--events-per-chunk", "1", "--detach")
    process = rig.command(*words)
    wait_until((rig.place.job("cluster", "many") / "job.json").exists, "the job")
    started = time.time()
    process.communicate()
    published = time.time()
    job = rig.job("cluster", "many")
    outcome = rig.await_end(job, 400)
    commits = [entry["time"] for entry in rig.entries("commit") if "/cluster-many/parts/" in entry["what"]]
    return figures(n, started, published, max(commits), end=outcome.finished)


def plain_many(plain: Plain, n: int) -> dict[str, float]:
    before = len(plain.done.read_bytes().splitlines())
    started = time.time()
    plain.publish(n)
    published = time.time()
    wait_until(lambda: len(plain.done.read_bytes().splitlines()) >= before + n, "the group", 400)
    return figures(n, started, published, time.time(), end=time.time())


def figures(n: int, started: float, published: float, last: float, *, end: float) -> dict[str, float]:
    return {
        "publishing_seconds": round(published - started, 2),
        "seconds_to_last_part": round(last - started, 2),
        "seconds_to_end": round(end - started, 2),
        "parts_per_second": round(n / (last - started), 1),
        "ms_per_part": round(1000 * (last - started) / n, 2),
    }


def measure(directory: Path, *, parts: int, alone: int) -> dict[str, Any]:
    with running_rig(directory / "rig", noop=True) as rig:
        worker = rig.start_worker(processes=PROCESSES)
        rig.await_ready()
        lhcq = {"alone": lhcq_alone(rig, alone + 1), "many": lhcq_many(rig, parts)}
        worker.kill()
        plain = Plain(rig, seconds=0.0)
        other = plain.start_worker("overhead")
        try:
            plain_alone(plain, 3)  # it is up
            figures = {"alone": plain_alone(plain, alone), "many": plain_many(plain, parts)}
        finally:
            other.kill()
    return {"parts": parts, "processes": PROCESSES, "lhcq": lhcq, "plain": figures}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--parts", type=int, default=10_000)
    words.add_argument("--alone", type=int, default=300)
    words.add_argument("--out", type=Path, default=RESULT)
    given = words.parse_args()
    os.environ.setdefault("LHCQ_NOOP_SECONDS", "0")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        result = measure(Path(directory), parts=given.parts, alone=given.alone)
    given.out.write_text(json.dumps({"machine": machine(), **result}, indent=1, sort_keys=True) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
