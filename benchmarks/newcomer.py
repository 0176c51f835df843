"""What a newcomer goes through: a fresh clone, then the wheel in an empty directory, by the README's commands alone.

    python -m benchmarks.newcomer [--events DIRECTORY] [--way checkout|wheel]

Each command of the README's section on published events is run as it stands there, in an empty directory, in a shell
of its own: how long it took, the processor time and the memory of all of its processes, and what it printed last. A
command that fails ends the log. `--events` names a directory with the small published file, for a machine without a
network: it is laid where `lhcq fetch` would put it, which then has only its md5 to check. Writes
results/newcomer.json and the tables of docs/newcomer.md.
"""

import argparse
import contextlib
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.rows import RESULTS, circumstances, put_table, say, write_result

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "newcomer.md"
SECTION = "## From published events to a page"
LOOK_SECONDS = 1.0


def readme_commands(text: str) -> list[str]:
    """The commands of the README that lead to a report, in their order, without what is said beside."""
    _, _, rest = text.partition(f"\n{SECTION}\n")
    block = re.search(r"(?:^ {4}lhcq .*\n)+", rest.partition("\n## ")[0], re.M)
    if block is None:
        raise LookupError(f"README.md has no commands under {SECTION!r}.")
    return [shlex.join(shlex.split(line, comments=True)) for line in block[0].splitlines()]


WAYS = ("checkout", "wheel")
MADE_BY = "python -m benchmarks.newcomer"


def checkout_commands() -> list[str]:
    """From a clone to the environment that `make` sets up."""
    return [f"git clone --quiet {shlex.quote(str(ROOT))} lhcq", "cd lhcq && make setup"]


def wheel_commands() -> list[str]:
    """From a wheel to an environment of its own, as README's Install has it."""
    constraints = shlex.quote(str(ROOT / "constraints.txt"))
    return [
        f"{shlex.quote(sys.executable)} -m pip wheel --quiet --no-deps --wheel-dir . {shlex.quote(str(ROOT))}",
        f"{shlex.quote(sys.executable)} -m venv .venv",
        f'.venv/bin/pip install --quiet --constraint {constraints} "$(ls lhcq-*.whl)[train]"',
    ]


def run(command: str, where: Path) -> dict[str, Any]:
    """Run a command in the directory `where`, with variables that say nothing of lhcq."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LHCQ_") and name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    environment["PATH"] = f"{where / '.venv' / 'bin'}:{environment['PATH']}"
    peak, load = 0, os.getloadavg()[0]
    seen: dict[tuple[int, float], float] = {}
    with tempfile.TemporaryFile("w+") as output:
        cpu, began = _cpu_of_children(), time.perf_counter()
        shell = subprocess.Popen(
            ["sh", "-c", command], cwd=where, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        while shell.poll() is None:
            peak = max(peak, _look_at(shell.pid, seen))
            time.sleep(LOOK_SECONDS)
        # What a worker has used is no child's of this process where the worker was killed at its command's end.
        seconds, cpu = time.perf_counter() - began, max(_cpu_of_children() - cpu, sum(seen.values()))
        output.seek(0)
        printed = [_of_anywhere(line.strip(), where) for line in output if line.strip()]
    return {
        "command": _of_anywhere(command, where),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_mb": peak / 1e6,
        "load_before": load,
        "code": shell.returncode,
        "printed": printed[-12:] if command.startswith("lhcq ") else [],  # pip's is about the index
    }


def _of_anywhere(text: str, where: Path) -> str:
    """What a command is, or says, without the names that directories have on this machine."""
    for found, meant in ((str(where), "."), (sys.executable, "python3"), (str(ROOT), "SOURCE")):
        text = text.replace(found, meant)
    return text


def _cpu_of_children() -> float:
    """Seconds of all processes that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _look_at(pid: int, seen: dict[tuple[int, float], float]) -> int:
    """Bytes of a process and all below it, what they share counted once; `seen` learns the seconds that each used."""
    total = 0
    with contextlib.suppress(psutil.Error):
        shell = psutil.Process(pid)
        for process in [shell, *shell.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):
                used = process.cpu_times()
                seen[process.pid, process.create_time()] = used.user + used.system
                total += process.memory_full_info().pss
    return total


def go(way: str, place: Path, events: Path | None) -> dict[str, Any]:
    """All commands of a way in the empty directory `place`, until one fails; what they left, and its size."""
    steps = []
    where = place / "lhcq" if way == "checkout" else place
    for command in checkout_commands() if way == "checkout" else wheel_commands():
        steps.append(_told(run(command, place)))
    if events is not None:
        (where / "data").mkdir()
        shutil.copy(next(events.glob("events_anomalydetection_tiny.h5")), where / "data")
    for command in readme_commands((ROOT / "README.md").read_text("utf-8")):
        if steps[-1]["code"] == 0:
            steps.append(_told(run(command, where)))
    workspace = where / "lhcq-workspace"
    return {
        "steps": steps,
        "events_were_there": events is not None,
        "report": next((str(page.relative_to(where)) for page in workspace.glob("runs/*/report.html")), None),
        "environment_mb": _size(where / ".venv") / 1e6,
        "workspace_mb": _size(workspace) / 1e6,
    }


def _told(step: dict[str, Any]) -> dict[str, Any]:
    say(
        f"{step['seconds']:7.1f} s  {step['command']}"
        + (f"  FAILED ({step['code']})" if step["code"] else "")
    )
    return step


def _size(directory: Path) -> int:
    """Bytes on the disk of all files in a directory."""
    files = (path.lstat() for path in directory.rglob("*") if path.is_file())
    return sum(one.st_blocks * 512 for one in {found.st_ino: found for found in files}.values())


def table(result: dict[str, Any]) -> list[str]:
    """The log of one way, as a table of the page."""
    lines = ["| command | time | processor time | memory |", "| --- | --- | --- | --- |"]
    for step in result["steps"]:
        words = step["command"].replace("|", "\\|")
        failed = "" if step["code"] == 0 else f" (failed, {step['code']})"
        figures = f"{step['seconds']:,.0f} s | {step['cpu_seconds']:,.0f} s | {step['peak_mb']:,.0f} MB"
        lines.append(f"| `{words}`{failed} | {figures} |")
    total, cpu = (sum(step[name] for step in result["steps"]) for name in ("seconds", "cpu_seconds"))
    lines.append(
        f"| all | {total:,.0f} s | {cpu:,.0f} s | {max(s['peak_mb'] for s in result['steps']):,.0f} MB |"
    )
    loads = [step["load_before"] for step in result["steps"]]
    made = result["circumstances"]
    lines += [
        "",
        f"{made['date']}, {made['commit']}; {made['machine']['cores']} cores of {made['machine']['processor']}, with "
        f"{min(loads):.0f} to {max(loads):.0f} processes wanting them when a command began. The environment took "
        f"{result['environment_mb']:,.0f} MB, the workspace {result['workspace_mb']:,.0f} MB.",
    ]
    if result["events_were_there"]:
        lines[-1] += (
            " There was no network but a package index: the file of events was there, `lhcq fetch` verified it."
        )
    return lines


def main() -> int:
    """Go the ways that are asked for; 1 where one led to no report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=Path, help="Directory with the small published file.")
    parser.add_argument("--way", choices=WAYS, action="append", help="Default: both.")
    asked = parser.parse_args()
    stored = RESULTS / "newcomer.json"
    arrived = True
    made_with = circumstances()  # before: what is worked on meanwhile is not what is measured
    for way in asked.way or WAYS:
        with tempfile.TemporaryDirectory(prefix="newcomer-") as place:
            result = {**go(way, Path(place), asked.events), "circumstances": made_with}
            others = json.loads(stored.read_text()) if stored.exists() else {}
            write_result("newcomer", {**others, way: result})
            put_table(way, table(result), MADE_BY, PAGE)
            arrived &= result["report"] is not None
    return int(not arrived)


if __name__ == "__main__":
    sys.exit(main())
