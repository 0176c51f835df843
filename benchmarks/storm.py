"""Workers killed at random while they work, lhcq and plain Celery side by side.

    python -m benchmarks.storm --seed 1 --kills 200 --parts 10000

Three worker hosts a side. A kill is SIGKILL to the whole process group of one host of lhcq and, at the same moment,
of the same host of plain Celery; both start again at once. A part waits 0.25 s and leaves a line of text; a chain of
training segments that do as little runs beside the parts, each segment validated.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from tasks.settings import with_again
from tests.faults.noop import noop_file, serial_adapter, serial_noop
from tests.faults.rig import ROOT, Rig, Worker, running_rig, wait_until

RESULT = Path(__file__).parent / "results" / "storm.json"
HOSTS = 3
PROCESSES = 2
PART_SECONDS = 0.25
QUIET_SECONDS = 900


class Plain:
    """Plain Celery on the second database of the same broker."""

    def __init__(self, rig: Rig, *, seconds: float) -> None:
        self.url = rig.broker.url.removesuffix("0") + "1"
        self.done = rig.directory / "plain.txt"
        self.done.touch()
        self.log = rig.directory / "plain.log"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PLAIN_BROKER_URL": self.url,
            "PLAIN_DONE": str(self.done),
            "LHCQ_NOOP_SECONDS": str(seconds),
        }

    def start_worker(self, name: str) -> Worker:
        command = [sys.executable, "-m", "celery", "--app", "benchmarks.plain", "--quiet", "worker"]
        command += ["--hostname", f"{name}@plain", "--concurrency", str(PROCESSES), "--loglevel", "WARNING"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [*command, "--without-gossip", "--without-mingle"],
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return Worker(process, name)

    def publish(self, n_parts: int) -> None:
        code = "from celery import group\nfrom benchmarks.plain import noop\n"
        code += f"group(noop.s(index) for index in range({n_parts}))()"
        subprocess.run([sys.executable, "-c", code], env=self.environment, check=True)

    def counts(self) -> Counter[int]:
        """How often each part was done."""
        return Counter(int(line) for line in self.done.read_text().splitlines())

    def is_quiet(self, rig: Rig) -> bool:
        """Whether nothing is queued and nothing waits to be delivered again."""
        with rig.broker.client() as client:
            client.select(1)
            return client.llen("celery") == 0 and client.hlen("unacked") == 0


def start_host(rig: Rig) -> Worker:
    queues = ",".join(name for queue in ("validate", "gpu", "cpu") for name in with_again(queue))
    return rig.start_worker(
        processes=PROCESSES, extra=("--queues", queues), LHCQ_NOOP_SECONDS=str(PART_SECONDS)
    )


def storm(directory: Path, *, seed: int, kills: int, parts: int, segments: int) -> dict[str, Any]:
    dice = random.Random(seed)
    with running_rig(directory / "rig", noop=True) as rig:
        plain = Plain(rig, seconds=PART_SECONDS)
        others: list[Worker] = []
        try:
            return _storm(rig, plain, others, dice, kills=kills, parts=parts, segments=segments)
        finally:
            for worker in others:
                worker.kill()


def _storm(
    rig: Rig,
    plain: Plain,
    others: list[Worker],
    dice: random.Random,
    *,
    kills: int,
    parts: int,
    segments: int,
) -> dict[str, Any]:
    hosts = [start_host(rig) for _ in range(HOSTS)]
    others += [plain.start_worker(f"{number}") for number in range(HOSTS)]
    rig.await_ready()
    plain.publish(parts)
    events = noop_file(rig.directory / "events.h5", parts)
    rig.python(CHAIN.format(steps=list(range(1, segments + 1))))
    started = time.time()
    job = rig.submit(events, "storm", per_chunk=1)
    chain = rig.job("train", "chain")
    killed: list[tuple[float, int]] = []
    plain_busy = 0  # it is done sooner, and a kill of idle workers costs nothing
    while len(killed) < kills and not (rig.is_over(job) and plain.is_quiet(rig)):
        time.sleep(dice.uniform(0.0, 4.0))
        with rig.broker.client() as client:
            up = client.smembers("lhcq:ready")
        ready = [number for number, host in enumerate(hosts) if host.name in up]
        if not ready:
            continue
        number = dice.choice(ready)
        plain_busy += not plain.is_quiet(rig)
        killed.append((time.time(), hosts[number].process.pid))
        hosts[number].kill()
        others[number].kill()
        hosts[number] = start_host(rig)
        others[number] = plain.start_worker(f"{number}")
        if len(killed) % 10 == 0:
            print(f"{len(killed)} kills, {rig.finished(job)} parts, {len(plain.counts())} plain", flush=True)
    stopped = time.time()
    rig.await_end(job, QUIET_SECONDS)
    rig.await_end(chain, QUIET_SECONDS)
    lhcq_over = time.time()
    wait_until(lambda: plain.is_quiet(rig), "plain Celery to be done", QUIET_SECONDS)
    return {
        "kills": len(killed),
        "parts": parts,
        "segments": segments,
        "part_seconds": PART_SECONDS,
        "seconds": {"under_kills": round(stopped - started, 1), "all": round(lhcq_over - started, 1)},
        "lhcq": _lhcq_figures(rig, job, chain, killed),
        "plain": _plain_figures(plain, parts, plain_busy),
    }


def _lhcq_figures(rig: Rig, job: Any, chain: Any, killed: list[tuple[float, int]]) -> dict[str, Any]:
    from tasks.jobs.kinds import chunk_path

    commits = rig.commits()
    paths = [str(chunk_path(rig.place, job, index)) for index in range(job.parts)]
    run = rig.place.run(chain.name)
    last = chain.spec.checkpoint_steps[-1]
    merged = (rig.place.dataset(job.name) / "events.parquet").read_bytes()
    works = Counter(entry["what"] for entry in rig.entries("work"))
    rig.await_no_leases()
    return {
        "lost": job.parts - len(merged.splitlines()),
        "committed_twice": sum(count > 1 for count in commits.values()),
        # A kill between a commit and its line in the journal hides the line, never the commit.
        "commits_unseen": sum(commits[path] == 0 for path in paths),
        "bytes_identical": merged == serial_noop(job.parts),
        "chain_identical": (rig.place.checkpoint(chain.name, last) / "adapter").read_bytes()
        == serial_adapter(last),
        "validations": len(list((run / "validations").glob("*/manifest.json"))),
        "begun_again": sum(count - 1 for count in works.values()),
        "recovery": _recoveries(rig, killed),
    }


def _recoveries(rig: Rig, killed: list[tuple[float, int]]) -> dict[str, Any]:
    """From a kill to the commit of what the killed host had begun; for parts, also to their being published again.

    What is published again stands at the end of the queue, behind all parts that nobody has begun yet.
    """
    committed: dict[str, float] = {}
    for entry in rig.entries("commit"):
        committed.setdefault(entry["what"], entry["time"])
    again = defaultdict(list)
    for entry in rig.entries("again"):
        again[entry["what"]].append(entry["time"])
    begun = defaultdict(list)
    for entry in rig.entries("work"):
        begun[entry["group"]].append(entry)
    found, done = [], []
    for moment, group in killed:
        cut_off = [entry for entry in begun[group] if committed.get(entry["path"], 0.0) > moment]
        if cut_off:
            done.append(max(committed[entry["path"]] - moment for entry in cut_off))
        later = [at for entry in cut_off for at in again[entry["what"]] if at > moment]
        if later:
            found.append(min(later) - moment)
    return {"kills_that_cut_work_off": len(done), "published_again": _spread(found), "done": _spread(done)}


def _spread(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    ordered = sorted(seconds)
    return {
        "median": round(statistics.median(ordered), 1),
        "p95": round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))], 1),
        "worst": round(ordered[-1], 1),
    }


def _plain_figures(plain: Plain, parts: int, kills: int) -> dict[str, Any]:
    counts = plain.counts()
    lost = parts - len(counts)
    return {
        "lost": lost,
        "kills_while_busy": kills,
        "lost_a_kill": round(lost / max(1, kills), 3),
        "done_twice": sum(count > 1 for count in counts.values()),
    }


CHAIN = """
from tasks.app import own_workspace
from tasks.engine.publish import publish_job
from tasks.jobs.store import create_job
from tests.specs import job_of
job = create_job(own_workspace(), job_of("train", "chain", parts=0, checkpoint_steps={steps}))
publish_job(own_workspace(), job)
"""


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--kills", type=int, default=200)
    words.add_argument("--parts", type=int, default=10_000)
    words.add_argument("--segments", type=int, default=100)
    words.add_argument("--out", type=Path, default=RESULT)
    given = words.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        result = storm(
            Path(directory), seed=given.seed, kills=given.kills, parts=given.parts, segments=given.segments
        )
    lhcq = result["lhcq"]
    given.out.write_text(
        json.dumps({"machine": machine(), "seed": given.seed, **result}, indent=1, sort_keys=True) + "\n"
    )
    print(json.dumps(result, indent=1))
    kept = lhcq["bytes_identical"] and lhcq["chain_identical"] and not lhcq["lost"] + lhcq["committed_twice"]
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
