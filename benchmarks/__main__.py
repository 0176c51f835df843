"""Run the named benchmarks or all, print their tables, store them, and exit 1 where a bound falls short."""

import os
import sys

from benchmarks import (
    checks,
    clustering,
    exporting,
    files,
    generator,
    job,
    kernels,
    live,
    memory,
    prediction,
    profile,
    rehearsal,
    starts,
    waiting,
)
from benchmarks.rows import say, store, table

BENCHMARKS = {
    "clustering": clustering.measure,
    "kernels": kernels.measure,
    "profile": profile.measure,
    "starts": starts.measure,
    "job": job.measure,
    "live": live.measure,
    "memory": memory.measure,
    "rehearsal": rehearsal.measure,
    "files": files.measure,
    "prediction": prediction.measure,
    "exporting": exporting.measure,
    "checks": checks.measure,
    "waiting": waiting.measure,
    "generator": generator.measure,
}


def main() -> int:
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        say(f"no benchmark is called {unknown[0]!r}; there are {', '.join(BENCHMARKS)}.")
        return 2
    holds = True
    for name in names:
        if name == "generator" and "LHCQ_TEST_DATA" not in os.environ:
            say(
                "generator: skipped, since LHCQ_TEST_DATA does not name the directory of the released events."
            )
            continue
        rows = BENCHMARKS[name]()
        store(name, rows)
        print(table(name, rows), flush=True)
        holds &= all(row["holds"] for row in rows)
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
