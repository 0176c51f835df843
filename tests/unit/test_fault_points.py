"""The points at which fault tests kill: each arm takes one process."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
REACHED = """
import pathlib
import tests.faults.points as points

read = pathlib.Path.read_text

def read_late(path, *arguments, **options):
    text = read(path, *arguments, **options)
    if another_takes_it:
        path.unlink()  # as another process does that read it as well
    return text

pathlib.Path.read_text = read_late
points.reach("working")
print("lives")
"""


def reach(arms: Path, *, another_takes_it: bool) -> "subprocess.CompletedProcess[str]":
    """A process of its own that reaches an armed point."""
    (arms / "working").write_text("kill")
    environment = {"LHCQ_FAULTS": str(arms), "LHCQ_JOURNAL": str(arms / "journal"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", f"another_takes_it = {another_takes_it}\n{REACHED}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )


def test_an_arm_kills_who_reaches_its_point(tmp_path: Path) -> None:
    assert reach(tmp_path, another_takes_it=False).returncode == -9


def test_an_arm_that_two_processes_see_at_once_kills_one(tmp_path: Path) -> None:
    done = reach(tmp_path, another_takes_it=True)
    assert (done.returncode, done.stdout) == (0, "lives\n")
