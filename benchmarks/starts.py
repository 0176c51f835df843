"""What it takes a process until it can look at events: lhcq's way to start numba over numba's own.

Fresh interpreters in turn, each of which imports what every worker of the cpu queue and every command that looks at
events imports: once as it is, once with all that other packages register with numba, as numba would have it.
"""

import json
import subprocess
import sys

from benchmarks.rows import Row, row, say

ROUNDS = 7
_OURS = "import lhcq.events.blocks\n"
_NUMBAS = f"from numba.core import entrypoints\nentrypoints.init_all()\n{_OURS}"
_TELL = """
import json, re, time
from pathlib import Path
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps([time.process_time(), int(peak[1]) / 1024]))
"""


def measure() -> list[Row]:
    """The rows of the result."""
    say(f"starts: {ROUNDS} rounds of two fresh interpreters")
    _start(_OURS), _start(_NUMBAS)  # what is compiled, to byte code too, is kept
    rounds = [(_start(_OURS), _start(_NUMBAS)) for _ in range(ROUNDS)]
    note = "numba's own way loads what awkward and vector register with it, and by them sympy"
    return [
        row("until events can be read", [ours[0] for ours, _ in rounds], "CPU seconds"),
        row("the same, numba's own way", [theirs[0] for _, theirs in rounds], "CPU seconds", note=note),
        row("one over the other", [ours[0] / theirs[0] for ours, theirs in rounds], "ratio", at_most=0.7),
        row("memory", [ours[1] for ours, _ in rounds], "MiB"),
        row(
            "memory, one over the other",
            [ours[1] / theirs[1] for ours, theirs in rounds],
            "ratio",
            at_most=0.8,
        ),
    ]


def _start(program: str) -> tuple[float, float]:
    """Processor time (s) and peak memory (MiB) of an interpreter that runs `program`."""
    done = subprocess.run([sys.executable, "-c", program + _TELL], capture_output=True, check=True, text=True)
    seconds, peak = json.loads(done.stdout)
    return seconds, peak
