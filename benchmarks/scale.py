"""How the queue's costs grow with the parts of a job, and with the finished jobs of a workspace.

    python -m benchmarks.scale

`part` is the CPU time of the real task of one part of clustering, of one event, in jobs that have 1,000, 50,000 and a
million of them. `publishing` is `lhcq cluster --detach` of 50,000 parts, with its peak memory. `merge` is of real
parts. `scan` is one of the reconciler. `million` is no measurement: what these constants, and the parts a second of
`benchmarks.overhead`, amount to.

    python -m benchmarks.scale --only noops

`noops` is a job of 100,000 parts that do nothing but commit a line, by real workers: minutes to an hour. What one
stage measures takes the place of what stands in the result for it; the table goes into docs/reliability.md.
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

import numpy as np

from benchmarks.machine import machine
from benchmarks.overhead import DOCUMENT, Account
from benchmarks.rows import put_table
from tests.faults.noop import noop_file, serial_noop
from tests.faults.rig import Rig, running_rig
from tests.specs import job_of

RESULT = Path(__file__).parent / "results" / "scale.json"
OVERHEAD = Path(__file__).parent / "results" / "overhead.json"
MADE_BY = "python -m benchmarks.scale"
SIZES = (1_000, 50_000, 1_000_000)
ROUNDS = 5
BOUNDS = {
    "part.largest_over_smallest": 1.1,
    "publishing.seconds": 15.0,
    "publishing.peak_mb": 200.0,
    "merge.peak_mb": 300.0,
    "merge.seconds": 24.0,
    "noops.command_peak_mb": 200.0,
}


def request_of(workspace: Any, path: Path, name: str) -> Any:
    from lhcq.config import CLUSTER_PRESETS
    from lhcq.events.layout import open_event_file
    from lhcq.requests.cluster import cluster_request

    return cluster_request(workspace, open_event_file(path), name, CLUSTER_PRESETS["lhco"], chunk=1)


def parts_cpu(scratch: Path, n: int) -> dict[str, Any]:
    """Milliseconds of CPU a part, of the task as a worker's child runs it, rounds of the sizes in turn."""
    from tasks.app import app, connect, own_workspace
    from tasks.broker.embedded import embedded_broker
    from tasks.engine.publish import publish_job
    from tasks.jobs.store import create_job
    from tasks.stages.cluster import cluster_part

    place = own_workspace()
    place.create()
    spent: dict[int, list[float]] = {size: [] for size in SIZES}
    with embedded_broker(place) as url:
        connect(url)
        app.loader.import_default_modules()
        jobs, path = {}, noop_file(scratch / "few.h5", SIZES[0])
        for size in SIZES:
            request = request_of(place, path, f"of-{size}")
            spec = request.spec.model_copy(update={"n_events": size})  # of which the first are there
            jobs[size] = create_job(place, request.model_copy(update={"spec": spec, "parts": size}))
            publish_job(place, jobs[size])
        for number in range(ROUNDS + 1):
            for size in SIZES:
                began = time.process_time()
                for index in range(number * n, (number + 1) * n):
                    assert cluster_part(jobs[size].name, index) == "done"
                if number:  # the first compiles and opens
                    spent[size].append(1000 * (time.process_time() - began) / n)
    medians = {size: statistics.median(values) for size, values in spent.items()}
    return {
        "cpu_ms": {f"{size:,}": round(value, 3) for size, value in medians.items()},
        "largest_over_smallest": round(medians[SIZES[-1]] / medians[SIZES[0]], 3),
    }


WATCHED = """
import resource, subprocess, sys, time
began = time.time()
program = "import lhcq.cli.main as program; program.main()"
subprocess.run([sys.executable, "-c", program, *sys.argv[1:]], check=True, stdout=2)
print(time.time() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000)
"""
"""Runs the command, and prints its seconds and its peak memory in MB."""


def ask_for(rig: Rig, events: Path, name: str) -> tuple[float, float]:
    """Ask for a clustering of one event a part, and do not wait: the command's seconds and its peak in MB."""
    words = ("cluster", str(events), "--name", name, "--events-per-chunk", "1", "--detach")
    environment = {**os.environ, "LHCQ_WORKSPACE": str(rig.place.root), "LHCQ_BROKER_URL": rig.broker.url}
    said = subprocess.check_output([sys.executable, "-c", WATCHED, *words], env=environment, text=True)
    seconds, peak = map(float, said.split())
    return seconds, peak


def memory_of(rig: Rig) -> float:
    """What the broker holds, in MB."""
    with rig.broker.client() as client:
        return float(client.info("memory")["used_memory"]) / 1e6


def publishing(scratch: Path, n: int) -> dict[str, Any]:
    """The command that asks for `n` parts, from its start to its end."""
    with running_rig(scratch / "rig") as rig:
        seconds, peak = ask_for(rig, noop_file(scratch / "published.h5", n), "many")
        held = memory_of(rig)
    return {
        "parts": n,
        "seconds": round(seconds, 2),
        "peak_mb": round(peak, 1),
        "broker_mb": round(held, 2),
    }


def noops(scratch: Path, n: int) -> dict[str, Any]:
    """A job of `n` parts that do nothing, made by one worker with two processes; every part is in what is merged."""
    os.environ["LHCQ_NOOP_SECONDS"] = "0"
    with running_rig(scratch / "noops", noop=True) as rig:
        worker = rig.start_worker(processes=2, include="benchmarks.noop_worker")
        rig.await_ready()
        account = Account(rig, worker.process.pid)
        seconds, peak = ask_for(rig, noop_file(scratch / "noops.h5", n), "noops")
        job = rig.job("cluster", "noops")
        held, told = memory_of(rig), 0.0
        while not rig.is_over(job):
            time.sleep(1)
            held = max(held, memory_of(rig))
            if time.monotonic() - told > 60:
                print(f"{rig.finished(job):,} of {n:,} parts", file=sys.stderr, flush=True)
                told = time.monotonic()
        outcome = rig.await_end(job, 1)
        spent, took = account.spent(), outcome.finished - job.created
        merged = (rig.place.dataset("noops") / "events.parquet").read_bytes()
    return {
        "parts": n,
        "as_serial": merged == serial_noop(n),
        "seconds": round(took, 1),
        "parts_per_second": round(n / took, 1),
        "cpu_ms_per_part": round(1000 * spent / n, 3),
        "command_seconds": round(seconds, 2),
        "command_peak_mb": round(peak, 1),
        "broker_peak_mb": round(held, 2),
    }


def write_parts(directory: Path, n: int, features: Any) -> None:
    """Real parts of one event each."""
    import pyarrow as pa

    from lhcq.config import CLUSTER_PRESETS
    from lhcq.events.contents import hash_events
    from lhcq.jets.clustering import cluster_events
    from lhcq.jets.parts import fingerprint, with_contents, write_part

    particles = np.zeros((64, 700, 3))
    particles[:, :30] = np.random.default_rng(1).uniform(1, 3, (64, 30, 3))
    config = CLUSTER_PRESETS["lhco"].model_copy(update={"features": features})
    records = cluster_events(particles, config, rows=np.arange(64), labels=np.zeros(64, np.int8))
    table = with_contents(records, hash_events(particles, np.full(64, 30)))
    place, host = table.schema.get_field_index("row"), fingerprint()
    for index in range(n):
        row = pa.array([index], table.schema.field(place).type)
        one = table.slice(index % 64, 1).set_column(place, table.schema.field(place), row)
        write_part(directory / f"{index:06d}.arrows", [one], host)


MERGE = """
import json, sys, time
from pathlib import Path
from lhcq.jets.merge import merge_parts
paths, final = sorted(Path(sys.argv[1]).iterdir()), Path(sys.argv[2])
began, spent = time.time(), time.process_time()
merge_parts(paths, final, n_events=len(paths), manifest_fields={"name": "merged"}, features="jets")
seconds, cpu = time.time() - began, time.process_time() - spent
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
print(json.dumps([seconds, cpu, 1024 * peak / 1e6]))
"""
"""Seconds, CPU seconds, and the peak in MB of a process that does nothing else.

Not by `ru_maxrss`, which begins with that of the process that started it.
"""


def merged(scratch: Path, n: int) -> dict[str, Any]:
    write_parts(scratch / "parts", n, "jets")
    command = [sys.executable, "-c", MERGE, str(scratch / "parts"), str(scratch / "merged")]
    seconds, cpu, peak = json.loads(subprocess.check_output(command, text=True))
    return {
        "parts": n,
        "seconds": round(seconds, 1),
        "cpu_ms_per_part": round(1000 * cpu / n, 3),
        "peak_mb": round(peak, 1),
    }


def scan(finished: int) -> dict[str, Any]:
    """A scan of a workspace with one open job and many finished ones: the first, and those that follow."""
    from lhcq.records.jobs import end_job
    from tasks.app import connect, own_workspace
    from tasks.broker.embedded import embedded_broker
    from tasks.engine.publish import publish_job
    from tasks.engine.reconciler import Reconciler
    from tasks.jobs.store import create_job

    place = own_workspace()
    for number in range(finished):
        end_job(place, create_job(place, job_of(name=f"ended-{number}")), "done", "made")
    with embedded_broker(place) as url:
        connect(url)
        publish_job(place, create_job(place, job_of(name="vast", parts=1_000_000)))
        reconciler, values = Reconciler(), []
        for _ in range(21):
            began = time.process_time()
            reconciler.scan(place)
            values.append(1000 * (time.process_time() - began))
    return {
        "finished_jobs": finished,
        "first_cpu_ms": round(values[0], 1),
        "cpu_ms": round(statistics.median(values[1:]), 2),
    }


def million(result: dict[str, Any]) -> dict[str, Any]:
    """What a million parts would take, where every cost grows as it was measured."""
    rate = json.loads(OVERHEAD.read_text())["disk"]["many"]["lhcq"]["parts_per_second"]
    return {
        "simulated": True,
        "hours_of_no_ops_on_two_processes": round(1e6 / rate / 3600, 2),
        "merge_cpu_minutes": round(1e6 * result["merge"]["cpu_ms_per_part"] / 60_000, 1),
    }


def lines_of(result: dict[str, Any]) -> list[str]:
    """The table of docs/reliability.md."""
    published, merge, noops = (result[name] for name in ("publishing", "merge", "noops"))
    cpu = {f"{size:,}": result["part"]["cpu_ms"][f"{size:,}"] for size in SIZES}
    return [
        "| | time | memory |",
        "|---|---|---|",
        f"| a chunk's task in a job of {', of '.join(cpu)}: CPU time | "
        + ", ".join(f"{value:.2f}" for value in cpu.values())
        + " ms | |",
        f"| `lhcq cluster --detach` of {published['parts']:,} chunks | {published['seconds']:.2g} s | "
        f"{published['peak_mb']:.0f} MB, of the broker {published['broker_mb']:.1f} |",
        f"| the merge of {merge['parts']:,} chunks of one event | {merge['seconds']:.1f} s, "
        f"{merge['cpu_ms_per_part']:.2f} ms of CPU time a chunk | {merge['peak_mb']:.0f} MB |",
        f"| {noops['parts']:,} chunks that do nothing, one worker with two processes | {noops['seconds']:.0f} s, "
        f"{noops['parts_per_second']:.0f} a second | {noops['command_peak_mb']:.0f} MB of the command, "
        f"{noops['broker_peak_mb']:.0f} of the broker |",
    ]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--parts", type=int, default=50_000, help="That are published.")
    words.add_argument("--merged", type=int, default=50_000, help="That are merged.")
    words.add_argument("--each", type=int, default=60, help="Parts that are made in a round.")
    words.add_argument("--finished", type=int, default=1_000)
    words.add_argument("--noops", type=int, default=100_000)
    words.add_argument("--only", choices=["part", "publishing", "scan", "merge", "noops"], help="One stage.")
    words.add_argument("--out", type=Path, default=RESULT)
    given = words.parse_args()
    stages: dict[str, Callable[[Path], dict[str, Any]]] = {
        "part": lambda scratch: parts_cpu(scratch, given.each),
        "publishing": lambda scratch: publishing(scratch, given.parts),
        "scan": lambda _: scan(given.finished),
        "merge": lambda scratch: merged(scratch, given.merged),
        "noops": lambda scratch: noops(scratch, given.noops),
    }
    result: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    chosen = [given.only] if given.only else [name for name in stages if name != "noops"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        scratch = Path(directory)
        os.environ["LHCQ_WORKSPACE"] = str(scratch / "workspace")
        for name in chosen:
            result[name] = stages[name](scratch)
    if "merge" in result:
        result["million"] = million(result)
    result["holds"] = {
        name: result[stage][figure] <= bound
        for name, bound in BOUNDS.items()
        for stage, _, figure in [name.partition(".")]
        if stage in result
    }
    given.out.write_text(json.dumps({**result, "machine": machine()}, indent=1, sort_keys=True) + "\n")
    if given.out == RESULT:
        put_table("scale", lines_of(result), MADE_BY, DOCUMENT)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
