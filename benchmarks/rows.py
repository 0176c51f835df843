"""The rows of a result: what was measured and its bound; how they are printed and stored."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from benchmarks.machine import machine

RESULTS = Path(__file__).parent / "results"
DOCUMENT = Path(__file__).parent.parent / "docs" / "results.md"
VERSIONED = ("lhcq", "fastjet", "numba", "numpy", "pyarrow", "h5py", "celery", "pythia8mc", "scipy")

Row = dict[str, Any]


def row(
    figure: str,
    value: float | Sequence[float],
    unit: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    note: str = "",
    **facts: Any,
) -> Row:
    """One line of a result; of a sequence of rounds the median counts, and all are kept."""
    rounds = [] if isinstance(value, (int, float)) else [float(one) for one in value]
    if rounds:
        facts["rounds"] = rounds
    value = statistics.median(rounds) if rounds else float(value)  # type: ignore[arg-type]
    holds = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    bound = {"at_least": at_least, "at_most": at_most, "holds": holds}
    return {"figure": figure, "value": value, "unit": unit, **bound, "note": note, **facts}


def store(name: str, rows: list[Row]) -> None:
    """Write results/NAME.json, with the machine and the versions that the rows were had with."""
    write_result(name, {**circumstances(), "rows": rows})


def circumstances() -> dict[str, Any]:
    """What a measurement of now is made with."""
    versions = {package: known for package in VERSIONED if (known := _version(package))}
    return {
        "machine": machine(),
        "versions": {**versions, "python": python_version()},
        "date": date.today().isoformat(),
        "commit": _commit(),
        "load_average": os.getloadavg()[0],  # runnable processes of the last minute, this one among them
    }


def _version(package: str) -> str | None:
    """None where it is not installed, as on a machine that trains alone."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_result(name: str, result: dict[str, Any]) -> None:
    """Write results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


def _commit() -> str | None:
    """The commit that was measured, marked where files differ from it; None outside a checkout."""
    words = ("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    try:
        found = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def markdown(rows: list[Row]) -> list[str]:
    """The rows as a table of a document."""
    lines = ["| what | value | bound | holds |", "| --- | --- | --- | --- |"]
    for one in rows:
        interval = f" ({one['low']:+.5f} to {one['high']:+.5f})" if "low" in one else ""
        bound = " and ".join(
            f"{word} {value:g}"
            for word, value in (("at least", one["at_least"]), ("at most", one["at_most"]))
            if value is not None
        )
        holds = ("yes" if one["holds"] else "**no**") if bound else ""
        shown = f"{one['value']:.5g}{interval} {one['unit']}".strip()
        lines.append(f"| {one['figure']} | {shown} | {bound} | {holds} |")
    return lines


def put_table(name: str, lines: Sequence[str], made_by: str, document: Path = DOCUMENT) -> None:
    """Put a table between its marks in a page, docs/results.md as a rule; what stands around it stays."""
    text = document.read_text()
    begin, end = marks(name, made_by)
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    document.write_text(f"{before}{begin}\n" + "\n".join(lines) + f"\n{end}{after}")


def marks(name: str, made_by: str) -> tuple[str, str]:
    """What stands before and after a table in a page."""
    return f"<!-- {name}: made by `{made_by}` -->", f"<!-- end of {name}: made by `{made_by}` -->"


def table(name: str, rows: list[Row]) -> str:
    """The rows for people."""
    return "\n".join([name, *(_line(one) for one in rows)])


def _line(one: Row) -> str:
    text = f"  {one['figure']:<58} {digits(one['value']):>9} {one['unit']:<10}"
    if rounds := one.get("rounds"):
        text += f" {digits(min(rounds))} to {digits(max(rounds))} in {len(rounds)} rounds"
    for word, bound in (("at least", one["at_least"]), ("at most", one["at_most"])):
        if bound is not None:
            text += f"  [{word} {bound:g}: {'holds' if one['holds'] else 'FALLS SHORT'}]"
    return text.rstrip() + (f"\n      {one['note']}" if one["note"] else "")


def digits(value: float) -> str:
    """Three digits, and all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def say(message: str) -> None:
    """Tell whoever waits."""
    print(message, file=sys.stderr, flush=True)
