"""What the queue costs a part: lhcq's no-op, committed to disk, beside plain Celery's group of the same no-op.

    python -m benchmarks.overhead

One worker with two processes a side, in turn on the same broker, in rounds; once on tmpfs and once on the disk of the
temporary directory. `alone` is from publishing one unit to seeing its file, one at a time, where nothing else is
to be done; `many` is from publishing the job to its last effect, with the CPU time of all processes: broker,
workers and who publishes. `flushed` empties the broker in the middle of a job, and has one undisturbed beside each.
What the figures are held to stands in `BOUNDS`. The lowest decile is what a part takes where no core is kept from it.
What one of the three measures takes the place of what stands in the result for it; the table goes into
docs/reliability.md.
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
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.rows import put_table
from benchmarks.storm import Plain
from tasks.jobs.turns import job_key
from tests.faults.noop import noop_file
from tests.faults.rig import Rig, running_rig, wait_until

RESULT = Path(__file__).parent / "results" / "overhead.json"
DOCUMENT = Path(__file__).parents[1] / "docs" / "reliability.md"
MADE_BY = "python -m benchmarks.overhead"
PROCESSES = 2
POLL_SECONDS = 0.0005
BOUNDS = {
    "tmpfs": {"cpu_over_plain": 2.2, "alone_over_plain_and_fsync_ms": 3.0},
    "disk": {"cpu_over_plain": 4.0, "alone_over_plain_and_fsync_ms": 3.0},
    "flushed": {"executions_over_parts": 4100 / 4000, "seconds_over_undisturbed": 1.2},
}
"""At most: CPU of all processes a part, over plain Celery's; a part alone; what a flushed broker may cost."""


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
        "p10_ms": round(ordered[int(0.1 * len(ordered))], 2),
        "median_ms": round(statistics.median(ordered), 2),
        "p95_ms": round(ordered[int(0.95 * len(ordered))], 2),
    }


def lhcq_alone(rig: Rig, n: int, name: str) -> list[float]:
    """Milliseconds from publish to commit of the one part of `n` jobs, each begun when the one before has ended.

    Of a job that nobody published the reconciler would publish all parts, and none were alone.
    """
    events = rig.directory / "alone.h5"
    if not events.exists():
        noop_file(events, 1)
    return list(json.loads(rig.python(ALONE.format(events=str(events), name=name, n=n))))


ALONE = """
import json, time
from pathlib import Path
from benchmarks.overhead import await_file
from lhcq.config import CLUSTER_PRESETS
from lhcq.events.layout import open_event_file
from lhcq.records.jobs import outcome_of
from lhcq.requests.cluster import cluster_request
from tasks.app import own_workspace
from tasks.engine.publish import publish_unit
from tasks.jobs.kinds import chunk_path, chunk_unit, merge_unit
from tasks.jobs.store import create_job
place, file = own_workspace(), open_event_file(Path({events!r}))
request = cluster_request(place, file, {name!r}, CLUSTER_PRESETS["lhco"], chunk=1)
took = []
for number in range({n} + 3):
    job = create_job(place, request.model_copy(update=dict(name={name!r} + f"-{{number}}")))
    present = chunk_path(place, job, 0).exists
    started = time.perf_counter()
    publish_unit(chunk_unit(job, 0))
    await_file(present)
    took.append(1000 * (time.perf_counter() - started))
    publish_unit(merge_unit(job))
    await_file(lambda: outcome_of(place, job) is not None)
print(json.dumps(took[3:]))  # the first ones import
"""


def plain_alone(plain: Plain, n: int) -> list[float]:
    code = f"""
import json
from pathlib import Path
from benchmarks.overhead import times
from benchmarks.plain import noop
done = Path({str(plain.done)!r})
def act(index):
    size = done.stat().st_size
    noop.delay(index)
    return lambda: done.stat().st_size > size
print(json.dumps(times({n} + 3, act)[3:]))
"""
    environment = plain.environment
    return list(json.loads(subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)))


def sync_ms(directory: Path, n: int = 200) -> float:
    """Median milliseconds of the one fsync that a part cannot do without."""
    path = directory / "synced"
    values = []
    for number in range(n):
        path.write_bytes(b"%d\n" % number)
        descriptor = os.open(path, os.O_RDONLY)
        started = time.perf_counter()
        os.fsync(descriptor)
        values.append(1000 * (time.perf_counter() - started))
        os.close(descriptor)
        path.unlink()
    return round(statistics.median(values), 2)


def cpu_seconds(*groups: int) -> float:
    """CPU time so far of all processes in these groups, with that of their children that ended."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) in groups:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def children_seconds() -> float:
    usage = os.times()
    return usage.children_user + usage.children_system


class Account:
    """CPU time of the broker, one worker and this program's children that have ended."""

    def __init__(self, rig: Rig, worker: int) -> None:
        self._groups = (rig.broker._process.pid, worker)
        self._began = self._now()

    def spent(self) -> float:
        return self._now() - self._began

    def _now(self) -> float:
        return cpu_seconds(*self._groups) + children_seconds()


def lhcq_many(rig: Rig, worker: int, n: int, name: str) -> dict[str, float]:
    events = rig.directory / f"many-{n}.h5"
    if not events.exists():
        noop_file(events, n)
    account = Account(rig, worker)
    # What publishes is warm by then: starting Python and hashing the file are no cost of a part.
    published = json.loads(rig.python(PUBLISH.format(events=str(events), name=name)))
    outcome = rig.await_end(rig.job("cluster", name), 1200)
    spent = account.spent() - published["before_cpu"]
    return figures(n, published["started"], published["ended"], outcome.finished, spent)


PUBLISH = """
import json, os, time
from pathlib import Path
from lhcq.config import CLUSTER_PRESETS
from lhcq.events.layout import open_event_file
from lhcq.requests.cluster import cluster_request
from tasks.app import own_workspace
from tasks.engine.publish import publish_job
from tasks.jobs.store import create_job
import tasks.stages.cluster
file = open_event_file(Path({events!r}))
request = cluster_request(own_workspace(), file, {name!r}, CLUSTER_PRESETS["lhco"], chunk=1)
before, started = time.process_time(), time.time()
publish_job(own_workspace(), create_job(own_workspace(), request))
print(json.dumps(dict(before_cpu=before, started=started, ended=time.time())))
"""


def plain_many(rig: Rig, plain: Plain, worker: int, n: int) -> dict[str, float]:
    before = len(plain.done.read_bytes().splitlines())
    account = Account(rig, worker)
    code = "import json, time\nfrom celery import group\nfrom benchmarks.plain import noop\n"
    code += "before, started = time.process_time(), time.time()\n"
    code += f"group(noop.s(index) for index in range({n}))()\n"
    code += "print(json.dumps(dict(before_cpu=before, started=started, ended=time.time())))"
    said = subprocess.check_output([sys.executable, "-c", code], env=plain.environment, text=True)
    published = json.loads(said)
    wait_until(lambda: len(plain.done.read_bytes().splitlines()) >= before + n, "the group", 1200)
    end = time.time()
    spent = account.spent() - published["before_cpu"]
    return figures(n, published["started"], published["ended"], end, spent)


def figures(n: int, started: float, published: float, end: float, cpu: float) -> dict[str, float]:
    return {
        "publishing_seconds": round(published - started, 3),
        "seconds_to_end": round(end - started, 2),
        "parts_per_second": round(n / (end - started), 1),
        "cpu_ms_per_part": round(1000 * cpu / n, 3),
    }


def measure(directory: Path, *, parts: int, alone: int, rounds: int) -> dict[str, Any]:
    """Both sides in turn, on the filesystem of `directory`."""
    with running_rig(directory / "rig", noop=True) as rig:
        ours = rig.start_worker(processes=PROCESSES, include="benchmarks.noop_worker")
        rig.await_ready()
        plain = Plain(rig, seconds=0.0)
        theirs = plain.start_worker("overhead")
        try:
            plain_alone(plain, 0)  # it is up
            one: dict[str, list[float]] = {"lhcq": [], "plain": []}
            for number in range(rounds):
                one["lhcq"] += lhcq_alone(rig, alone // rounds, f"alone-{number}")
                one["plain"] += plain_alone(plain, alone // rounds)
            lhcq_many(rig, ours.process.pid, parts // 10, "warm")
            many: dict[str, list[dict[str, float]]] = {"lhcq": [], "plain": []}
            for number in range(rounds):
                many["lhcq"].append(lhcq_many(rig, ours.process.pid, parts, f"many-{number}"))
                many["plain"].append(plain_many(rig, plain, theirs.process.pid, parts))
        finally:
            theirs.kill()
    fsync = sync_ms(directory)
    medians = {side: _medians(rows) for side, rows in many.items()}
    each = {side: summary(values) for side, values in one.items()}
    over = each["lhcq"]["median_ms"] - each["plain"]["median_ms"]
    return {
        "alone": each,
        "alone_over_plain_ms": round(over, 2),
        "alone_over_plain_and_fsync_ms": round(over - fsync, 2),
        "fsync_ms": fsync,
        "many": medians,
        "cpu_over_plain": round(
            statistics.median(
                a["cpu_ms_per_part"] / b["cpu_ms_per_part"]
                for a, b in zip(many["lhcq"], many["plain"], strict=True)
            ),
            2,
        ),
    }


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {field: round(statistics.median(row[field] for row in rows), 3) for field in rows[0]}


def flushed(directory: Path, *, parts: int, rounds: int) -> dict[str, Any]:
    """Jobs undisturbed, and in turn with them those whose broker is emptied in the middle; of two workers."""
    found = []
    with running_rig(directory / "rig", noop=True) as rig:
        workers = [rig.start_worker(processes=PROCESSES) for _ in range(2)]
        rig.await_ready(*workers)
        lhcq_many(rig, workers[0].process.pid, parts // 10, "warm")
        for number in range(rounds):
            calm = lhcq_many(rig, workers[0].process.pid, parts, f"calm-{number}")["seconds_to_end"]
            found.append({"seconds_undisturbed": calm, **flushed_once(rig, parts, f"flushed-{number}")})
    ratios = [one["seconds"] / one["seconds_undisturbed"] for one in found]
    return {
        "parts": parts,
        "rounds": found,
        "executions_over_parts": max(one["executions"] for one in found) / parts,
        "each_over_undisturbed": [round(ratio, 3) for ratio in ratios],
        "seconds_over_undisturbed": round(statistics.median(ratios), 3),
    }


def flushed_once(rig: Rig, parts: int, name: str) -> dict[str, Any]:
    """Seconds of a job whose broker is emptied at its half, how many of its chunks were begun, and how long none was.

    What is done is asked of the broker: listing the chunks every 20 ms would slow down what is measured.
    """
    rig.python(PUBLISH.format(events=str(rig.directory / f"many-{parts}.h5"), name=name))
    job = rig.job("cluster", name)
    with rig.broker.client() as client:
        turn = f"lhcq:turn:{job_key(job)}"
        wait_until(lambda: int(client.hget(turn, "done") or 0) >= parts // 2, "half of the parts", 600)
        client.flushall()
    outcome = rig.await_end(job, 1200)
    begun = sorted(entry["time"] for entry in rig.entries("work") if entry["what"].split(":")[1] == name)
    return {
        "executions": len(begun),
        "idle_seconds": round(max(later - earlier for earlier, later in pairwise(begun)), 2),
        "seconds": round(outcome.finished - job.created, 2),
    }


def lines_of(result: dict[str, Any]) -> list[str]:
    """The table of docs/reliability.md."""
    lines = ["| | lhcq | plain Celery | ratio |", "|---|---|---|---|"]
    places = (("tmpfs", "in memory (tmpfs)"), ("disk", "on a disk"))
    for where, said in places:
        ours, theirs = (result[where]["many"][side] for side in ("lhcq", "plain"))
        cpu = (f"{side['cpu_ms_per_part']:.1f} ms" for side in (ours, theirs))
        lines.append(f"| CPU time a chunk, {said} | {' | '.join(cpu)} | {result[where]['cpu_over_plain']} |")
    for where, said in places:
        alone = (f"{result[where]['alone'][side]['median_ms']:.1f} ms" for side in ("lhcq", "plain"))
        lines.append(f"| a chunk alone, {said}, median | {' | '.join(alone)} | |")
    ours, theirs = (result["disk"]["many"][side] for side in ("lhcq", "plain"))
    chunks, flushed = f"{result['parts']:,} chunks", result["flushed"]
    taken = [side["seconds_to_end"] for side in (ours, theirs)]
    return [
        *lines,
        f"| {chunks}, published | "
        + " | ".join(f"in {side['publishing_seconds']:.2g} s" for side in (ours, theirs))
        + " | |",
        f"| {chunks}, done, on a disk | in {taken[0]:.1f} s | in {taken[1]:.1f} s | {taken[0] / taken[1]:.1f} |",
        "| broker emptied in the middle of them, two workers: time over that of a job undisturbed, each time | "
        + ", ".join(f"{ratio:.2f}" for ratio in flushed["each_over_undisturbed"])
        + " | | |",
        f"| executions then, at most | {max(one['executions'] for one in flushed['rounds']):,} | | |",
        "| longest time without a chunk begun then | "
        + ", ".join(f"{one['idle_seconds']:.1f}" for one in flushed["rounds"])
        + " s | | |",
    ]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--parts", type=int, default=4_000)
    words.add_argument("--alone", type=int, default=300)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--only", choices=["tmpfs", "disk", "flushed"], help="One of the three.")
    words.add_argument("--out", type=Path, default=RESULT)
    given = words.parse_args()
    os.environ.setdefault("LHCQ_NOOP_SECONDS", "0")
    result: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    result |= {"parts": given.parts, "processes": PROCESSES, "rounds": given.rounds}
    for where, root in (("tmpfs", "/dev/shm"), ("disk", None), ("flushed", None)):  # noqa: S108
        if given.only in (None, where):
            with tempfile.TemporaryDirectory(dir=root, ignore_cleanup_errors=True) as directory:
                place = Path(directory)
                if where == "flushed":
                    result[where] = flushed(place, parts=given.parts, rounds=given.rounds)
                else:
                    result[where] = measure(place, parts=given.parts, alone=given.alone, rounds=given.rounds)
    result["holds"] = {
        f"{where}.{figure}": result[where][figure] <= bound
        for where, bounds in BOUNDS.items()
        if where in result
        for figure, bound in bounds.items()
    }
    given.out.write_text(json.dumps({**result, "machine": machine()}, indent=1, sort_keys=True) + "\n")
    if given.out == RESULT:
        put_table("overhead", lines_of(result), MADE_BY, DOCUMENT)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
