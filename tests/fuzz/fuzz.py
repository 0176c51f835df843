"""Feeds spoilt input to everything that reads bytes from outside: `make fuzz`, or `python -m tests.fuzz.fuzz --help`.

An input is a function of the seed, the target and its number. It is read in a child process that may take a certain
time and memory. Whatever is no `LhcqError` is a finding: another exception, a signal, a hang, too much memory.
"""

import argparse
import contextlib
import faulthandler
import json
import logging
import mmap
import os
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # its own allocator reserves more than a child may have

from lhcq.errors import LhcqError
from lhcq.events.sandboxed_read import ReaderCrashed

SECONDS = 10.0
"""For one input."""
MEMORY = 1 << 30
"""Bytes that a child may ask for beyond what its parent has."""
_AT_ONCE = 1_000
"""Inputs of a child; the next one begins with fresh memory."""
_POLL_SECONDS = 0.01


@dataclass(frozen=True, kw_only=True)
class Target:
    """A reader to attack."""

    name: str
    share: int
    """Its part of all inputs, by weight."""
    make: Callable[[Random], Any]
    """One input."""
    attack: Callable[[Any, Path], None]
    """Reads it, with a directory to write to."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An input that was not refused as it should."""

    index: int
    what: str
    where: str


@dataclass(kw_only=True)
class Outcome:
    """What came of a target's inputs."""

    name: str
    inputs: int = 0
    refused: int = 0
    """Ended in an `LhcqError`; the others were read."""
    crashed: int = 0
    """Of those: ended the child that `read_apart` reads in."""
    seconds: float = 0.0
    peak_mb: int = 0
    findings: list[Finding] = field(default_factory=list)


def run_target(target: Target, *, seed: int, first: int, stop: int) -> Outcome:
    """Attack with the inputs [first, stop)."""
    outcome = Outcome(name=target.name)
    target.make(Random(0))  # what all inputs are made of is made once
    began = time.monotonic()
    at = first
    while at < stop:
        at = _run_child(target, seed, at, min(stop, at + _AT_ONCE), outcome)
    outcome.inputs, outcome.seconds = stop - first, time.monotonic() - began
    return outcome


def _run_child(target: Target, seed: int, first: int, stop: int, outcome: Outcome) -> int:
    """Attack in a child until it ends, and say which input is next."""
    with (
        mmap.mmap(-1, 24) as board,
        tempfile.TemporaryDirectory(prefix="lhcq-fuzz-") as place,
    ):
        report = Path(place) / "report"
        board[:] = struct.pack("<qqq", first, 0, 0)
        child = os.fork()
        if not child:
            try:
                _be_child(target, seed, range(first, stop), board, Path(place))
            finally:  # a fault of this program's own, which must not go on as its parent
                traceback.print_exc()
                os._exit(70)
        status, usage, hung = _watch(child, board)
        at, refused, crashed = struct.unpack("<qqq", board[:])
        outcome.refused += refused
        outcome.crashed += crashed
        outcome.peak_mb = max(outcome.peak_mb, usage.ru_maxrss >> 10)
        with contextlib.suppress(FileNotFoundError):
            outcome.findings += [Finding(**json.loads(line)) for line in report.read_text().splitlines()]
        if status == 0:
            return stop
        what = f"more than {SECONDS:.0f} s" if hung else _named(status)
        stack = (Path(place) / "stack").read_text(errors="replace").splitlines()
        where = [line.strip().removeprefix("File ") for line in stack if line.startswith("  File")]
        outcome.findings.append(Finding(index=at, what=what, where=" | ".join(where[:5])))
        return int(at) + 1


def _be_child(target: Target, seed: int, inputs: range, board: mmap.mmap, place: Path) -> None:
    """Attack, and never return."""
    with (place / "stack").open("w") as stack, (place / "report").open("a") as report:
        faulthandler.enable(stack)
        faulthandler.register(signal.SIGUSR1, stack)
        _limit_memory()
        logging.disable()
        refused = crashed = 0
        work = place / "work"
        work.mkdir()
        for index in inputs:
            board[:] = struct.pack("<qqq", index, refused, crashed)
            data = target.make(Random(f"{seed}:{target.name}:{index}"))
            try:
                target.attack(data, work)
            except LhcqError as error:
                refused += 1
                crashed += isinstance(error, ReaderCrashed)
                if "\n" in str(error):
                    report.write(
                        json.dumps({"index": index, "what": "two lines", "where": str(error)}) + "\n"
                    )
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)
                last = " | ".join(f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in where[-4:])
                what = f"{type(error).__name__}: {ascii(str(error))[:200]}"
                report.write(json.dumps({"index": index, "what": what, "where": last}) + "\n")
            report.flush()
        board[:] = struct.pack("<qqq", inputs.stop, refused, crashed)
    os._exit(0)


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _watch(child: int, board: mmap.mmap) -> tuple[int, Any, bool]:
    """Wait for a child's end, or end it when one input takes too long."""
    at, since = board[:8], time.monotonic()
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            return status, usage, False
        if board[:8] != at:
            at, since = board[:8], time.monotonic()
        elif time.monotonic() - since > SECONDS:
            os.kill(child, signal.SIGUSR1)  # it tells where it is
            time.sleep(0.2)
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            return status, usage, True
        time.sleep(_POLL_SECONDS)


def _named(status: int) -> str:
    number = os.waitstatus_to_exitcode(status)
    return signal.Signals(-number).name if number < 0 else f"exit {number}"


def table_of(outcomes: list[Outcome]) -> str:
    """The outcomes for people."""
    lines = [
        f"{'target':<14} {'inputs':>7} {'refused':>8} {'crashed':>8} {'findings':>9} {'seconds':>8} {'peak MB':>8}"
    ]
    for one in outcomes:
        lines.append(
            f"{one.name:<14} {one.inputs:>7,} {one.refused:>8,} {one.crashed:>8,} {len(one.findings):>9} "
            f"{one.seconds:>8.1f} {one.peak_mb:>8,}"
        )
        kinds = Counter((finding.what[:100], finding.where[-160:]) for finding in one.findings)
        for (what, where), count in kinds.most_common(20):
            first = next(f.index for f in one.findings if (f.what[:100], f.where[-160:]) == (what, where))
            lines.append(f"    {count} x {what} (first at {first})\n        {where}")
    return "\n".join(lines)


def main() -> None:
    """Attack all targets, or those that are named, and print what came of it."""
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inputs", type=int, default=50_000, help="of all targets together")
    parser.add_argument(
        "--only", nargs="*", choices=[target.name for target in TARGETS], help="these targets"
    )
    parser.add_argument("--index", type=int, help="this input alone, of one target")
    parser.add_argument("--store", type=Path, help="write the outcome there, as JSON")
    asked = parser.parse_args()
    weight = sum(target.share for target in TARGETS)
    outcomes = []
    for target in TARGETS:
        if asked.only and target.name not in asked.only:
            continue
        first, stop = 0, -(-asked.inputs * target.share // weight)
        if asked.index is not None:
            first, stop = asked.index, asked.index + 1
        outcomes.append(run_target(target, seed=asked.seed, first=first, stop=stop))
        print(table_of(outcomes[-1:]), flush=True)  # noqa: T201
        if asked.store:
            _store(asked.store, asked.seed, outcomes)
    sys.exit(any(outcome.findings for outcome in outcomes))


def _store(path: Path, seed: int, outcomes: list[Outcome]) -> None:
    """Put the outcomes beside those of other targets that were stored with the same seed."""
    kept: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        earlier = json.loads(path.read_text())
        kept = {one["name"]: one for one in earlier["targets"] if earlier["seed"] == seed}
    kept |= {one.name: {**asdict(one), "seconds": round(one.seconds, 1)} for one in outcomes}
    targets = sorted(kept.values(), key=lambda one: one["name"])
    value = {
        "command": "python -m tests.fuzz.fuzz",
        "seed": seed,
        "seconds_for_an_input": SECONDS,
        "memory_bytes": MEMORY,
        "inputs": sum(one["inputs"] for one in targets),
        "findings": sum(len(one["findings"]) for one in targets),
        "crashed": sum(one["crashed"] for one in targets),
        "targets": targets,
    }
    path.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
