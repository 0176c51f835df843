"""Run every benchmark, print its table, store it, and say by the exit code whether all bounds hold."""

import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

from benchmarks import clustering

RESULTS = Path(__file__).parent / "results"
BENCHMARKS = {"clustering": clustering.measure}
VERSIONED = ("lhcq", "fastjet", "awkward", "numpy", "pyarrow", "h5py")


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main() -> int:
    RESULTS.mkdir(exist_ok=True)
    machine = {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform()}
    versions = {name: importlib.metadata.version(name) for name in VERSIONED}
    short = False
    for name, measure in BENCHMARKS.items():
        rows = measure()
        result = {
            "machine": machine,
            "versions": {**versions, "python": platform.python_version()},
            "rows": rows,
        }
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
        for row in rows:
            bound = (
                ""
                if row["bound"] is None
                else f"  bound {row['bound']}: {'holds' if row['holds'] else 'FALLS SHORT'}"
            )
            print(f"{name}: {row['figure']:<16} {row['value']:10.1f} {row['unit']}{bound}")
            short |= not row["holds"]
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
